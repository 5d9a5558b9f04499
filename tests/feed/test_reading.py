"""The thread that reads Kafka sleeps while there is nothing to read, and checks its topic however often it is woken."""

import threading
from collections.abc import Iterator

import pytest

from eventstore.feed import consumer
from eventstore.feed.consumer import IDENTITY_S, FeedReader
from eventstore.feed.settings import KafkaSettings
from tests.waiting import eventually

WAKES = 20


@pytest.fixture
def reader() -> Iterator[FeedReader]:
    """A reader of a Kafka that is not there."""
    made = FeedReader(KafkaSettings("127.0.0.1:1"))
    yield made
    if made._thread.is_alive():
        made.close()


class Waits(threading.Event):
    """An event that counts who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Count this wait, then wait as usual."""
        self.count += 1
        return super().wait(timeout)


def test_a_reader_of_nothing_sleeps(reader: FeedReader) -> None:
    """A projector without leases, as at its start or beside many others, takes nothing of the processor."""
    waits = reader._changed = Waits()
    reader.start()
    reader.assign({})
    eventually(lambda: waits.count >= 2)
    # It has taken the change and waits for the next one.
    eventually(lambda: not reader._changed.is_set(), what="it never sleeps")


class Hours:
    """The clock, stop and client of a reader that is woken often: it rests most of `IDENTITY_S` and reads a little."""

    def __init__(self, stop: threading.Event) -> None:
        self.now = 1000.0
        self._stop = stop
        self._wakes = 0

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def is_set(self) -> bool:
        """It rests whenever it can."""
        return False

    def wait(self, timeout_s: float) -> bool:
        """It is woken after a while, the last time to be stopped."""
        self.now += IDENTITY_S - 2
        self._wakes += 1
        if self._wakes == WAKES:
            self._stop.set()
        return True

    def poll(self, timeout_ms: int) -> dict[object, object]:
        """Kafka has nothing, for longer than a reader stays awake at least."""
        self.now += 1.5
        return {}


def test_a_reader_that_is_woken_again_and_again_asks_for_the_identity_of_its_topic(
    reader: FeedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it notices a topic that was made anew, however the events come."""
    hours, asked = Hours(reader._stop), list[float]()

    def identify() -> str:
        asked.append(hours.now)
        return ""

    monkeypatch.setattr(consumer, "time", hours)
    monkeypatch.setattr(reader, "_awake", hours)
    monkeypatch.setattr(reader, "_identify", identify)
    monkeypatch.setattr(reader, "_wanted", {0: consumer.Place()})
    reader._read(hours)
    assert asked
