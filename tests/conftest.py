"""Fixtures that several rooms' tests share: Postgres, and running servers in their three modes."""

import gc
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import Registry, registry_over
from tests.kafka import broker, kafka, kafka_server, topic_prefix
from tests.postgres import Database, database, postgres_server
from tests.servers import RunningServer, jittering, serving, warm_up

__all__ = ["broker", "database", "kafka", "kafka_server", "postgres_server", "topic_prefix"]

JITTER_SEED = 20261124


def pytest_configure() -> None:
    """Let Ctrl-C end the run and the programs under test: a shell makes programs in the background ignore it.

    SIGTERM ends a run as Ctrl-C does, with all programs that its tests have started. A process that a test forks ends
    at once by SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Collect garbage after each test file, so that a warning about a file that it left open fails no later test."""
    yield
    gc.collect()


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Iterator[Registry]:
    """The registry in this process, over a database of its own, without a projector."""
    with registry_over(database, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A running `tagtrail serve` with its defaults, shared by all tests that only use repositories of their own."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def server_with_kafka(kafka_server: str) -> Iterator[RunningServer]:
    """A server whose read models Kafka feeds; for tests that do nothing to Kafka."""
    prefix = f"served-{secrets.token_hex(6)}"
    with serving(None, "--kafka", kafka_server, "--kafka-topic-prefix", prefix) as running:
        warm_up(running.host)
        yield running


@pytest.fixture(scope="session")
def server_without_projector() -> Iterator[RunningServer]:
    """A server whose read models stay empty, so that every answer comes from the tail of the log."""
    with serving({"TAGTRAIL_PROJECTOR": "false"}) as running:
        yield running


@pytest.fixture(scope="session")
def server_with_jittery_projector() -> Iterator[RunningServer]:
    """A server whose projector is stopped and continued at random."""
    print(f"projector jitter seed: {JITTER_SEED}")
    with serving() as running, jittering(running, JITTER_SEED):
        yield running
