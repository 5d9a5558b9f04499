"""Measures how fast read models are rebuilt, verified, folded, fed by Kafka and read with a tail.

    python bench/feed.py [EVENTS]      default 1,000,000; the part with Kafka needs Java and its jars (make tools)

The rebuild folds by SQL (set folds); the projector's fold in Python is measured beside it.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg
from werkzeug.test import EnvironBuilder

from bench.feed_kafka import through_kafka
from bench.population import load
from eventstore.store import Store
from projections.all_models import MODELS
from projections.builds.fill import fill
from projections.builds.verify import verify
from projections.engine import build_tables, runner
from projections.engine.setup import engine_for, ensure_tables
from projections.model import Model
from projections.models import tags
from projections.reader import Reader
from tests.api import Registry, registry_over
from tests.postgres import Database, new_database, throwaway

FOUR = ("tags", "manifests", "blob_references", "links")
PYTHON_EVENTS = 20_000
ASKED = 300
RUNS = 3


def rebuild_all(database: Database, events: int) -> None:
    """Print how long builds take to fill by the set fold, keys and indexes included: each model alone, then all."""
    print(f"\nrebuild from {events:,} events (SQL fold, keys and indexes included)")
    for model in MODELS:
        filled(database, [model], events, model.name)
    filled(database, [model for model in MODELS if model.name in FOUR], events, "these four together")
    made = filled(database, MODELS, events, "all together", keep=True)
    with engine_for(database.app_url).begin() as connection:
        for each in made:
            build_tables.mark(connection, build_tables.live(connection, each.model), build_tables.RETIRED, 0)
            build_tables.mark(connection, each, build_tables.LIVE)
            build_tables.show(connection, each)


def filled(
    database: Database, models: Sequence[Model], events: int, name: str, *, keep: bool = False
) -> list[build_tables.Build]:
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
                    build_tables.drop(connection, each.id)
    median = statistics.median(took)
    print(f"  {name:<20} {median:7.2f} s  {events / median:>12,.0f} events/s  {rows:>9,} rows", flush=True)
    return made


def verify_all(database: Database) -> None:
    """Print how long `verify` takes for each model, and for all together."""
    print("\nverify (SQL fold into a temporary table, checksums of 256 buckets)")
    for model in MODELS:
        began = time.perf_counter()
        (found,) = verify(database.app_url, model.name)
        assert found.equal, found
        print(f"  {model.name:<16} {time.perf_counter() - began:7.2f} s  {found.total:>9,} rows equal")
    began = time.perf_counter()
    assert all(each.equal for each in verify(database.app_url))
    print(f"  {'all together':<16} {time.perf_counter() - began:7.2f} s", flush=True)


def python_fold(database: Database) -> None:
    """Print how fast the projector folds in Python: the first events of the log into an empty build of each model."""
    print(f"\nPython fold of {PYTHON_EVENTS:,} events, batches of {runner.BATCH_EVENTS}")
    for model in MODELS:
        with engine_for(database.app_url).connect() as connection:
            with connection.begin():
                made = build_tables.finish(
                    connection, build_tables.create(connection, model, build_tables.FILLING, 0), build_tables.FOLLOWING
                )
            began = time.perf_counter()
            while runner.advance(connection, made, PYTHON_EVENTS) < PYTHON_EVENTS:
                pass
            took = time.perf_counter() - began
            with connection.begin():
                build_tables.drop(connection, made.id)
        print(f"  {model.name:<16} {PYTHON_EVENTS / took:>12,.0f} events/s")


# The question of `tags.page`, without the tail.
PAGE = """
SELECT (SELECT array_agg(p.tag) FROM (
            SELECT t.tag FROM readmodel.tags_s1 AS t
             WHERE t.repository = %(key)s AND t.tag > %(after)s ORDER BY t.tag LIMIT %(limit)s + 1) AS p),
       EXISTS (SELECT FROM readmodel.catalog_s1 AS c WHERE c.repository = %(key)s)
"""


def overlay(database: Database, events: int) -> None:
    """Print what the tail costs a page of tags while the projector is some events behind.

    Each page is compared with the same one read without the tail: the whole GET, and its SQL and fold alone.
    """
    print("\ntags page (n=100) of a repository, by lag of the projector, nothing kept in memory")
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT key FROM log.es_event WHERE type = 'TagMoved' GROUP BY key"
            " ORDER BY count(*) DESC OFFSET 100 LIMIT 1"
        ).fetchone()
        assert row is not None
        positions = connection.execute("SELECT build, partition, position FROM readmodel.checkpoint").fetchall()
    store, key = Store(database.app_url), row[0]
    reader = Reader(store.reader)

    def plain() -> None:
        reader.one(PAGE, {"key": key, "after": "", "limit": 100})

    def page() -> None:
        tags.page(reader, key, None, 100)

    with ExitStack() as stack:
        whole, without = (
            stack.enter_context(registry_over(database, Path(stack.enter_context(TemporaryDirectory())), cache_bytes=0))
            for _ in range(2)
        )

        def plain_one(_: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
            return (*reader.one(PAGE, parameters), None)

        stack.enter_context(patch.object(without.rooms.reader, "one", plain_one))

        def get(registry: Registry) -> Callable[[], None]:
            environ = EnvironBuilder(f"/v2/{key}/tags/list?n=100").get_environ()
            return lambda: answered(registry, environ)

        for lag in (0, 10, 1_000, 100_000):
            with psycopg.connect(database.admin_url, autocommit=True) as connection:
                connection.execute("UPDATE readmodel.checkpoint SET position = %s", (max(0, events - lag),))
            base, found, base_sql, found_sql = interleaved_ms(get(without), get(whole), plain, page)
            print(
                f"  lag {lag:>7,}: GET {found:.3f} ms, without the tail {base:.3f} ms, {found / base:.2f} x;"
                f" SQL and fold {found_sql:.3f} ms, {base_sql:.3f} ms, {found_sql / base_sql:.2f} x",
                flush=True,
            )
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        for build, partition, position in positions:
            connection.execute(
                "UPDATE readmodel.checkpoint SET position = %s WHERE build = %s AND partition = %s",
                (position, build, partition),
            )
    store.close()


def answered(registry: Registry, environ: dict[str, Any]) -> None:
    """Give one request to the application and take its whole answer."""
    status: list[str] = []
    for _ in registry.application(dict(environ), lambda line, headers: status.append(line)):
        pass
    assert status == ["200 OK"]


def interleaved_ms(*asked: Callable[[], None]) -> list[float]:
    """The median time in milliseconds of each of these calls, which are made in turn, ASKED times each."""
    took: list[list[float]] = [[] for _ in asked]
    for _ in range(ASKED):
        for one, ask in zip(took, asked, strict=True):
            began = time.perf_counter()
            ask()
            one.append(1000 * (time.perf_counter() - began))
    return [statistics.median(one) for one in took]


def main() -> None:
    """Load one history and measure all parts over it."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    # The same settings as those of the embedded Postgres.
    with throwaway(shared_buffers="96MB", max_wal_size="1GB") as server:
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
