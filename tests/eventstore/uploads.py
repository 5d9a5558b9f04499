"""Sessions in the log of uploads, as tests make them."""

from datetime import datetime, timedelta

import psycopg

from eventstore.types import NOWHERE_YET, UPLOADS, Command, Exact, Mode, NewEvent
from tests.eventstore.making import command
from tests.postgres import Database

DAY = timedelta(days=1)
KEPT = 7 * DAY
OPEN = "open"


def chatter(stream: str, mode: Mode, *, ref: str | None = OPEN, state: str = "{}") -> NewEvent:
    """Something that happens to a session, in the log of uploads."""
    return NewEvent(stream, "key", "Happened", 1, "{}", mode, ref, state, log=UPLOADS)


def begun(stream: str, now: datetime | None = None) -> Command:
    """The start of a session."""
    return command(chatter(stream, NOWHERE_YET), now=now)


def ended(stream: str, version: int, now: datetime | None = None) -> Command:
    """Its end."""
    return command(chatter(stream, Exact(version), ref=None), now=now)


def parts(database: Database) -> dict[int, int]:
    """The number of events of each part."""
    with psycopg.connect(database.app_url) as connection:
        return dict(
            connection.execute(
                "SELECT p.part, (SELECT count(*) FROM log.es_upload_event AS e WHERE e.part = p.part)"
                " FROM log.es_upload_part AS p"
            ).fetchall()
        )


def make_older(database: Database, by: timedelta) -> None:
    """All events of the log of uploads, and what stands beside them, are as if they were older."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        # Guards are triggers, and those of partitions stand for themselves.
        admin.execute("SET session_replication_role = replica")
        for table in ("es_upload_event", "es_upload_stream"):
            admin.execute(f"UPDATE log.{table} SET recorded_at = recorded_at - %s".encode(), (by,))
