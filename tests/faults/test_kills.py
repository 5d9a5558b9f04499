"""kill -9 of every process of `tagtrail serve`, at random moments, under the pushes of 16 clients: nothing is lost (I1).

The long forms: make test-long PART=kills.
"""

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.faults.aftermath import assert_consistent, assert_kept, assert_nothing_left
from tests.faults.ledger import Ledger
from tests.faults.pushers import Pusher
from tests.faults.site import SUPERVISOR, VICTIMS, Recovery, Site, site_of
from tests.kafka import Broker

SEED = 20261130
CLIENTS = 16
READY_MAX_S = 5.0
TWO_AT_ONCE = 0.2


@contextmanager
def pushing(site: Site, ledger: Ledger, pause_s: float) -> Iterator[None]:
    """All clients push meanwhile; whoever was told to stop finishes first."""
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


def each_once(victims: Sequence[str], chance: random.Random) -> Iterator[tuple[str, ...]]:
    """Every kind of victim, in random order."""
    yield from ((each,) for each in chance.sample(victims, len(victims)))


def again_and_again(victims: Sequence[str], chance: random.Random) -> Iterator[tuple[str, ...]]:
    """Rounds of them; now and then a second one is killed while the first is being replaced."""
    while True:
        for (each,) in each_once(victims, chance):
            yield (each, chance.choice(victims)) if chance.random() < TWO_AT_ONCE else (each,)


def kill(
    site: Site, plan: Iterator[tuple[str, ...]], kills: int, chance: random.Random, pause_s: float
) -> list[Recovery]:
    """Carry out the plan until there were so many kills."""
    found: list[Recovery] = []
    while sum(len(each.victims) for each in found) < kills:
        time.sleep(chance.uniform(0, pause_s))
        for number, victim in enumerate(next(plan)):
            if number:
                time.sleep(chance.uniform(0, 1))
            site.kill(victim, chance)
        found.append(site.recover())
    return found


def report(ledger: Ledger, found: list[Recovery]) -> None:
    """The figures."""
    by_name: dict[str, list[Recovery]] = defaultdict(list)
    for each in found:
        by_name[each.name].append(each)
    for name, those in sorted(by_name.items()):
        ready, whole = (sorted(getattr(each, what) for each in those) for what in ("ready_s", "whole_s"))
        print(
            f"{name:12} {sum(len(each.victims) for each in those):4} kills, ready again after {ready[len(ready) // 2]:.2f} s "
            f"(longest {ready[-1]:.2f}), all replaced after {whole[len(whole) // 2]:.2f} s (longest {whole[-1]:.2f})"
        )
    counts = ", ".join(f"{number} {what}" for what, number in sorted(ledger.counts.items()))
    print(
        f"{counts}; acknowledged: {len(ledger.manifests)} manifests, {len(ledger.blobs)} blobs, {len(ledger.tags)} tags"
    )
    print(f"longest request {ledger.longest[0]:.2f} s ({ledger.longest[1]})")


def assert_survives(site: Site, ledger: Ledger, plan, kills: int, pause_s: float, push_pause_s: float, chance) -> None:
    with pushing(site, ledger, push_pause_s):
        found = kill(site, plan, kills, chance, pause_s)
    report(ledger, found)
    assert_kept(site, ledger)
    assert_consistent(site)
    assert_nothing_left(site, ledger)
    assert [each for each in found if each.ready_s > READY_MAX_S] == []
    assert [each for each in found if len(each.victims) == 1 and each.restarts > (each.victims == (SUPERVISOR,))] == []


def test_short():
    chance = random.Random(SEED)
    ledger = Ledger()
    t = time.monotonic()
    with site_of(ledger) as site:
        print("started", time.monotonic() - t)
        assert_survives(site, ledger, each_once(VICTIMS, chance), len(VICTIMS), 0.5, 0.3, chance)
        print("all", time.monotonic() - t)
