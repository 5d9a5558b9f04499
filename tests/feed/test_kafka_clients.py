"""Clients of a Kafka that does not answer leave nothing behind, however often they try."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

TIMEOUT_S = 60.0
# It runs in a process of its own: in that of the tests, threads and open files of other tests come and go.
LEFT_BEHIND = """
import os, sys, threading
from kafka.errors import KafkaError
from eventstore.feed import kafka, settings

def counted():
    return threading.active_count(), len(os.listdir("/proc/self/fd"))

settings._COMMON["bootstrap_timeout_ms"] = 200
before = counted()
for _ in range(3):
    try:
        getattr(kafka, sys.argv[1])(settings.KafkaSettings(sys.argv[2]))
    except KafkaError:
        continue
    sys.exit("it was answered")
if counted() != before:
    sys.exit(f"threads and files: {before} before, {counted()} afterwards")
"""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("make", ["make_admin", "make_consumer", "make_producer"])
def test_a_client_that_is_not_answered_leaves_no_thread_and_no_file_open(silent: str, make: str) -> None:
    """A relay tries again and again for as long as Kafka is away, which may be days."""
    command = [sys.executable, "-c", LEFT_BEHIND, make, silent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, [])
