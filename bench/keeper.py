"""Measures the keeper's rounds with nothing to do on a large log: `python bench/keeper.py [ROWS]`.

SQL makes ROWS (default 1,000,000) contents that events name, and as many sets that are referred to, idempotency keys
and addresses of commands. A round of a task does its work and counts what waits for it. Prints the median and the worst
of RUNS rounds in milliseconds, for each task that asks the log and for all together. The goal is 50 ms for all. Then it
prints how many pages of the database each statement of a round touches, which must not grow with ROWS.
"""

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from eventstore import upkeep
from eventstore.upkeep import Step, Upkeep
from tests.eventstore.costs import pages_again
from tests.eventstore.large import make_large
from tests.postgres import Database, new_database, throwaway

RUNS = 21
GOAL_MS = 50.0
KEPT = timedelta(hours=72)
DAY = timedelta(days=1)
ADDRESSES = timedelta(days=90)


def now() -> datetime:
    """The time of the machine."""
    return datetime.now(UTC)


def main(rows: int) -> None:
    """Make the log, do the backfill that an upgrade leaves to the keeper, then measure rounds that find nothing."""
    with throwaway(shared_buffers="512MB") as server:
        database = new_database(server)
        began = time.perf_counter()
        make_large(database, rows)
        print(f"{rows:,} contents, events, sets, keys and addresses made in {time.perf_counter() - began:.0f} s")
        kept = Upkeep(database.app_url, now)
        began = time.perf_counter()
        while kept.backfill().more:
            pass
        print(f"backfill (once after an upgrade, in slices): {time.perf_counter() - began:.1f} s")
        measure(kept)
        kept.close()
        show_pages(database)


def measure(kept: Upkeep) -> None:
    """Print the median and the worst time of each task's rounds, and judge them together."""
    rounds: dict[str, tuple[Callable[[], Step], Callable[[], int]]] = {
        "sweep-content": (lambda: kept.sweep_content(DAY), lambda: kept.content_to_sweep(DAY)),
        "sweep-sets": (lambda: kept.sweep_sets(DAY), lambda: kept.sets_to_sweep(DAY)),
        "forget-commands": (lambda: kept.forget_commands(KEPT), lambda: kept.commands_to_forget(KEPT)),
        "erase-addresses": (
            lambda: kept.erase_clients(now() - ADDRESSES),
            lambda: kept.clients_to_erase(now() - ADDRESSES),
        ),
        "backfill": (kept.backfill, kept.backfills_left),
    }
    taken: dict[str, list[float]] = {name: [] for name in rounds}
    for _ in range(RUNS):
        for name, (work, count) in rounds.items():
            began = time.perf_counter()
            step, waiting = work(), count()
            taken[name].append(1000 * (time.perf_counter() - began))
            assert (step.removed, step.more, waiting) == (0, False, 0), name
    totals = [sum(each) for each in zip(*taken.values(), strict=True)]
    for name, each in {**taken, "all": totals}.items():
        print(f"{name:16} median {statistics.median(each):7.2f} ms   worst {max(each):7.2f} ms")
    good = statistics.median(totals) < GOAL_MS
    print(f"goal: all below {GOAL_MS:g} ms: {'reached' if good else 'MISSED'}")


def show_pages(database: Database) -> None:
    """Print how many pages the keeper's own statements touch."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        for name, parameters in {
            "SWEEP_CONTENT": (now() - DAY, upkeep.CONTENT_SLICE),
            "NEW_CONTENT": (now() - DAY, upkeep.COUNTED_MAX),
            "SWEEP_SETS": (now() - DAY, upkeep.MEMBERS_SLICE),
            "IDLE_SETS": (now() - DAY, upkeep.COUNTED_MAX),
            "FORGET_COMMANDS": (KEPT, now()),
            "COMMANDS_OVER": (KEPT, now()),
            "ERASE_CLIENTS": (now() - ADDRESSES, upkeep.CLIENTS_SLICE),
            "CLIENTS_OVER": (now() - ADDRESSES, upkeep.COUNTED_MAX),
        }.items():
            print(f"{name:16} {pages_again(connection, getattr(upkeep, name), parameters):5} pages")


if __name__ == "__main__":
    main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000)
