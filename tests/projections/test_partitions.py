"""The number of the log's partitions is what its row says (rule: fixed partitions)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventstore.feed.members import Member, Membership
from eventstore.feed.settings import KafkaSettings
from projections.builds.rebuild import rebuild
from projections.builds.verify import verify
from projections.engine.kafka_feed import KafkaFeed
from projections.engine.setup import engine_for
from projections.models import audit, catalog, links, manifests, tags
from tests.api import Registry, registry_over, sha256
from tests.postgres import Database, set_partitions

MODELS = (audit.model, catalog.model, links.model, manifests.model, tags.model)
REPOSITORIES = [f"u/app{number}" for number in range(12)]
LAYER = b"layer"


@pytest.fixture(params=[4, 64])
def partitions(request: pytest.FixtureRequest, database: Database) -> int:
    """A log of so many partitions, in which nothing stands yet."""
    set_partitions(database, request.param)
    return int(request.param)


@pytest.fixture
def registry(database: Database, partitions: int, tmp_path: Path) -> Iterator[Registry]:
    """A registry over that log, without a projector."""
    with registry_over(database, tmp_path, cache_bytes=0) as made:
        yield made


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    """A projector's connection."""
    with engine_for(database.app_url).connect() as made:
        yield made


def answers(registry: Registry) -> dict[str, Any]:
    """The answers to each kind of GET that asks for one repository."""
    paths = [f"/v2/{name}/{what}" for name in REPOSITORIES for what in ("tags/list", "manifests/v2")]
    paths += [f"/v2/{name}/blobs/{sha256(LAYER)}" for name in REPOSITORIES]
    paths += [f"/api/v1/repositories/{name}/history" for name in REPOSITORIES]
    found = {path: registry.get(path) for path in paths}
    assert {answer.status_code for answer in found.values()} == {200}
    return {path: answer.data for path, answer in found.items()}


def test_an_answer_is_right_however_far_each_partition_is(
    registry: Registry, database: Database, connection: sa.Connection, partitions: int
) -> None:
    """Partitions are folded one after another, as Kafka feeds them: the tail begins where that of the key stands."""
    for name in REPOSITORIES:
        registry.push(name, "v1", LAYER)
        registry.push(name, "v2", LAYER)
    expected = answers(registry)
    taken = {each.partition for each in registry.rooms.store.read_log(0, 1000) if each.key in REPOSITORIES}
    assert len(taken) > 2
    assert taken <= set(range(partitions))
    nobody = Membership(database.app_url, Member("projector"))
    feed = KafkaFeed(connection, MODELS, KafkaSettings("127.0.0.1:1"), nobody, 2000)
    feed._share()
    # Partitions without the key come first: a read that took one of their checkpoints would see no tail of the key.
    for partitions_fed in (sorted(set(range(partitions)) - taken), *([each] for each in sorted(taken))):
        for build in feed._builds:
            while feed._catch_up(build, partitions_fed, isolate=False)[1]:
                pass
        assert answers(registry) == expected
    registry.rooms.reader._tail = False
    assert answers(registry) == expected


def test_a_rebuild_and_its_verification_take_every_partition(
    registry: Registry, database: Database, partitions: int
) -> None:
    """The new build has a checkpoint for each of them, and goes on being fed in each."""
    for name in REPOSITORIES:
        registry.push(name, "v1", LAYER)
    registry.project()
    assert rebuild(database.app_url, tags.model).rows == len(REPOSITORIES)
    for name in REPOSITORIES:
        registry.push(name, "v2", LAYER)
    registry.project()
    assert [each.name for each in verify(database.app_url) if not each.equal] == []
    with engine_for(database.app_url).connect() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM readmodel.tags_s1_checkpoint")
        assert rows.scalar_one() == partitions
