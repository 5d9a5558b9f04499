"""Measures appends: in batches against one at a time, and to a short log against a long one.

    python bench/appends.py [EVENTS]      EVENTS of the long log, default 1,000,000

Prints how many commands a second 16 writers append, with and without the combiner's batches, in turn on the same log;
then the median time of a single append to a log of 1,000 events and to one of EVENTS. Each command pushes a manifest,
moves a tag and ends an upload.
"""

import secrets
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.population import load_all
from eventstore import calls
from eventstore.store import Store
from eventstore.types import Cause, Command, Exact, NewEvent, RefIs
from tests.postgres import Server, new_database, throwaway

WRITERS = 16
SAMPLES = 300
COMMANDS = 1_600
RUNS = 5
SHORT_EVENTS = 1_000


def append(store: Store) -> float:
    """Append one command of three events and a condition that holds; answers the seconds it took."""
    number = secrets.randbits(60)
    events = (
        NewEvent(f"tag-r{number % 997}:t{number % 31}", f"r{number % 997}", "TagMoved", 1, "{}", ref=f"m{number}"),
        NewEvent(f"manifest-r{number % 997}@{number}", f"r{number % 997}", "ManifestPushed", 1, "{}", ref="present"),
        NewEvent(f"upload-{number}", f"r{number % 997}", "UploadCommitted", 1, "{}", Exact(0), ref=None),
    )
    command = Command(
        secrets.token_hex(16), Cause("bench", "r"), datetime.now(UTC), events, (RefIs(((f"none-{number}", None),)),)
    )
    started = time.perf_counter()
    store.append(command)
    return time.perf_counter() - started


def median_ms(store: Store) -> float:
    """The median time in milliseconds of SAMPLES appends, one after another."""
    return 1000 * statistics.median(append(store) for _ in range(SAMPLES))


def rate(store: Store, commands_max: int) -> float:
    """Commands a second of all writers together, with at most `commands_max` commands in one call of the database."""
    allowed, calls.BATCH_COMMANDS_MAX = calls.BATCH_COMMANDS_MAX, commands_max
    try:
        started = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda _: append(store), range(COMMANDS)))
        return COMMANDS / (time.perf_counter() - started)
    finally:
        calls.BATCH_COMMANDS_MAX = allowed


def filled(server: Server, events: int) -> Store:
    """A log with so many events, and some appends already made, so that caches are warm."""
    database = new_database(server)
    load_all(database, events)
    store = Store(database.app_url)
    median_ms(store)
    return store


def main() -> None:
    """Fill a short and a long log, measure them in turn, print medians and ratios."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with throwaway(shared_buffers="96MB", max_wal_size="1GB") as server:
        short, long = filled(server, SHORT_EVENTS), filled(server, events)
        runs = [(median_ms(short), median_ms(long)) for _ in range(RUNS)]
        for store, took in zip((short, long), zip(*runs, strict=True), strict=True):
            print(f"one append of 3 events at {store.head():>9,} events: {statistics.median(took):.2f} ms")
        print(f"ratio {statistics.median(late / early for early, late in runs):.2f}", flush=True)
        pairs = [(rate(short, calls.BATCH_COMMANDS_MAX), rate(short, 1)) for _ in range(RUNS)]
        together, alone = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"{WRITERS} writers: {together:,.0f} commands/s combined, {alone:,.0f} one at a time")
        print(f"ratio {statistics.median(one / other for one, other in pairs):.2f}")
        short.close()
        long.close()


if __name__ == "__main__":
    main()
