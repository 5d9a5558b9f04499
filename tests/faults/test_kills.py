"""kill -9 of every process of `tagtrail serve` under pushes of 16 clients (rule: acknowledged is kept).

The long forms: make test-long PART=kills.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from tests.faults.aftermath import assert_consistent, assert_kept, assert_nothing_left
from tests.faults.ledger import Ledger
from tests.faults.pushers import Pusher
from tests.faults.site import SUPERVISOR, VICTIMS, Recovery, Site, site_of
from tests.kafka import Broker
from tests.waiting import eventually

SEED = 20261130
CLIENTS = 16
READY_MAX_S = 5.0
TWO_AT_ONCE = 0.5
KILLING_MAX_S = 17 * 60.0
PUSH_PAUSE_S = 0.5
KILLS_WITH_KAFKA = 48
Plan = Iterator[tuple[str, ...]]


@contextmanager
def pushing(site: Site, ledger: Ledger, pause_s: float) -> Iterator[None]:
    """Let all clients push during the block; at its end each finishes its push."""
    stop = threading.Event()
    pushers = [Pusher(f"c{number}", SEED, site.host, ledger, stop, pause_s) for number in range(CLIENTS)]
    threads = [threading.Thread(target=each.run) for each in pushers]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()


def each_once(victims: Sequence[str], chance: random.Random) -> Plan:
    """The victims of one round: every kind of process once, in random order."""
    yield from ((each,) for each in chance.sample(victims, len(victims)))


def again_and_again(victims: Sequence[str], chance: random.Random) -> Plan:
    """The victims of round after round; now and then a second one is killed while the first is being replaced."""
    while True:
        for (each,) in each_once(victims, chance):
            yield (each, chance.choice(victims)) if chance.random() < TWO_AT_ONCE else (each,)


def kill(site: Site, plan: Plan, kills: int, chance: random.Random, pause_s: float) -> list[Recovery]:
    """Carry out the plan until there were so many kills, or the time is over."""
    found: list[Recovery] = []
    deadline = time.monotonic() + KILLING_MAX_S
    while kills_of(found) < kills and time.monotonic() < deadline:
        time.sleep(chance.uniform(0, pause_s))
        first, *second = next(plan)
        eventually(partial(site.kill, first, chance), what=f"kill of {first}")
        for each in second:
            time.sleep(chance.uniform(0, 1))
            site.kill(each, chance)  # does nothing if there is no such process at this moment
        found.append(site.recover())
        print(found[-1], flush=True)
    return found


def kills_of(found: list[Recovery]) -> int:
    """The number of kills."""
    return sum(len(each.victims) for each in found)


def report(ledger: Ledger, found: list[Recovery]) -> None:
    """Print the kills, how long recoveries took, and what clients were acknowledged."""
    by_name: dict[str, list[Recovery]] = defaultdict(list)
    for each in found:
        by_name[each.name].append(each)
    for name, those in sorted(by_name.items()):
        ready, whole, slow = (
            sorted(getattr(each, what) for each in those) for what in ("ready_s", "whole_s", "slowness")
        )
        middle = len(those) // 2
        print(
            f"{name:12} {kills_of(those):4} kills, ready after {ready[middle]:.2f} s "
            f"(longest {ready[-1]:.2f}), all replaced after {whole[middle]:.2f} s (longest {whole[-1]:.2f}), "
            f"slowness of the machine {slow[middle]:.1f} (most {slow[-1]:.1f})"
        )
    print(", ".join(f"{number} {what}" for what, number in sorted(ledger.counts.items())))
    print(f"acknowledged: {len(ledger.manifests)} manifests, {len(ledger.blobs)} blobs, {len(ledger.tags)} tags")
    print(f"{len(ledger.open_sessions())} uploads left open")
    print(f"longest request {ledger.longest[0]:.2f} s: {ledger.longest[1]}")


def assert_survives(site: Site, ledger: Ledger, plan: Plan, kills: int, pause_s: float, chance: random.Random) -> None:
    """Push and kill, then check everything that was acknowledged and all that is left."""
    with pushing(site, ledger, PUSH_PAUSE_S):
        found = kill(site, plan, kills, chance, pause_s)
    report(ledger, found)
    assert_kept(site, ledger)
    assert_consistent(site)
    assert_nothing_left(site, ledger)
    assert [each for each in found if each.ready_s > READY_MAX_S * each.slowness] == []
    assert kills_of(found) >= kills
    alone = [each for each in found if len(each.victims) == 1]
    assert [each for each in alone if each.restarts != each.victims.count(SUPERVISOR)] == []


@pytest.mark.parametrize(
    ("plan", "kills", "pause_s"),
    [(each_once, len(VICTIMS), 0.3), pytest.param(again_and_again, 200, 0.6, marks=pytest.mark.slow)],
)
def test_nothing_acknowledged_is_lost(plan: Callable[..., Plan], kills: int, pause_s: float) -> None:
    """The read models are fed by the store."""
    print(f"seed {SEED}, {kills} kills")
    chance, ledger = random.Random(SEED), Ledger()
    with site_of(ledger) as site:
        assert_survives(site, ledger, plan(VICTIMS, chance), kills, pause_s, chance)


@pytest.mark.slow
@pytest.mark.xdist_group("kafka")
def test_nothing_acknowledged_is_lost_with_kafka(broker: Broker, topic_prefix: str) -> None:
    """The read models are fed by Kafka, and the relay is killed too."""
    print(f"seed {SEED}, {KILLS_WITH_KAFKA} kills")
    chance, ledger = random.Random(SEED), Ledger()
    with site_of(ledger, "--kafka", broker.bootstrap, "--kafka-topic-prefix", topic_prefix) as site:
        plan = again_and_again((*VICTIMS, "relay"), chance)
        assert_survives(site, ledger, plan, KILLS_WITH_KAFKA, 0.6, chance)
