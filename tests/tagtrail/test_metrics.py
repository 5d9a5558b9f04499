"""/metrics tells the state of log, relay and read models, only of configured parts, and cheaply at any lag."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from eventstore.types import UPLOADS
from projections.all_models import MODELS
from projections.builds import admin
from projections.engine.setup import ensure_tables
from tagtrail import metrics
from tagtrail.metrics import Standings
from tests.api import Registry
from tests.postgres import Database
from tests.projections.making import random_pushes
from tests.servers import RunningServer, a_relay

FAR_EVENTS = 60_000
RELAY = {
    f"tagtrail_relay_{figure}"
    for figure in ("position/history", "position/uploads", "lag_events/history", "lag_events/uploads", "failing")
}
# In each partition the counted events are read, and the first one again, whose time is the age of the lag.
READ_EVENTS_MAX = len(MODELS) * 16 * (admin.COUNTED_EVENTS_MAX + 1)


def told(standings: Standings) -> dict[str, float]:
    """All values that are told, by name and label."""
    samples = [each for metric in standings.collect() for each in metric.samples]
    return {"/".join([each.name, *each.labels.values()]): each.value for each in samples}


def append_far(database: Database, events: int) -> None:
    """Many events behind those that are there, in all partitions, of a type that every read model skips."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO log.es_event SELECT e.position + n, e.recorded_at, 1, e.log_id, n %% 16, 1, true,"
            " gen_random_uuid(), 'upload-' || n, '', 'UploadStarted', e.actor, e.request_id,"
            " NULL, NULL, NULL, NULL, NULL, '{}'"
            " FROM (SELECT * FROM log.es_event ORDER BY position DESC LIMIT 1) AS e, generate_series(1, %s) AS n",
            (events,),
        )
        connection.execute("ANALYZE log.es_event")


def events_read(plan: Mapping[str, Any]) -> float:
    """The number of events that a plan has looked at, with those that it threw away."""
    own = 0.0
    if plan.get("Relation Name") == "es_event":
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return own + sum(events_read(each) for each in plan.get("Plans", ()))


def test_a_server_without_kafka_tells_of_no_relay(server: RunningServer) -> None:
    shown = {each.partition("{")[0] for each in server.metrics()}
    assert not {each.partition("/")[0] for each in RELAY} & shown


def test_a_relay_is_told_of_where_kafka_is_configured_or_one_is_known(registry: Registry, database: Database) -> None:
    """An API that knows no Kafka tells of the relay of another machine; a relay that never came up is told of too."""
    registry.push("u/app", "v1", b"layer")
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    assert registry.patch(location, data=b"x").status_code == 202
    happened = {"history": registry.head_position(), "uploads": registry.rooms.store.head(UPLOADS)}
    assert happened["uploads"] > 0
    without, with_kafka = (Standings(database.app_url, with_kafka=each) for each in (False, True))
    assert not RELAY & told(without).keys()
    assert {log: told(with_kafka)[f"tagtrail_relay_lag_events/{log}"] for log in happened} == happened
    with a_relay(database.app_url):
        assert {log: told(without)[f"tagtrail_relay_lag_events/{log}"] for log in happened} == happened
    assert not RELAY & told(without).keys()


def test_a_database_that_is_only_slow_to_tell_is_up(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure that does not come in time is left out."""
    monkeypatch.setattr(metrics, "STATEMENT_TIMEOUT_S", 0.2)
    standings = Standings(database.app_url, with_kafka=False)
    assert told(standings)["tagtrail_database_up"] == 1
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("LOCK log.es_log IN ACCESS EXCLUSIVE MODE")
        assert told(standings) == {"tagtrail_database_up": 1}
    assert told(standings)["tagtrail_log_position"] == registry.head_position()


def test_a_database_that_is_away_is_not_up(database: Database) -> None:
    away = database.app_url.replace(f"/{database.name}?", "/no-such-database?")
    assert told(Standings(away, with_kafka=True)) == {"tagtrail_database_up": 0}


def test_a_long_lag_is_told_without_reading_it(registry: Registry, database: Database) -> None:
    """Each partition is counted up to a limit; beyond it the lag is estimated from the positions of the log."""
    registry.push("u/app", "v1", b"layer")
    registry.project()
    append_far(database, FAR_EVENTS)
    found = told(Standings(database.app_url, with_kafka=False))
    lags = {name: value for name, value in found.items() if name.startswith("tagtrail_projection_lag_events/")}
    assert lags == {f"tagtrail_projection_lag_events/{each.name}": FAR_EVENTS for each in MODELS}
    with psycopg.connect(database.app_url) as connection:
        asked = {"models": [each.id for each in MODELS], "counted": admin.COUNTED_EVENTS_MAX}
        (((explained,),),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {admin._BEHIND}", asked).fetchall()
    assert 0 < events_read(explained["Plan"]) <= READ_EVENTS_MAX


def test_a_lag_is_exact_up_to_the_limit_and_right_beyond_it(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few repositories: some partitions have no event, others more than are counted."""
    ensure_tables(database.app_url)
    random_pushes(registry, 31, 20)
    for limit in (1000, 10, 3, 1):
        monkeypatch.setattr(admin, "COUNTED_EVENTS_MAX", limit)
        assert {each.lag for each in admin.status(database.app_url).models} == {registry.head_position()}
