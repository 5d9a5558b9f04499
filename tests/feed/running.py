"""Relay and projectors inside the test's process, over a registry that is there too."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from eventstore.feed import relay
from eventstore.feed.settings import KafkaSettings
from projections import runner
from projections.model import Model
from projections.models import MODELS
from projections.verify import verify

STOP_TIMEOUT_S = 30.0


@contextmanager
def thread(target: Any, *arguments: Any, **options: Any) -> Iterator[threading.Event]:
    """Run `target(*arguments, stop)` beside the test; what it raises ends the test."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def run() -> None:
        try:
            target(*arguments, stop, **options)
        except BaseException as problem:
            problems.append(problem)
            raise

    made = threading.Thread(target=run)
    made.start()
    try:
        yield stop
    finally:
        stop.set()
        made.join(STOP_TIMEOUT_S)
        assert not made.is_alive()
        assert problems == []


def relaying(database_url: str, settings: KafkaSettings) -> Any:
    """A relay."""

    def run(stop: threading.Event) -> None:
        relay.run(database_url, settings, stop)

    return thread(run)


def projecting(database_url: str, settings: KafkaSettings, models: Sequence[Model] = MODELS) -> Any:
    """A projector that Kafka feeds."""

    def run(stop: threading.Event) -> None:
        runner.run(database_url, stop, models=models, kafka=settings)

    return thread(run)


@contextmanager
def fed(database_url: str, settings: KafkaSettings, *, relays: int = 1, projectors: int = 1) -> Iterator[None]:
    """Relays and projectors, all of them at once."""
    with ExitStack() as stack:
        for _ in range(relays):
            stack.enter_context(relaying(database_url, settings))
        for _ in range(projectors):
            stack.enter_context(projecting(database_url, settings))
        yield


def assert_right(database_url: str) -> None:
    """Every read model equals a fold from nothing."""
    differing = [(each.name, each.samples) for each in verify(database_url) if not each.equal]
    assert differing == []
