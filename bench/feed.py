"""Rebuild, projection, relay and overlay: figures of the feed on this machine, against the plain Python fold.

python bench/feed.py [EVENTS]      default 1,000,000; needs Java and Kafka's jars (make tools) for the last part
"""

import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from bench.population import load
from projections import builds, runner, tags
from projections.fill import fill
from projections.model import Model
from projections.models import MODELS
from projections.reader import Reader
from projections.setup import engine_for, ensure_tables
from projections.verify import verify
from tests.postgres import Database, Server, new_database, throwaway

FOUR = ("tags", "manifests", "blob_references", "links")
PYTHON_EVENTS = 20_000
ASKED = 300
RUNS = 3


def rebuild_all(database: Database, events: int) -> None:
    """From nothing to tables with their keys and indexes, by the SQL fold: each model alone, four together, all."""
    print(f"\nrebuild from {events:,} events (SQL fold, keys and indexes included)")
    for model in MODELS:
        filled(database, [model], events, model.name)
    filled(database, [model for model in MODELS if model.name in FOUR], events, "these four together")
    made = filled(database, MODELS, events, "all together", keep=True)
    with engine_for(database.app_url).begin() as connection:
        for each in made:
            builds.mark(connection, builds.live(connection, each.model), builds.RETIRED, 0)
            builds.mark(connection, each, builds.LIVE)
            builds.show(connection, each)


def filled(
    database: Database, models: Sequence[Model], events: int, name: str, *, keep: bool = False
) -> list[builds.Build]:
    """Fill builds of these models and print how long it took; they are dropped again unless they are to be kept."""
    took = []
    for again in reversed(range(RUNS)):
        began = time.perf_counter()
        made = fill(database.app_url, models)
        took.append(time.perf_counter() - began)
        with engine_for(database.app_url).begin() as connection:
            rows = sum(connection.exec_driver_sql(f"SELECT count(*) FROM {each.table}").scalar_one() for each in made)
            if again or not keep:
                for each in made:
                    builds.drop(connection, each.id)
    median = statistics.median(took)
    print(f"  {name:<20} {median:7.2f} s  {events / median:>12,.0f} events/s  {rows:>9,} rows", flush=True)
    return made


def verify_all(database: Database) -> None:
    """The cost of the proof."""
    print("\nverify (SQL fold into a temporary table, checksums of 256 buckets)")
    for model in MODELS:
        began = time.perf_counter()
        (found,) = verify(database.app_url, model.name)
        assert found.equal, found
        print(f"  {model.name:<16} {time.perf_counter() - began:7.2f} s  {found.total:>9,} rows equal")


def python_fold(database: Database) -> None:
    """What the projector's own fold does a second, for comparison: the first events of the log into an empty build."""
    print(f"\nPython fold of {PYTHON_EVENTS:,} events, batches of {runner.BATCH_EVENTS}")
    for model in MODELS:
        with engine_for(database.app_url).connect() as connection:
            with connection.begin():
                made = builds.finish(connection, builds.create(connection, model, builds.FILLING, 0), builds.FOLLOWING)
            began = time.perf_counter()
            while runner.advance(connection, made, PYTHON_EVENTS) < PYTHON_EVENTS:
                pass
            took = time.perf_counter() - began
            with connection.begin():
                builds.drop(connection, made.id)
        print(f"  {model.name:<16} {PYTHON_EVENTS / took:>12,.0f} events/s")


def overlay(database: Database, events: int) -> None:
    """A GET of a tags page at some lags against the same at lag 0 without the tail."""
    print("\ntags page (n=100) of a repository, by lag of the projector")
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT key FROM log.es_event WHERE type = 'TagMoved' GROUP BY key"
            " ORDER BY count(*) DESC OFFSET 100 LIMIT 1"
        ).fetchone()
        assert row is not None
        positions = connection.execute("SELECT build, partition, position FROM readmodel.checkpoint").fetchall()
    median_ms(Reader(database.app_url), row[0])
    base = median_ms(Reader(database.app_url, tail=False), row[0])
    print(f"  without the tail: {base:.3f} ms")
    for lag in (0, 10, 1_000, 100_000):
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            connection.execute("UPDATE readmodel.checkpoint SET position = %s", (max(0, events - lag),))
        found = median_ms(Reader(database.app_url), row[0])
        print(f"  lag {lag:>7,}: {found:.3f} ms, {found / base:.2f} x")
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        for build, partition, position in positions:
            connection.execute(
                "UPDATE readmodel.checkpoint SET position = %s WHERE build = %s AND partition = %s",
                (position, build, partition),
            )


def median_ms(reader: Reader, repository: str) -> float:
    """The median of many questions."""
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        tags.page(reader, repository, None, 100)
        took.append(1000 * (time.perf_counter() - began))
    reader.close()
    return statistics.median(took)


def through_kafka(server: Server) -> None:
    """Relay and projector over a real Kafka: a backlog, then 200 pushes a second."""
    from eventstore.feed import relay
    from eventstore.store import Store
    from projections import admin
    from tests.kafka import Broker

    print("\nthrough Kafka")
    database = new_database(server)
    ensure_tables(database.app_url)
    broker = Broker()
    try:
        broker.start()
        settings = broker.settings("bench")
        backlog = load(database, 50_000, seed=5)
        stop = threading.Event()
        relaying = threading.Thread(target=relay.run, args=(database.app_url, settings, stop))
        began = time.perf_counter()
        relaying.start()
        while admin.status(database.app_url).relay.position < backlog:
            time.sleep(0.05)
        print(f"  relay: {backlog / (time.perf_counter() - began):,.0f} events/s ({backlog:,} of them, start included)")
        began = time.perf_counter()
        projecting = threading.Thread(target=runner.run, args=(database.app_url, stop), kwargs={"kafka": settings})
        projecting.start()
        assert admin.wait_until(database.app_url, backlog, 600)
        print(f"  one projector, all models: {backlog / (time.perf_counter() - began):,.0f} events/s")
        store = Store(database.app_url)
        lags = lag_under_pushes(store, database)
        print(
            f"  lag from append to row under {RATE} pushes/s: p50 {1000 * statistics.median(lags):.0f} ms, "
            f"p99 {1000 * sorted(lags)[int(len(lags) * 0.99)]:.0f} ms ({len(lags)} pushes)"
        )
        store.close()
        stop.set()
        relaying.join()
        projecting.join()
    finally:
        broker.close()


RATE = 200
SECONDS = 10


def lag_under_pushes(store: Any, database: Database) -> list[float]:
    """Append a push RATE times a second; for each, when the row of its tag was there."""
    import secrets
    from concurrent.futures import ThreadPoolExecutor
    from datetime import UTC, datetime

    from eventstore.types import Appended, Cause, Command, NewEvent

    appended: dict[int, float] = {}
    seen: dict[int, float] = {}
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(database.app_url, autocommit=True) as connection:
            while not done.is_set() or len(seen) < len(appended):
                rows = connection.execute("SELECT position FROM readmodel.tags_s1 WHERE repository LIKE 'lag/%'")
                now = time.perf_counter()
                for (position,) in rows:
                    seen.setdefault(position, now)
                time.sleep(0.002)

    def push(number: int) -> None:
        key = f"lag/app{number % 50}"
        digest = f"sha256:{number:064x}"
        tag = f"t{number}"
        data = f'{{"digest":"{digest}","repository":"{key}","tag":"{tag}"}}'
        event = NewEvent(f"tag-{key}:{tag}", key, "TagMoved", 1, data, ref="x")
        created = NewEvent(
            f"link-{key}@{digest}", key, "BlobUnlinked", 1, f'{{"digest":"{digest}","repository":"{key}"}}'
        )
        command = Command(secrets.token_hex(16), Cause("bench", "r"), datetime.now(UTC), (created, event))
        outcome = store.append(command)
        assert isinstance(outcome, Appended)
        appended[outcome.last_position] = time.perf_counter()

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        for number in range(RATE * SECONDS):
            pool.submit(push, number)
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
    done.set()
    watcher.join(60)
    return [seen[position] - moment for position, moment in appended.items()]


def main() -> None:
    """All parts, over one population."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with throwaway() as server:
        database = new_database(server)
        began = time.perf_counter()
        last = load(database, events)
        print(f"population: {last:,} events in {time.perf_counter() - began:.0f} s")
        ensure_tables(database.app_url)
        rebuild_all(database, last)
        verify_all(database)
        python_fold(database)
        overlay(database, last)
        if events <= 1_000_000:
            through_kafka(server)


if __name__ == "__main__":
    main()
