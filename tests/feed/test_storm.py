"""The feed under a storm of pushes: processes and the broker are killed at random, models are rebuilt meanwhile.

The long form is `make test-long PART=storm`.
"""

import random
import time

import pytest

from projections.all_models import MODELS
from projections.builds import admin, rebuild
from tests.feed.fleet import Storm, running_fleet
from tests.feed.running import assert_feed_right, assert_right, published
from tests.folded import wait_folded
from tests.kafka import Broker
from tests.postgres import Database
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("kafka")

SEED = 20261124
SETTLE_S = 60.0


def assert_settled(database: Database, broker: Broker, prefix: str) -> None:
    """Wait until the read models are level with the log, and check that they and the feed are right."""
    head = admin.status(database.app_url).head
    wait_folded(database.app_url, head, SETTLE_S)
    published(database.app_url, head)
    assert_right(database.app_url)
    assert_feed_right(database.app_url, broker.settings(prefix))


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_relays_projectors_and_brokers_cost_nothing(
    database: Database, broker: Broker, topic_prefix: str, kills: int
) -> None:
    """SIGKILL ends them at random moments; no request fails or is stale, nothing is lost, repeated or wrong."""
    print(f"seed {SEED}, {kills} kills")
    chance = random.Random(SEED)
    with running_fleet(database, broker.settings(topic_prefix)) as fleet:
        hosts = [fleet.api(), fleet.api()]
        for name in ("relay0", "relay1"):
            fleet.relay(name)
        for name in ("projector0", "projector1"):
            fleet.projector(name)
        assert_started(database)
        with Storm(hosts, 2) as storm:
            victims = ["relay0", "relay1", "projector0", "projector1", "broker"]
            for number in range(kills):
                time.sleep(chance.uniform(0.2, 1.5))
                victim = victims[number % 5] if kills < 5 else chance.choice(victims)
                if victim == "broker":
                    broker.kill()
                    time.sleep(chance.uniform(0.0, 2.0))
                    broker.start()
                else:
                    fleet.kill(victim)
                    fleet.restart(victim)
            storm.wait_for(20)
        assert (storm.failed, storm.stale) == ([], [])
        assert storm.pushes > 0
        assert_settled(database, broker, topic_prefix)
        print(f"{storm.pushes} pushes, head {admin.status(database.app_url).head}")


def assert_started(database: Database) -> None:
    """Wait until every partition of every model has an owner."""

    def shared() -> bool:
        found = admin.status(database.app_url)
        owners = {part.owner for each in found.models for part in each.partitions}
        return None not in owners and len(owners) == 2 and found.relay.owner is not None

    eventually(shared, SETTLE_S, lambda: admin.status(database.app_url))


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_every_model_is_rebuilt_during_a_storm_on_two_apis(
    database: Database, broker: Broker, topic_prefix: str, rounds: int
) -> None:
    """No request fails, no read is stale, and the read models verify."""
    with running_fleet(database, broker.settings(topic_prefix)) as fleet:
        hosts = [fleet.api(), fleet.api()]
        fleet.relay("relay")
        fleet.projector("projector0", "--only", "tags,catalog,links")
        fleet.projector("projector1", "--only", "manifests,referrers,blob_references,audit")
        assert_started(database)
        swaps = []
        with Storm(hosts, 2) as storm:
            storm.wait_for(10)
            for _ in range(rounds):
                for model in MODELS:
                    found = rebuild.rebuild(database.app_url, model, keep_s=2.0)
                    assert found.mended.equal, found.mended
                    swaps.append(found.swap_s)
        assert (storm.failed, storm.stale) == ([], [])
        assert storm.pushes > 0
        assert_settled(database, broker, topic_prefix)
        swaps.sort()
        print(
            f"{storm.pushes} pushes, {len(swaps)} rebuilds; swap stall median {swaps[len(swaps) // 2] * 1000:.1f} ms, "
            f"longest {swaps[-1] * 1000:.1f} ms"
        )
