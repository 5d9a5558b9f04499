"""A log as the relay follows it: its events, the topics that they go to, and the checkpoint up to which they are there.

The log of uploads forgets its oldest events, so it may begin behind the first position (rule: two logs).
"""

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from domain.streams import UPLOAD_PREFIX
from eventstore.codec import EVENT_COLUMNS, recorded_from_row
from eventstore.feed.settings import EVENTS, UPLOADS, UPLOADS_BEFORE
from eventstore.types import HISTORY, Recorded
from eventstore.types import UPLOADS as UPLOADS_LOG

# The topics of a log's events. The history has sessions too, from before there was a log of uploads.
KINDS = {HISTORY: (EVENTS, UPLOADS_BEFORE), UPLOADS_LOG: (UPLOADS,)}
_TABLES = {HISTORY: "es_event", UPLOADS_LOG: "es_upload_event"}
# First position that is kept, and the last that was used.
_EXTENT = {
    HISTORY: "SELECT 1, coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0",
    UPLOADS_LOG: "SELECT min(p.first_position), greatest(max(p.first_position) - 1,"
    " (SELECT max(e.position) FROM log.es_upload_event AS e)) FROM log.es_upload_part AS p",
}
_EVENTS_AFTER = """
SELECT {columns} FROM log.{table} AS e WHERE e.log_id = {log} AND e.position > %s ORDER BY e.position LIMIT %s
"""
_LAST_OF = """
SELECT coalesce((SELECT e.position FROM log.{table} AS e
                  WHERE e.log_id = {log} AND e.partition = p AND e.position <= %(upto)s
                    AND (NOT %(some)s OR starts_with(e.stream, %(prefix)s) = %(sessions)s)
                  ORDER BY e.position DESC LIMIT 1), 0)
  FROM generate_series(0, %(partitions)s - 1) AS p ORDER BY p
"""
_EVENT_ID = "SELECT e.event_id FROM log.{table} AS e WHERE e.log_id = {log} AND e.position = %s"
_EPOCH = "SELECT l.epoch FROM log.es_log AS l WHERE l.log_id = {log}"
_CHECKPOINT = "SELECT r.position, r.cluster_id, r.topic_ids FROM feed.relay AS r WHERE r.log_id = {log}"
_MOVE = """
UPDATE feed.relay SET position = %s, epoch = %s, problem = NULL, published_at = clock_timestamp()
 WHERE log_id = {log} AND position = %s
"""
_GO_BACK = "UPDATE feed.relay SET position = %s WHERE log_id = {log}"
_NOTE = "UPDATE feed.relay SET cluster_id = %s, topic_ids = %s, problem = NULL WHERE log_id = {log}"


class Replaced(Exception):
    """Another relay has moved the checkpoint."""


class Followed:
    """One log, over the relay's connection; `position` is the checkpoint as it was read or moved last."""

    def __init__(self, connection: psycopg.Connection, log: int) -> None:
        self._connection = connection
        self.log = log
        self.position = 0
        self.last: dict[str, list[int]] = {}

    def kind_of(self, event: Recorded) -> str:
        """The kind of topic that the event goes to."""
        kinds = KINDS[self.log]
        return kinds[-1] if event.stream.startswith(UPLOAD_PREFIX) else kinds[0]

    def begin(self, partitions: int) -> None:
        """Read the checkpoint, and for each topic the last position of each partition up to there."""
        self.position = int(self.checkpoint()[0])
        kinds = KINDS[self.log]
        for kind in kinds:
            parameters = {
                "upto": self.position,
                "prefix": UPLOAD_PREFIX,
                "some": len(kinds) > 1,
                "sessions": kind != EVENTS,
                "partitions": partitions,
            }
            self.last[kind] = [row[0] for row in self._connection.execute(self._query(_LAST_OF), parameters)]

    def next_events(self, limit: int) -> list[Recorded]:
        """The events that follow the checkpoint."""
        rows = self._connection.execute(self._query(_EVENTS_AFTER), (self.position, limit)).fetchall()
        return [recorded_from_row(row) for row in rows]

    def epoch(self) -> int:
        """The epoch of the log at this moment."""
        return int(self._row(_EPOCH)[0])

    def extent(self) -> tuple[int, int]:
        """The first position that is kept, and the last one that was used."""
        first, head = self._row(_EXTENT[self.log])
        return int(first), int(head)

    def event_id(self, position: int) -> Any:
        """The id of the event there, None if there is none."""
        row = self._connection.execute(self._query(_EVENT_ID), (position,)).fetchone()
        return None if row is None else row[0]

    def checkpoint(self) -> tuple[int, str, str]:
        """The position up to which all is published; the cluster and the ids of the topics where that was."""
        position, cluster_id, topic_ids = self._row(_CHECKPOINT)
        return int(position), str(cluster_id), str(topic_ids)

    def move(self, position: int, epoch: int) -> None:
        """Move the checkpoint on. Raises Replaced if it is no longer where it was."""
        moved = self._connection.execute(self._query(_MOVE), (position, epoch, self.position))
        if moved.rowcount != 1:
            raise Replaced(f"the checkpoint is no longer at {self.position}")
        self.position = position

    def go_back(self, position: int) -> None:
        """Set the checkpoint to the end of a log that was restored."""
        self._connection.execute(self._query(_GO_BACK), (position,))

    def note(self, cluster_id: str, topic_ids: str) -> None:
        """Write down where the log is published, and that there is no problem."""
        self._connection.execute(self._query(_NOTE), (cluster_id, topic_ids))

    def _query(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(
            table=sql.Identifier(_TABLES[self.log]), log=sql.Literal(self.log), columns=sql.SQL(EVENT_COLUMNS)
        )

    def _row(self, query: LiteralString) -> tuple[Any, ...]:
        row = self._connection.execute(self._query(query)).fetchone()
        if row is None:
            raise Replaced("the log's own row is gone")
        return row
