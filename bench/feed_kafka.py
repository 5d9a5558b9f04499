"""Measures relay and projector over a real Kafka, each in a process of its own: a backlog, then a steady load."""

import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg

from bench.population import load
from eventstore.partition import DEFAULT_PARTITIONS, partition_of
from eventstore.store import Store
from eventstore.types import Appended, Cause, Command, NewEvent
from projections.builds import admin
from projections.engine.setup import ensure_tables
from tests.feed.fleet import Fleet
from tests.folded import wait_folded
from tests.kafka import Broker
from tests.postgres import Database, Server, new_database

BACKLOG = 50_000
RATE = 200
SECONDS = 20
WATCH_S = 0.005


def through_kafka(server: Server) -> None:
    """Print the events a second of the relay and of one projector, and the lag from append to row under pushes."""
    print("\nthrough Kafka; relay, projector, broker, database and load on one machine")
    database = new_database(server)
    ensure_tables(database.app_url)
    broker = Broker()
    fleet: Fleet | None = None
    try:
        broker.start()
        fleet = Fleet(database, broker.settings("bench"))
        backlog = load(database, BACKLOG, seed=5)
        began = time.perf_counter()
        fleet.relay("relay")
        while admin.status(database.app_url).relay.position < backlog:
            time.sleep(0.05)
        print(f"  relay: {backlog / (time.perf_counter() - began):,.0f} events/s ({backlog:,}, start included)")
        began = time.perf_counter()
        fleet.projector("projector")
        wait_folded(database.app_url, backlog, 600)
        print(f"  one projector, all models: {backlog / (time.perf_counter() - began):,.0f} events/s (start included)")
        lags = lag_under_pushes(database)
        print(
            f"  lag from append to row under {RATE} pushes/s: p50 {1000 * statistics.median(lags):.0f} ms, "
            f"p99 {1000 * sorted(lags)[int(len(lags) * 0.99)]:.0f} ms ({len(lags):,} pushes)"
        )
    finally:
        if fleet is not None:
            fleet.close()
        broker.close()


def lag_under_pushes(database: Database) -> list[float]:
    """Append a push RATE times a second; answers for each how many seconds later its rows were there."""
    store = Store(database.app_url)
    appended: dict[tuple[int, int], float] = {}

    def push(number: int) -> None:
        key = f"lag/app{number % 50}"
        outcome = store.append(
            Command(secrets.token_hex(16), Cause("bench", "r"), datetime.now(UTC), pushed(key, number))
        )
        assert isinstance(outcome, Appended)
        appended[partition_of(key, DEFAULT_PARTITIONS), outcome.last_position] = time.perf_counter()

    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool, psycopg.connect(database.app_url, autocommit=True) as connection:
        lags: list[float] = []
        sent = 0
        while sent < RATE * SECONDS or appended:
            while sent < RATE * SECONDS and time.perf_counter() >= began + sent / RATE:
                pool.submit(push, sent)
                sent += 1
            # Rows and checkpoint are written in one transaction.
            rows = connection.execute("SELECT partition, position FROM readmodel.tags_s1_checkpoint")
            now = time.perf_counter()
            reached: dict[int, int] = dict(rows.fetchall())
            for place in [each for each in list(appended) if reached[each[0]] >= each[1]]:
                lags.append(now - appended.pop(place))
            time.sleep(WATCH_S)
    store.close()
    assert len(lags) == RATE * SECONDS
    return lags


def pushed(key: str, number: int) -> tuple[NewEvent, ...]:
    """Two events that stand for a push: a tag that moves, and a blob that is unlinked."""
    digest = f"sha256:{number:064x}"
    moved = f'{{"digest":"{digest}","repository":"{key}","tag":"t{number}"}}'
    return (
        NewEvent(f"link-{key}@{digest}", key, "BlobUnlinked", 1, f'{{"digest":"{digest}","repository":"{key}"}}'),
        NewEvent(f"tag-{key}:t{number}", key, "TagMoved", 1, moved, ref="x"),
    )
