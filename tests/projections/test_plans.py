"""What the database does for a GET: it must not read a log whose events are all projected."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from eventstore.partition import partition_of
from projections.reader import Reader
from tests.api import Registry, sha256
from tests.postgres import Database
from tests.projections.making import random_pushes

# The planner of a small log is right to read it all. Without these it chooses as it does over millions of events.
_AS_IF_LARGE = "SET enable_nestloop = off; SET enable_seqscan = off; SET enable_bitmapscan = off"


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's node and all below it."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def events_read(connection: psycopg.Connection, query: str, parameters: Mapping[str, Any]) -> int:
    """How many events the database looks at to answer a question, those that it throws away included."""
    (((explained,),),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters).fetchall()
    scans = [each for each in nodes(explained["Plan"]) if each.get("Relation Name") == "es_event"]
    assert scans, f"no scan of the log in {explained}"
    # Both are averages over the loops.
    looked_at = (each["Actual Loops"] * (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) for each in scans)
    return sum(map(math.ceil, looked_at))


def test_a_question_at_no_lag_reads_no_event(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every list and every pull; that it stays so in a large log, bench/sizes.py shows."""
    random_pushes(registry, 21, 60)
    manifest = registry.push("u/app", "v1", b"layer")
    registry.project()
    asked: list[tuple[str, dict[str, Any]]] = []
    one = Reader.one

    def listening(reader: Reader, query: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        asked.append((query, {**parameters, "tail": True, "partition": partition_of("u/app")}))
        return one(reader, query, parameters)

    monkeypatch.setattr(Reader, "one", listening)
    layer = sha256(b"layer")
    for path in (
        "/v2/_catalog",
        "/v2/u/app/tags/list",
        f"/v2/u/app/referrers/{manifest}",
        f"/api/v1/blobs/{layer}/references",
        "/api/v1/repositories/u/app/history",
        f"/v2/u/app/manifests/{manifest}",
        "/v2/u/app/manifests/v1",
        f"/v2/u/app/blobs/{layer}",
    ):
        before = len(asked)
        assert registry.get(path).status_code == 200, path
        assert len(asked) > before, path
    monkeypatch.undo()
    with psycopg.connect(database.app_url) as connection:
        connection.execute(_AS_IF_LARGE)
        for query, parameters in asked:
            assert events_read(connection, query, parameters) == 0, query
