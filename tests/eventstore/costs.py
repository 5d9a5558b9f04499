"""Counts the pages and rows that a statement touches, which is its cost whatever else the machine is doing."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from eventstore.statement import Parameters, Statement


def pages_again(connection: psycopg.Connection, statement: str, parameters: Sequence[object] = ()) -> int:
    """The pages of a second run of the statement; the first one on a connection reads the catalog too."""
    pages(connection, statement, parameters)
    return pages(connection, statement, parameters)


def pages(connection: psycopg.Connection, statement: str, parameters: Sequence[object] = ()) -> int:
    """The pages that the statement touches with all functions that it calls. Its changes are really made."""
    row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).fetchone()
    assert row is not None
    found: Any = row[0] if isinstance(row[0], list) else json.loads(row[0])
    plan = found[0]["Plan"]
    return int(sum(plan[f"{kind} {what} Blocks"] for kind in ("Shared", "Local") for what in ("Hit", "Read")))


@dataclass(frozen=True)
class Cost:
    """The rows of each table that a statement looks at, with those that it throws away, and blocks of anything."""

    rows: Mapping[str, int]
    blocks: int


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's node and all below it."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def cost(connection: psycopg.Connection, query: str | Statement, parameters: Parameters) -> Cost:
    """The work of the database to answer a question."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.query if isinstance(query, Statement) else query}"
    (((explained,),),) = connection.execute(explain, parameters).fetchall()
    rows: dict[str, int] = {}
    for each in nodes(explained["Plan"]):
        if (table := each.get("Relation Name")) is not None:
            removed = each.get("Rows Removed by Filter", 0) + each.get("Rows Removed by Index Recheck", 0)
            # All are averages over the loops.
            looked_at = math.ceil(each["Actual Loops"] * (each["Actual Rows"] + removed))
            rows[table] = rows.get(table, 0) + looked_at
    return Cost(rows, explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"])
