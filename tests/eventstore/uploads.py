"""Sessions in the log of uploads, as tests make them."""

from datetime import datetime, timedelta

import psycopg
from psycopg import sql

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
    guard = sql.Identifier("es_upload_append_only")
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("UPDATE log.es_upload_stream SET recorded_at = recorded_at - %s", (by,))
        for part in parts(database):
            table = sql.Identifier("log", f"es_upload_event_{part}")
            admin.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(table, guard))
            admin.execute(sql.SQL("UPDATE {} SET recorded_at = recorded_at - %s").format(table), (by,))
            admin.execute(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, guard))
