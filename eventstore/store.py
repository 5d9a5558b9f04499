"""The event store: append commands, read streams and the log, keep content. The whole interface of this room."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

from psycopg import sql

from eventstore.appender.client import AppenderClient
from eventstore.appender.outage import Outage
from eventstore.board.board import Board
from eventstore.calls import Connect, connect_to_append
from eventstore.codec import (
    EVENT_COLUMNS,
    STREAM_COLUMNS,
    carried_contents,
    decode_outcome,
    encode_command,
    logs_of,
    recorded_from_row,
    stream_state_from_row,
)
from eventstore.combiner import Combiner
from eventstore.connection import BoundedConnection
from eventstore.disk_space import DiskSpace
from eventstore.features import Features, in_use, put_to_use
from eventstore.kept_states import KeptStates
from eventstore.per_process import PerProcess
from eventstore.reader import Reader
from eventstore.sets import Sets
from eventstore.statement import Row, Statement
from eventstore.types import (
    HISTORY,
    UPLOADS,
    Clock,
    Command,
    Content,
    LogInfo,
    Outcome,
    Recorded,
    SealKey,
    StoreUnavailable,
    StreamState,
)
from eventstore.validating import Mark

APPEND_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 10.0


def _query(text: LiteralString) -> str:
    """The text with the columns of {event} and {stream}; values always go as parameters."""
    return sql.SQL(text).format(event=sql.SQL(EVENT_COLUMNS), stream=sql.SQL(STREAM_COLUMNS)).as_string()


_STREAM_STATE = Statement(_query("SELECT {stream} FROM log.es_stream AS s WHERE s.log_id = 0 AND s.stream = %s"))
_STREAM_STATES = Statement(_query("SELECT {stream} FROM log.es_stream AS s WHERE s.log_id = 0 AND s.stream = ANY(%s)"))
_SESSION_STATES = Statement(
    _query(
        "SELECT {stream} FROM log.es_stream AS s WHERE s.log_id = 0 AND s.stream = ANY(%(streams)s)"
        " UNION ALL SELECT {stream} FROM log.es_upload_stream AS s WHERE s.stream = ANY(%(streams)s)"
    )
)
_IDLE_SESSIONS = _query(
    "(SELECT {stream} FROM log.es_stream AS s WHERE s.log_id = 0 AND s.ref = %(ref)s AND s.recorded_at < %(before)s"
    " ORDER BY s.recorded_at, s.stream LIMIT %(limit)s)"
    " UNION ALL (SELECT {stream} FROM log.es_upload_stream AS s WHERE s.ref = %(ref)s AND s.recorded_at < %(before)s"
    " ORDER BY s.recorded_at, s.stream LIMIT %(limit)s) ORDER BY recorded_at, stream LIMIT %(limit)s"
)
_STREAMS_NAMED = _query(
    "SELECT {stream} FROM log.es_stream AS s"
    " WHERE s.log_id = 0 AND s.stream > %s AND s.stream < %s ORDER BY s.stream LIMIT %s"
)
_READ_STREAM = _query(
    "SELECT {event} FROM log.es_event AS e"
    " WHERE e.log_id = 0 AND e.stream = %s AND e.version > %s ORDER BY e.version LIMIT %s"
)
_LOG_FROM = {
    HISTORY: _query("SELECT {event} FROM log.es_event AS e WHERE e.log_id = 0 AND e.position > %s"),
    UPLOADS: _query("SELECT {event} FROM log.es_upload_event AS e WHERE e.position > %s"),
}
_LOG_WITH_FACTS_FROM = _query(
    "SELECT {event}, c.facts::text"
    " FROM log.es_event AS e LEFT JOIN log.es_content AS c ON c.digest = e.content"
    " WHERE e.log_id = 0 AND e.position > %s"
)
_CONTENT = Statement("SELECT c.digest, c.body, c.facts::text FROM log.es_content AS c WHERE c.digest = %s")
_PUT_CONTENT = Statement("SELECT log.es_put_content(%s::text, %s::bytea, %s::text, %s::timestamptz)")
_REFERRING = """
SELECT DISTINCT f.from_stream FROM (
    (SELECT r.from_stream FROM log.es_ref AS r WHERE r.log_id = 0 AND r.target = %(target)s
      ORDER BY r.from_stream LIMIT %(limit)s)
    UNION ALL
    (SELECT r.from_stream FROM log.es_set_member AS m
       JOIN log.es_set AS s ON s.id = m.set_id AND s.complete
       JOIN log.es_ref AS r ON r.log_id = 0 AND r.target = 'set-' || s.digest
      WHERE m.target = %(target)s AND m.refers ORDER BY r.from_stream LIMIT %(limit)s)) AS f
 ORDER BY f.from_stream LIMIT %(limit)s
"""
# Both numbers only grow, so their sum is the same as long as both are.
_MARKS = Statement(
    "SELECT k.key, l.epoch, coalesce((SELECT e.position FROM log.es_event AS e WHERE e.log_id = 0 AND e.key = k.key"
    " ORDER BY e.position DESC LIMIT 1), 0)"
    " + coalesce((SELECT s.version FROM log.es_stream AS s WHERE s.log_id = 0 AND s.stream = k.key), 0)"
    " FROM unnest(%s::text[]) AS k (key), log.es_log AS l WHERE l.log_id = 0"
)
_LOG_INFO = (
    "SELECT l.partitions, l.epoch, s.version_num, s.serves_from, current_setting('transaction_read_only')::boolean"
    " FROM log.es_log AS l, log.es_schema AS s WHERE l.log_id = 0"
)
_SEAL_KEYS = "SELECT k.id, k.secret FROM log.es_seal_key AS k ORDER BY k.id"
_HEAD = {
    HISTORY: "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0",
    UPLOADS: "SELECT greatest((SELECT max(p.first_position) - 1 FROM log.es_upload_part AS p),"
    " (SELECT max(e.position) FROM log.es_upload_event AS e))",
}


def _by_stream(streams: Sequence[str], rows: Iterable[Row]) -> dict[str, StreamState]:
    found = {row[0]: stream_state_from_row(row) for row in rows}
    return {stream: found.get(stream) or StreamState(stream, 0, None, None) for stream in streams}


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Opened:
    reader: Reader
    appends: Combiner | AppenderClient


class Store:
    """One log of events in a Postgres database, for one process and any number of its threads.

    Connections are opened by the first call, in the process that makes it. `clock` dates only stored content and sets;
    commands bring their own time. `allow_clock_skew` is for tests. `append_connect` replaces the way the
    combiner connects. `board` is told of every change before it is sent, where the server has one. `appender` is the
    socket of the process that appends for this one, where the server has one.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        pool_size: int = 8,
        append_timeout_s: float = APPEND_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        allow_clock_skew: bool = False,
        clock: Clock = utc_now,
        append_connect: Connect | None = None,
        board: Board | None = None,
        appender: Path | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._pool_size = pool_size
        self._append_timeout_s = append_timeout_s
        self._read_timeout_s = read_timeout_s
        self._allow_clock_skew = allow_clock_skew
        self._clock = clock
        self._append_connect = append_connect or self._connect_to_append
        self._board = board
        self._kept = None if board is None else KeptStates(board, self._asked_states)
        self._appender = appender
        self._disk = DiskSpace()
        self._outage = Outage()
        self.features = Features(lambda: in_use(self._reader), lambda each: put_to_use(self._reader, each))
        self.sets = Sets(lambda: self._reader, clock)
        self._opened = PerProcess(self._open)

    def append(self, command: Command) -> Outcome:
        """Append the command or learn why not.

        Raises StoreUnavailable after the append's time limit (the outcome may be unknown; the same command may be
        given again), AppendRejected if the command could never be appended, FeatureNotInUse if not every live process
        could read it yet.
        """
        opened = self._opened.get()
        self.features.admit(command)
        carried = carried_contents(command)
        for each in command.contents:
            if each not in carried:
                self.put_content(each)
        cells = () if self._board is None else self._board.cells_changed(command)
        text, logs = encode_command(command, opened.reader.partitions), logs_of(command)
        answer = opened.appends.append(text, self._append_timeout_s, cells, logs)
        return decode_outcome(answer)

    def put_content(self, content: Content) -> None:
        """Store content durably, for an append that names it (rule: content before the append).

        Storing it again changes nothing.
        """
        values = (content.digest, content.body, content.facts, self._clock())
        try:
            self._reader.rows(_PUT_CONTENT, values)
        except StoreUnavailable as problem:
            self._disk.failed(problem.__cause__)
            raise

    def get_content(self, digest: str) -> Content | None:
        """The content of this digest, None if there is none."""
        rows = self._reader.rows(_CONTENT, (digest,))
        return Content(*rows[0]) if rows else None

    def stream_state(self, stream: str) -> StreamState:
        """The state of the stream now; version 0 if nothing was ever written."""
        rows = self._reader.rows(_STREAM_STATE, (stream,))
        return stream_state_from_row(rows[0]) if rows else StreamState(stream, 0, None, None)

    def stream_states(self, streams: Sequence[str]) -> dict[str, StreamState]:
        """The state of each of the streams, all at one moment; from memory if the board vouches for all of them."""
        return self._asked_states(streams) if self._kept is None else self._kept.states(streams)

    def _asked_states(self, streams: Sequence[str]) -> dict[str, StreamState]:
        rows = self._reader.rows(_STREAM_STATES, (list(streams),))
        return _by_stream(streams, rows)

    def session_state(self, stream: str) -> StreamState:
        """As `stream_state`, of a stream that may stand in either log."""
        return self.session_states((stream,))[stream]

    def session_states(self, streams: Sequence[str]) -> dict[str, StreamState]:
        """The same of streams that stand in either log: sessions went to the history before there was one for them."""
        return _by_stream(streams, self._reader.rows(_SESSION_STATES, {"streams": list(streams)}))

    def streams_named(self, prefix: str, after: str | None, limit: int) -> list[StreamState]:
        """A page of the streams whose names begin with `prefix` (ASCII), in order of name, after one of them."""
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self._reader.rows(_STREAMS_NAMED, (after or prefix, beyond, limit))
        return [stream_state_from_row(row) for row in rows]

    def referring_streams(self, target: str, limit: int) -> list[str]:
        """Names of streams that refer to `target` (`NewEvent.refers_to`), in order of name."""
        rows = self._reader.rows(_REFERRING, {"target": target, "limit": limit})
        return [row[0] for row in rows]

    def read_stream(self, stream: str, after_version: int = 0, limit: int = 1000) -> list[Recorded]:
        """Events of one stream in order, after a version."""
        rows = self._reader.rows(_READ_STREAM, (stream, after_version, limit))
        return [recorded_from_row(row) for row in rows]

    def read_log(
        self,
        after: int,
        limit: int,
        *,
        types: Iterable[str] | None = None,
        key: str | None = None,
        partitions: Iterable[int] | None = None,
        with_facts: bool = False,
        log: int = HISTORY,
    ) -> list[Recorded]:
        """Events in the order of the log, after a position; of these types, this key, these partitions only.

        Events that a reader has not seen have positions above all that it has seen (rule: no holes, no changes). Only
        those of the history have facts.
        """
        query = _LOG_WITH_FACTS_FROM if with_facts else _LOG_FROM[log]
        parameters: list[object] = [after]
        filters = {
            " AND e.key = %s": key,
            " AND e.type = ANY(%s)": None if types is None else list(types),
            " AND e.partition = ANY(%s)": None if partitions is None else list(partitions),
        }
        for condition, value in filters.items():
            if value is not None:
                query += condition
                parameters.append(value)
        rows = self._reader.rows(query + " ORDER BY e.position LIMIT %s", [*parameters, limit])
        return [recorded_from_row(row) for row in rows]

    def head(self, log: int = HISTORY) -> int:
        """The position of the last event of the log, 0 if there is none."""
        return int(self._reader.row(_HEAD[log])[0])

    def marks(self, keys: Collection[str]) -> dict[str, Mark]:
        """The log's epoch and a number that each event of the key raises, for each key, all at one moment.

        A stream can be given like a key.
        """
        return {key: (epoch, position) for key, epoch, position in self._reader.rows(_MARKS, (list(keys),))}

    def idle_streams(self, ref: str, before: datetime, limit: int) -> list[StreamState]:
        """Streams of either log with this ref to which nothing was appended since `before`, longest idle first.

        Costs a look at every stream with this ref: for a ref that few streams have at a time, such as an open upload.
        """
        rows = self._reader.rows(_IDLE_SESSIONS, {"ref": ref, "before": before, "limit": limit})
        return [stream_state_from_row(row) for row in rows]

    def seal_keys(self) -> list[SealKey]:
        """The secrets by which ids were sealed that may still be in use, the newest last."""
        return [SealKey(*row) for row in self._reader.rows(_SEAL_KEYS)]

    def log_info(self) -> LogInfo:
        """The log's own row: its fixed values and its epoch."""
        return LogInfo(*self._reader.row(_LOG_INFO))

    def write_problem(self) -> str | None:
        """The reason why writes of this process lately came to nothing; None if they did not, or long ago.

        The disk of the database is full, or the appender gives no answer.
        """
        return self._disk.problem or self._outage.problem

    def close(self) -> None:
        """Finish the appends under way and close all connections; a later call opens them again."""
        opened = self._opened.take()
        if opened is not None:
            opened.appends.close(CLOSE_TIMEOUT_S)
            opened.reader.close()

    def reader(self) -> Reader:
        """The pool of connections of this process for questions, which its other parts may ask too."""
        return self._opened.get().reader

    @property
    def _reader(self) -> Reader:
        return self.reader()

    def _open(self) -> _Opened:
        reader = Reader(
            self._conninfo, pool_size=self._pool_size, timeout_s=self._read_timeout_s, name="tagtrail-store"
        )
        if self._appender is None:
            return _Opened(reader, self._combiner())
        client = AppenderClient(
            self._appender, self._disk, self._outage, direct=self._combiner, on_session=self.features.forget
        )
        return _Opened(reader, client)

    def _combiner(self) -> Combiner:
        writer = None if self._board is None else self._board.writer
        return Combiner(self._append_connect, self._disk, allow_clock_skew=self._allow_clock_skew, writer=writer)

    def _connect_to_append(self) -> BoundedConnection:
        connection = connect_to_append(self._conninfo, self._append_timeout_s)
        self.features.forget()
        return connection
