"""Each feed passes the contract of feeds: the log itself, and Kafka."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from eventstore.feed.settings import KafkaSettings
from tests.feed.contract import FeedContract, Projectors, folded
from tests.feed.running import fed, projecting
from tests.postgres import Database

__all__ = ["folded"]


class TestLog(FeedContract):
    """Projectors read the log, and nothing else is there."""

    @pytest.fixture
    def projectors(self, database: Database) -> Projectors:
        @contextmanager
        def running(number: int) -> Iterator[None]:
            with ExitStack() as stack:
                for _ in range(number):
                    stack.enter_context(projecting(database.app_url))
                yield

        return running


@pytest.mark.xdist_group("kafka")
class TestKafka(FeedContract):
    """A relay publishes the log, and projectors read what Kafka brings."""

    @pytest.fixture
    def projectors(self, database: Database, kafka: KafkaSettings) -> Projectors:
        return lambda number: fed(database.app_url, kafka, projectors=number)
