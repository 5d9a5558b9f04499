"""Pages that a statement touches: its cost, whatever else the machine is doing."""

import json
from collections.abc import Sequence
from typing import Any

import psycopg


def pages_again(connection: psycopg.Connection, statement: str, parameters: Sequence[object] = ()) -> int:
    """The same, the second time: the first time on a connection reads the catalog too."""
    pages(connection, statement, parameters)
    return pages(connection, statement, parameters)


def pages(connection: psycopg.Connection, statement: str, parameters: Sequence[object] = ()) -> int:
    """Pages that the statement touches with all functions that it calls; what it does is done."""
    row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).fetchone()
    assert row is not None
    found: Any = row[0] if isinstance(row[0], list) else json.loads(row[0])
    plan = found[0]["Plan"]
    return int(sum(plan[f"{kind} {what} Blocks"] for kind in ("Shared", "Local") for what in ("Hit", "Read")))
