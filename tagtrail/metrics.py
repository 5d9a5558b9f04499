"""GET /metrics: the counters of this machine's processes, and the state of log, feed and read models.

Counters live in files that all processes of one server share (prometheus-client's multiprocess mode). The state is
read from the database, so every process gives the same.
"""

import logging
import os
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError

from projections.builds import admin
from projections.builds.admin import RelayStatus, Status
from projections.engine.build_tables import FILLING
from projections.engine.setup import engine_for
from protocol.messages import Answer
from tagtrail.config import Settings
from tagtrail.keeper_metrics import Keeping
from tagtrail.server.counting import FOLDER_VARIABLE

STATEMENT_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


def registry_of(settings: Settings) -> CollectorRegistry:
    """All metrics of this machine."""
    if os.environ.get(FOLDER_VARIABLE):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry = REGISTRY
    registry.register(Standings(settings.database_url, with_kafka=settings.kafka is not None))
    registry.register(Keeping(engine_for(settings.database_url, statement_timeout_s=STATEMENT_TIMEOUT_S)))
    return registry


class Metrics:
    """The endpoint of one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry: CollectorRegistry | None = None

    def answer(self) -> Answer:
        """The text format of Prometheus."""
        if self._registry is None:
            self._registry = registry_of(self._settings)
        body = generate_latest(self._registry)
        return Answer(200, [("Content-Type", CONTENT_TYPE_LATEST), ("Content-Length", str(len(body)))], body)


class Standings(Collector):
    """The state of log, relay and read models, read from the database at each scrape."""

    def __init__(self, database_url: str, *, with_kafka: bool) -> None:
        self._engine = engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S)
        self._with_kafka = with_kafka

    def describe(self) -> Iterator[Metric]:
        """Nothing, because the samples are known only when the database is asked."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All gauges. If the database is away or too slow, there is only the gauge that says so."""
        up, found = self._ask()
        yield _gauge("tagtrail_database_up", "1 if the database answers", int(up))
        if found is None:
            return
        yield _gauge("tagtrail_log_position", "Position of the last event", found.head)
        yield _gauge("tagtrail_log_epoch", "Epoch of the log, raised by a restore", found.epoch)
        # Without Kafka nothing is published, so the lag would grow for ever.
        if self._with_kafka or found.relay.known:
            yield from _of_relay(found.relay)
        yield from _of_models(found)

    def _ask(self) -> tuple[bool, Status | None]:
        """True if the database answers, and the state if it was read in time."""
        up = False
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("SELECT")
                up = True
                return up, admin.read_status(connection)
        except DBAPIError as problem:
            if up and isinstance(problem.orig, QueryCanceled):
                _log.warning("the database did not give the state of log and read models in time: %s", problem.orig)
                return up, None
            return False, None


def _of_relay(relay: RelayStatus) -> Iterator[Metric]:
    position = GaugeMetricFamily("tagtrail_relay_position", "Position up to which a log was published", labels=["log"])
    lag = GaugeMetricFamily("tagtrail_relay_lag_events", "Events that were not published yet", labels=["log"])
    position.add_metric(["history"], relay.position)
    position.add_metric(["uploads"], relay.uploads_position)
    lag.add_metric(["history"], relay.lag)
    lag.add_metric(["uploads"], relay.uploads_lag)
    yield from (position, lag)
    yield _gauge("tagtrail_relay_failing", "1 if something keeps the relay", int(relay.problem is not None))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _of_models(found: Status) -> Iterator[Metric]:
    families = {
        "position": GaugeMetricFamily("tagtrail_projection_position", "Position of a read model", labels=["model"]),
        "lag": GaugeMetricFamily("tagtrail_projection_lag_events", "Events not folded yet", labels=["model"]),
        "lag_s": GaugeMetricFamily("tagtrail_projection_lag_seconds", "Age of the oldest of them", labels=["model"]),
        "parked": GaugeMetricFamily("tagtrail_projection_parked", "Keys that are parked", labels=["model"]),
    }
    for each in found.models:
        families["position"].add_metric([each.name], each.position)
        families["lag"].add_metric([each.name], each.lag)
        families["lag_s"].add_metric([each.name], each.lag_s)
        parked = sum(key.live and key.model == each.name for key in found.parked)
        families["parked"].add_metric([each.name], parked)
    yield from families.values()
    filled = GaugeMetricFamily("tagtrail_rebuild_position", "Position that a rebuild has reached", labels=["model"])
    target = GaugeMetricFamily("tagtrail_rebuild_target", "Position that it is to reach", labels=["model"])
    for each in found.builds:
        if each.state == FILLING:
            filled.add_metric([each.name], each.filled)
            target.add_metric([each.name], each.target)
    yield filled
    yield target
