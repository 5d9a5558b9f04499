"""Asks read models: one SQL statement brings rows and the tail of the log (rule: one statement).

The tail has the events that the read model has not folded yet, so a write is visible at once (rule: read your writes).
Two statements, rows before checkpoint, would miss acknowledged writes: the projector may commit between them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import Counter
from psycopg import sql

from domain.event import Event
from eventstore.partition import partition_of
from eventstore.reader import Reader as StoreReader
from eventstore.statement import Statement
from projections.model import FoldFailed, Happened, Model, Rows, happened_from
from projections.statements import statement

_ITEM = (
    "json_build_array(e.position, e.key, e.recorded_at, e.actor, e.request_id, e.prev_ref, e.type,"
    " e.schema_version, e.data::text{facts})"
)
_COLUMNS = "e.position, e.key, e.stream, e.type, e.content, e.prev_ref, {item} AS item"
# A subquery for each event: the planner could make a join by reading all facts there are.
_FACTS = ", (SELECT {facts} FROM log.es_content AS f WHERE f.digest = e.content)"
# Give the planner an upper bound, even one that never binds. Without one it takes the tail for a third of the log and
# may read it whole; with one, for a two-hundredth (PostgreSQL, DEFAULT_RANGE_INEQ_SEL), and it uses the index.
NO_END = "e.position <= 9223372036854775807"
_KNOWN = "coalesce((SELECT c.position FROM {checkpoint} AS c WHERE c.partition = %(partition)s), 0)"
_PARKED = "(SELECT p.position - 1 FROM {parked} AS p WHERE p.key = %(key)s)"
OVERLAID = Counter("tagtrail_overlay_reads_total", "Reads that found events which their read model did not have yet")
OVERLAY_EVENTS = Counter("tagtrail_overlay_events_total", "Events that such reads had to fold")


def _select(facts: str | None) -> str:
    return f"SELECT {_COLUMNS.format(item=_ITEM.format(facts='' if facts is None else _FACTS.format(facts=facts)))}"


def _events(which: str) -> str:
    """SQL of a lateral join that finds by an index, for each row on its left, the events that meet `which`, in order.

    OFFSET 0 keeps the planner from making it a plain join, which would read a large log whole to find the few events
    that are past a checkpoint.
    """
    return statement(
        "CROSS JOIN LATERAL (SELECT e.* FROM log.es_event AS e"
        " WHERE e.log_id = 0 AND {which} ORDER BY e.position OFFSET 0) AS e",
        which=sql.SQL(which),
    )


def key_tail(models: Sequence[str]) -> str:
    """SQL of the events of the key %(key)s that one of the named models has not folded.

    They are those past the lowest checkpoint of the key's partition, or from where the key is parked.
    """
    return (
        f"{_select(None)} FROM log.es_event AS e"
        f" WHERE e.log_id = 0 AND e.key = %(key)s AND %(tail)s AND e.position > {_known(models)} AND {NO_END}"
    )


def stream_tails(models: Sequence[str], types: Iterable[type[Event]], *streams: str) -> str:
    """SQL of the last event of each of these streams of the key %(key)s that one of the named models has not folded.

    Each event of these types says everything of its stream, so the last one is enough. So the question takes the
    same time however far the models are behind. Streams are SQL. Usually the key has no event that is not folded, which
    one probe of an index tells; no stream is looked at then.
    """
    return f"""
{_select(None)} FROM (VALUES {", ".join(f"({each})" for each in streams)}) AS s(stream)
 CROSS JOIN LATERAL (SELECT l.* FROM log.es_event AS l
                      WHERE l.log_id = 0 AND l.stream = s.stream
                        AND l.type IN ({", ".join(f"'{each.TYPE}'" for each in types)})
                      ORDER BY l.version DESC LIMIT 1) AS e
 WHERE EXISTS ({key_tail(models)})
   AND e.position > {_known(models)}"""  # noqa: S608 - put together from constants; values go as parameters


def _known(models: Sequence[str]) -> str:
    """SQL of the position from which on one of the models lacks events of the key %(key)s."""
    known = [statement(_KNOWN, checkpoint=f"readmodel.{each}_checkpoint") for each in models]
    parked = [statement(_PARKED, parked=f"readmodel.{each}_parked") for each in models]
    return f"least({', '.join(known + parked)})"


def log_tail(model: str, condition: str, *, facts: str | None = None) -> str:
    """SQL of the events `e` that the model has not folded and that meet `condition` (rule: tails of many keys).

    They are, in each partition, those past its checkpoint, and those of parked keys from where these are parked.
    `facts` is SQL of the known facts of the content `f` of each.
    """
    past = _events(f"e.partition = k.partition AND e.position > k.position AND {NO_END} AND {condition}")
    parked = _events(f"e.key = p.key AND e.position BETWEEN p.position AND k.position AND {condition}")
    return f"""
{_select(facts)} FROM readmodel.{model}_checkpoint AS k {past}
 WHERE %(tail)s
UNION ALL
{_select(facts)} FROM readmodel.{model}_parked AS p
  JOIN readmodel.{model}_checkpoint AS k ON k.partition = p.partition {parked}
 WHERE %(tail)s"""


class Reader:
    """The questions of one process to the read models, by connections that others may share.

    `connected` answers the pool of this process. `tail=False` leaves the tail out of every answer: a hook for tests,
    which must not hide a projector that is dead.
    """

    def __init__(self, connected: Callable[[], StoreReader], *, tail: bool = True) -> None:
        self._tail = tail
        self._connected = connected

    def one(self, query: str | Statement, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """The one row of a question. Raises StoreUnavailable if the database does not answer in time."""
        connected = self._connected()
        values = {**parameters, "tail": self._tail}
        if "key" in values:
            values["partition"] = partition_of(values["key"], connected.partitions)
        return connected.row(query, values)

    def rows(self, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows of a question about data that never change. Raises as `one` does."""
        return self._connected().rows(query, parameters)

    def tail_of(self, tail: list[list[Any]] | None) -> Iterator[Happened]:
        """The events of a tail column, in order."""
        self._count(tail)
        for position, key, recorded_at, *rest in tail or ():
            yield happened_from(position, key, datetime.fromisoformat(recorded_at), *rest)

    def _count(self, tail: list[list[Any]] | None) -> None:
        if tail:
            OVERLAID.inc()
            OVERLAY_EVENTS.inc(len(tail))

    def overlay(self, model: Model, rows: Rows, tail: list[list[Any]] | None) -> None:
        """Fold a tail of many keys over `rows`. A key whose fold fails stays as it stood (rule: parked keys)."""
        self._count(tail)
        failed: set[str] = set()
        for position, key, recorded_at, *rest in tail or ():
            if key in failed:
                continue
            try:
                model.apply(rows, happened_from(position, key, datetime.fromisoformat(recorded_at), *rest))
            except FoldFailed:
                failed.add(key)
