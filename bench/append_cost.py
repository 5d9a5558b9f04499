"""What one append costs in a short and in a long log: `python bench/append_cost.py [EVENTS]` (S8).

Fills a log with EVENTS events (default 100,000; batches of 64 commands), and times single appends of a tag move before
and after, on a Postgres of its own. Prints medians and the ratio, which should stay near 1.
"""

import secrets
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from eventstore.store import Store
from eventstore.types import Cause, Command, Exact, NewEvent, RefIs
from tests.postgres import new_database, throwaway

WRITERS = 64
SAMPLES = 300


def append(store: Store, number: int) -> float:
    """Move a tag, push a manifest, end an upload, if another stream is dead; answers the seconds it took."""
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


def median_ms(store: Store, first: int) -> float:
    """The median of single appends, one after another, in milliseconds."""
    return 1000 * statistics.median(append(store, first + number) for number in range(SAMPLES))


def main() -> None:
    """Measure, fill, measure again."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with throwaway() as server:
        store = Store(new_database(server).app_url)
        median_ms(store, 0)
        short = median_ms(store, 1_000)
        at_short = store.head()
        started = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda number: append(store, number), range(10_000, 10_000 + events // 3)))
        filled = time.perf_counter() - started
        long = median_ms(store, 10_000 + events)
        print(f"{SAMPLES} single appends of 3 events at {at_short} events: median {short:.2f} ms")
        print(f"{SAMPLES} single appends of 3 events at {store.head()} events: median {long:.2f} ms")
        print(f"ratio {long / short:.2f}")
        print(f"combined, {WRITERS} writers: {events / filled:.0f} events/s")
        store.close()


if __name__ == "__main__":
    main()
