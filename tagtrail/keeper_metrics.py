"""The keeper at /metrics, read from the database, so that every API process and every keeper says the same."""

from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from eventstore.feed.keeper import LEASE, TASK_STATES


class Keeping(Collector):
    """Gauges of a living keeper and of each of its tasks; none while the database is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[Metric]:
        """Nothing, because the samples are known only when the database is asked."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """One sample of each for every task, from its first round on."""
        try:
            with self._engine.connect() as connection:
                rows = connection.exec_driver_sql(TASK_STATES, {"lease": LEASE}).all()
        except DBAPIError:
            return
        yield GaugeMetricFamily("tagtrail_keeper_up", "1 if a keeper does the upkeep", int(rows[0].up))
        success = GaugeMetricFamily(
            "tagtrail_keeper_last_success_timestamp_seconds",
            "Last time that a task went well, 0 if never",
            labels=["task"],
        )
        failing = GaugeMetricFamily("tagtrail_keeper_failing", "1 if its last round failed", labels=["task"])
        backlog = GaugeMetricFamily(
            "tagtrail_keeper_backlog", "Things that waited after its last round", labels=["task"]
        )
        removed = CounterMetricFamily("tagtrail_keeper_removed", "Things that it has removed so far", labels=["task"])
        for row in rows:
            if row.name is not None:
                success.add_metric([row.name], float(row.succeeded_s or 0))
                failing.add_metric([row.name], int(row.failing))
                backlog.add_metric([row.name], row.backlog)
                removed.add_metric([row.name], row.removed)
        yield from (success, failing, backlog, removed)
