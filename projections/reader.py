"""Asking read models: one SQL statement brings rows and the tail of the log that they do not know yet (S13).

Two statements, rows before checkpoint, would miss acknowledged writes: the projector may commit between them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from eventstore.partition import partition_of
from eventstore.types import StoreUnavailable
from projections.model import Happened, happened_from

_ITEM = (
    "json_build_array(e.position, e.key, e.recorded_at, e.actor, e.request_id, e.prev_ref, e.type,"
    " e.schema_version, e.data::text{facts})"
)
_COLUMNS = "e.position, e.key, e.type, e.content, {item} AS item"
_FACTS_JOIN = " LEFT JOIN log.es_content AS f ON f.digest = e.content"
_CONNECT_TIMEOUT_S = 3


def _select(with_facts: bool) -> str:
    item = _ITEM.format(facts=", f.facts::text" if with_facts else "")
    return f"SELECT {_COLUMNS.format(item=item)}"


def key_tail(models: Sequence[str], *, with_facts: bool = False) -> str:
    """SQL of the events of the key %(key)s past the checkpoint of its partition, lowest of the named models."""
    names = ", ".join(f"'{each}'" for each in models)
    return (
        f"{_select(with_facts)} FROM log.es_event AS e{_FACTS_JOIN if with_facts else ''}"  # noqa: S608 - constants
        " WHERE e.log_id = 0 AND e.key = %(key)s AND %(tail)s AND e.position >"
        " (SELECT min(k.position) FROM readmodel.checkpoint AS k"
        f" WHERE k.model IN ({names}) AND k.partition = %(partition)s)"
    )


def log_tail(model: str, *, with_facts: bool = False) -> str:
    """SQL of the events of all keys, per partition past its checkpoint (S14)."""
    return (
        f"{_select(with_facts)} FROM readmodel.checkpoint AS k"
        " JOIN log.es_event AS e ON e.log_id = 0 AND e.partition = k.partition AND e.position > k.position"
        f"{_FACTS_JOIN if with_facts else ''} WHERE k.model = '{model}' AND %(tail)s"
    )


class Reader:
    """The connections of one process to the read models.

    `tail=False` leaves the tail out of every answer: a hook for tests, which must not hide a projector that is dead.
    """

    def __init__(
        self, database_url: str, *, pool_size: int = 8, statement_timeout_s: float = 10.0, tail: bool = True
    ) -> None:
        self._tail = tail
        self._timeout_s = statement_timeout_s
        self.tail_events = 0
        self._pool = ConnectionPool(
            database_url,
            min_size=0,
            max_size=pool_size,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0,
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "application_name": "tagtrail-reader",
                "options": f"-c statement_timeout={int(statement_timeout_s * 1000)}"
                " -c default_transaction_isolation=read\\ committed",
            },
            timeout=statement_timeout_s,
            reconnect_timeout=1.0,
            name="reader",
        )

    def one(self, query: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """The one row of a question. Raises StoreUnavailable if the database does not answer in time."""
        values = {**parameters, "tail": self._tail}
        if "key" in values:
            values["partition"] = partition_of(values["key"])
        if self._pool.closed:
            self._pool.open(wait=False)
        try:
            return self._ask(query, values)
        except psycopg.OperationalError:
            # A connection that the database closed while it was idle: a question may be asked twice.
            return self._ask_again(query, values)

    def _ask(self, query: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            with self._pool.connection() as connection:
                row = connection.execute(query, values).fetchone()
        except PoolTimeout as problem:
            raise StoreUnavailable("the database cannot be reached") from problem
        except psycopg.errors.QueryCanceled as problem:
            raise StoreUnavailable("the question took too long") from problem
        if row is None:
            raise StoreUnavailable("the question brought no row")
        return row

    def _ask_again(self, query: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
        self._pool.check()
        try:
            return self._ask(query, values)
        except psycopg.OperationalError as problem:
            raise StoreUnavailable(f"the database did not answer: {problem}") from problem

    def tail_of(self, tail: list[list[Any]] | None) -> Iterator[Happened]:
        """The events of a tail column, in order."""
        for position, key, recorded_at, *rest in tail or ():
            self.tail_events += 1
            yield happened_from(position, key, datetime.fromisoformat(recorded_at), *rest)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
