"""The manifests and repositories that use a blob are counted and listed up to a limit, however many there are."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from projections.models import blob_references
from projections.reader import Reader
from tagtrail.cli.blobs import blobs
from tests.api import Registry, sha256
from tests.postgres import Database

SHARED = b"a base layer"
MANY = 40_000
PAGE = 100


def ask(registry: Registry) -> dict[str, Any]:
    """The answer of /api/v1 about the blob that all share."""
    found: dict[str, Any] = registry.get(f"/api/v1/blobs/{sha256(SHARED)}/references?n=2").get_json()
    return found


def rows_read(plan: Mapping[str, Any], table: str) -> float:
    """The number of rows of a table that a plan has looked at."""
    own = 0.0
    if plan.get("Relation Name", "").startswith(table):
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return own + sum(rows_read(each, table) for each in plan.get("Plans", ()))


@pytest.mark.parametrize("projected", [0, 2, 4])
def test_manifests_are_counted_up_to_a_limit(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, projected: int
) -> None:
    """The count is the same if they are rows or in the tail, and without those that the tail deletes."""
    monkeypatch.setattr(blob_references, "COUNT_MAX", 3)
    digests = []
    for number in range(4):
        digests.append(registry.push("u/app", f"t{number}", SHARED))
        if number + 1 == projected:
            registry.project()
        found = ask(registry)
        assert (found["count"], found["count_exact"]) == (min(number + 1, 3), number < 3)
    for number, digest in enumerate(digests):
        registry.delete(f"/v2/u/app/manifests/{digest}")
        found = ask(registry)
        assert (found["count"], found["count_exact"]) == (3 - number, True)


def test_repositories_beyond_the_limit_are_told_of(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_references, "REPOSITORIES_MAX", 2)
    for name, listed, more in (("a", ["a"], False), ("b", ["a", "b"], False), ("c", ["a", "b"], True)):
        registry.blob(name, SHARED)
        found = ask(registry)
        assert (found["repositories"], found["more_repositories"]) == (listed, more)


def test_the_command_says_that_there_are_more(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_references, "COUNT_MAX", 1)
    monkeypatch.setattr(blob_references, "REPOSITORIES_MAX", 1)
    for name, said in (("a", ("in 1 repositories: a\n", "1 manifests")), ("b", ("a and others\n", "more than 1 man"))):
        registry.push(name, "v1", SHARED)
        shown = CliRunner().invoke(blobs, ["refs", sha256(SHARED), "--database", database.app_url])
        assert shown.exit_code == 0
        assert all(each in shown.output for each in said), shown.output


def test_a_base_layer_of_very_many_manifests_is_not_read_to_the_end(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement that the request sends, over rows whose statistics the planner knows."""
    registry.push("u/app", "v1", SHARED)
    registry.project()
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO readmodel.blob_references_s1"
            " SELECT %s, 'many/' || n %% 1000, 'sha256:' || n, 'layer' FROM generate_series(1, %s) AS n",
            (sha256(SHARED), MANY),
        )
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
    asked: list[tuple[str, Mapping[str, Any]]] = []
    one = Reader.one

    def listening(reader: Reader, query: str, parameters: Mapping[str, Any]) -> Any:
        asked.append((query, parameters))
        return one(reader, query, parameters)

    monkeypatch.setattr(Reader, "one", listening)
    found = registry.get(f"/api/v1/blobs/{sha256(SHARED)}/references?n={PAGE}").get_json()
    assert (found["count"], found["count_exact"], len(found["manifests"])) == (10_000, False, PAGE)
    query, parameters = asked[0]
    with psycopg.connect(database.app_url) as connection:
        (((explained,),),) = connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", {**parameters, "tail": True}
        ).fetchall()
    assert 10_001 <= rows_read(explained["Plan"], "blob_references_s1") <= 10_001 + PAGE + 10
