"""Clients of a Kafka that does not answer leave nothing behind, however often they try."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.errors import KafkaError

from eventstore.feed import settings
from eventstore.feed.kafka import make_admin, make_consumer, make_producer
from eventstore.feed.settings import KafkaSettings

TRIES = 3


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaSettings]:
    """An address that takes connections and never says a word, and not much patience with it."""
    monkeypatch.setitem(settings._COMMON, "bootstrap_timeout_ms", 200)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield KafkaSettings(f"127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("make", [make_admin, make_consumer, make_producer])
def test_who_is_not_answered_leaves_no_thread_and_no_file_open(
    silent: KafkaSettings, make: Callable[[KafkaSettings], Any]
) -> None:
    """A relay tries again and again for as long as Kafka is away, which may be days."""
    threads, files = threading.enumerate(), len(os.listdir("/proc/self/fd"))
    for _ in range(TRIES):
        with pytest.raises(KafkaError):
            make(silent)
    assert set(threading.enumerate()) <= set(threads)
    assert len(os.listdir("/proc/self/fd")) <= files
