"""Verify compares each live read model at its own checkpoint, all in one snapshot, with few readings of the log."""

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from projections.all_models import MODELS
from projections.builds import verify
from projections.builds.set_fold import insert_range
from projections.engine import runner
from projections.engine.setup import engine_for
from projections.model import Model
from projections.models import links, tags
from tests.api import Registry
from tests.postgres import Database
from tests.projections.making import live_build, random_pushes


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The names of the models of each reading of a range, in order."""
    seen: list[frozenset[str]] = []

    def noted(connection: sa.Connection, tables: Sequence[tuple[Model, sa.Table]], *rest: Any) -> int:
        seen.append(frozenset(model.name for model, _ in tables))
        return insert_range(connection, tables, *rest)

    monkeypatch.setattr(verify, "insert_range", noted)
    return seen


def test_models_that_are_level_are_folded_from_one_reading(
    registry: Registry, database: Database, readings: list[frozenset[str]]
) -> None:
    """The results come in the usual order of models."""
    random_pushes(registry, 31, 20)
    registry.project()
    found = list(verify.verify(database.app_url))
    assert [(each.name, each.equal) for each in found] == [(model.name, True) for model in MODELS]
    assert all(each.total for each in found if each.name != "referrers")
    assert readings == [frozenset(model.name for model in MODELS)]


def test_models_that_stand_apart_are_each_compared_where_they_stand(
    registry: Registry, database: Database, readings: list[frozenset[str]]
) -> None:
    """Two models are ahead of the others, and all are right."""
    first = random_pushes(registry, 32, 10)
    registry.project()
    head = random_pushes(registry, 33, 10)
    with engine_for(database.app_url).connect() as connection:
        for model in (tags.model, links.model):
            assert runner.advance(connection, live_build(database.app_url, model), head) == head
    found = {each.name: each for each in verify.verify(database.app_url)}
    assert all(each.equal for each in found.values())
    assert {each.name for each in found.values() if each.position == head} == {"tags", "links"}
    assert {each.position for each in found.values()} == {first, head}
    assert set(readings) == {frozenset(("tags", "links")), frozenset(found) - {"tags", "links"}}


def test_rows_that_were_changed_by_hand_are_found_in_their_model_alone(registry: Registry, database: Database) -> None:
    """A missing row and a changed row are found; everything else is equal."""
    registry.push("u/app", "gone", b"a")
    registry.push("u/app", "other", b"b")
    registry.project()
    with psycopg.connect(database.app_url) as connection:
        connection.execute("DELETE FROM readmodel.tags_s1 WHERE tag = 'gone'")
        connection.execute("UPDATE readmodel.links_s1 SET generation = 7 WHERE size = 1")
    found = {each.name: each for each in verify.verify(database.app_url) if not each.equal}
    assert {name: (each.missing, each.unexpected, each.differing) for name, each in found.items()} == {
        "tags": (1, 0, 0),
        "links": (0, 0, 2),
    }
    assert found["tags"].samples[0][1]["tag"] == "gone"
    assert found["tags"].keys == {"u/app"}
