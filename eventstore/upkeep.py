"""Tasks that keep a log's tables from growing without need, in slices whose cost follows what they remove."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from eventstore.reader import Reader
from eventstore.types import Clock

CONTENT_SLICE = 200
CLIENTS_SLICE = 2000
MEMBERS_SLICE = 1000
COUNTED_MAX = 10_000
# Of one answer: a slice takes milliseconds.
TIMEOUT_S = 10.0

SWEEP_CONTENT = "SELECT s.looked_at, s.swept FROM log.es_sweep_new_content(%s, %s) AS s"
NEW_CONTENT = """
SELECT count(*) FROM (SELECT FROM log.es_content_new AS n WHERE n.stored_at < %s ORDER BY n.stored_at LIMIT %s) AS due
"""
SWEEP_SETS = "SELECT s.removed, s.more FROM log.es_sweep_sets(0::smallint, %s, %s) AS s"
IDLE_SETS = """
SELECT (SELECT count(*) FROM log.es_set AS s WHERE s.digest IS NULL)
     + (SELECT count(*) FROM (SELECT FROM log.es_set AS s
                               WHERE s.idle_since < %s ORDER BY s.idle_since LIMIT %s) AS due)
"""
FORGET_COMMANDS = "SELECT log.es_forget_commands(0::smallint, %s::interval, %s)"
COMMANDS_OVER = "SELECT cardinality(log.es_ring_over(0::smallint, %s::interval, %s))"
ERASE_CLIENTS = "SELECT log.es_erase_clients(0::smallint, %s, %s)"
CLIENTS_OVER = """
SELECT count(*) FROM (SELECT FROM log.es_client AS c
                       WHERE c.log_id = 0 AND c.first_position <= log.es_position_at(0::smallint, %s)
                       ORDER BY c.first_position LIMIT %s) AS due
"""
BEGIN_UPLOAD_PART = "SELECT log.es_begin_upload_part(%s)"
DROP_UPLOAD_PART = "SELECT log.es_drop_upload_part(%s, %s)"
UPLOAD_PARTS_OVER = "SELECT (log.es_upload_part_over(%s, %s) IS NOT NULL)::integer"
# A part of the log of uploads spans this share of the time for which it is kept, but not less than an hour. Each look
# for a session asks every part.
UPLOAD_PARTS = 3
UPLOAD_PART_MIN = timedelta(hours=1)
ROTATE_SEAL_KEYS = "SELECT log.es_rotate_seal_keys(%s, %s, %s)"
SEAL_KEYS_OVER = """
SELECT count(*) FROM log.es_seal_key AS k
 WHERE EXISTS (SELECT FROM log.es_seal_key AS s WHERE s.id > k.id AND s.made_at <= %s)
"""
LIST_CONTENT = "SELECT log.es_list_content(%s, %s)"
# Work that migrations leave to be done while the registry serves. Each statement is given the mark that it reached
# last, and answers the mark that it has reached now.
_BACKFILLS = {"list-content": LIST_CONTENT}
_UNDONE = """
SELECT b.name, b.mark FROM feed.backfill AS b WHERE b.done_at IS NULL AND b.name = ANY(%s) ORDER BY b.name
"""
_MARK = "UPDATE feed.backfill SET mark = %s WHERE name = %s AND mark = %s RETURNING name"
_DONE = "UPDATE feed.backfill SET done_at = clock_timestamp() WHERE name = %s RETURNING name"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One slice of a task: how much it removed, and whether there is more to do at once."""

    removed: int
    more: bool = False


class Upkeep:
    """The tasks of one log. `clock` is the one by which commands and content are dated."""

    def __init__(self, conninfo: str, clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._reader = Reader(conninfo, pool_size=1, timeout_s=timeout_s, name="tagtrail-keeper")

    def sweep_content(self, kept: timedelta) -> Step:
        """Delete content that no event names and that was stored so long ago; each content is looked at once."""
        looked_at, swept = self._reader.row(SWEEP_CONTENT, (self._clock() - kept, CONTENT_SLICE))
        return Step(int(swept), looked_at > 0)

    def content_to_sweep(self, kept: timedelta) -> int:
        """The amount of content that waits to be looked at, counted up to COUNTED_MAX."""
        return int(self._reader.row(NEW_CONTENT, (self._clock() - kept, COUNTED_MAX))[0])

    def sweep_sets(self, kept: timedelta) -> Step:
        """Delete sets to which no stream has referred for so long; each is looked at when that may be true."""
        removed, more = self._reader.row(SWEEP_SETS, (self._clock() - kept, MEMBERS_SLICE))
        return Step(int(removed), bool(more))

    def sets_to_sweep(self, kept: timedelta) -> int:
        """The number of sets that wait to be looked at or are being deleted, counted up to COUNTED_MAX."""
        return int(self._reader.row(IDLE_SETS, (self._clock() - kept, COUNTED_MAX))[0])

    def forget_commands(self, kept: timedelta) -> Step:
        """Forget idempotency keys that are older, a partition of them at a time."""
        return Step(int(self._reader.row(FORGET_COMMANDS, (kept, self._clock()))[0]))

    def commands_to_forget(self, kept: timedelta) -> int:
        """The number of partitions of keys that could be emptied."""
        return int(self._reader.row(COMMANDS_OVER, (kept, self._clock()))[0])

    def erase_clients(self, before: datetime) -> Step:
        """Erase addresses and user agents of clients recorded at or before a moment."""
        erased = int(self._reader.row(ERASE_CLIENTS, (before, CLIENTS_SLICE))[0])
        return Step(erased, erased == CLIENTS_SLICE)

    def clients_to_erase(self, before: datetime) -> int:
        """The number of commands whose addresses wait to be erased, counted up to COUNTED_MAX."""
        return int(self._reader.row(CLIENTS_OVER, (before, COUNTED_MAX))[0])

    def begin_upload_part(self, kept: timedelta) -> Step:
        """Begin a part of the log of uploads if the newest one is old enough, for events that are kept so long."""
        before = self._clock() - max(kept / UPLOAD_PARTS, UPLOAD_PART_MIN)
        self._reader.row(BEGIN_UPLOAD_PART, (before,))
        return Step(0)

    def drop_upload_part(self, kept: timedelta, quiet: timedelta) -> Step:
        """Drop the oldest part of the log of uploads, if its last event is older than `kept`.

        And if all sessions that began in it have ended, and `quiet` ago.
        """
        dropped = self._reader.row(DROP_UPLOAD_PART, (self._clock() - kept, self._clock() - quiet))[0]
        if dropped is None:
            _log.warning("the oldest part of the log of uploads is in use (a backup?), and is dropped later")
        return Step(int(bool(dropped)), more=bool(dropped))

    def upload_parts_over(self, kept: timedelta, quiet: timedelta) -> int:
        """1 if a part of the log of uploads could be dropped."""
        return int(self._reader.row(UPLOAD_PARTS_OVER, (self._clock() - kept, self._clock() - quiet))[0])

    def rotate_seal_keys(self, period: timedelta, kept: timedelta) -> Step:
        """Make a new secret once the newest one is so old, and remove those that were replaced so long ago."""
        return Step(int(self._reader.row(ROTATE_SEAL_KEYS, (self._clock(), period, kept))[0]))

    def seal_keys_over(self, kept: timedelta) -> int:
        """The number of secrets that were replaced so long ago."""
        return int(self._reader.row(SEAL_KEYS_OVER, (self._clock() - kept,))[0])

    def backfill(self) -> Step:
        """Do a slice of the work that a migration left to be done while the registry serves."""
        undone = self._reader.rows(_UNDONE, (list(_BACKFILLS),))
        if not undone:
            return Step(0)
        name, mark = undone[0]
        reached = self._reader.row(_BACKFILLS[name], (mark, CONTENT_SLICE))[0]
        if reached is None:
            self._reader.rows(_DONE, (name,))
        else:
            self._reader.rows(_MARK, (reached, name, mark))
        return Step(0, more=True)

    def backfills_left(self) -> int:
        """The number of backfills that are not done."""
        return len(self._reader.rows(_UNDONE, (list(_BACKFILLS),)))

    def close(self) -> None:
        """Close all connections."""
        self._reader.close()
