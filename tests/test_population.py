"""Histories that benchmarks load are like those of real pushes, and hold together."""

import json
from collections.abc import Iterable
from typing import Any

import psycopg

from bench.population import COLUMNS, Population, load_all
from domain.event import decode
from domain.facts import facts_from_json
from eventstore import verify
from projections.all_models import MODELS
from projections.builds.rebuild import rebuild
from tests.api import Registry
from tests.postgres import Database

NAMES = COLUMNS.replace(" ", "").split(",")


def named(row: Iterable[Any]) -> dict[str, Any]:
    """A row by its columns' names."""
    return dict(zip(NAMES, row, strict=True))


def shape(row: dict[str, Any]) -> tuple[Any, ...]:
    """The common form of the rows of one event type."""
    data = row["data"] if isinstance(row["data"], str) else json.dumps(row["data"])
    state = row["state"] if row["state"] is None or isinstance(row["state"], str) else json.dumps(row["state"])
    return (
        row["stream"].partition("-")[0],
        row["key"] in row["stream"],
        row["sets_ref"],
        row["ref"] is None or row["ref"].partition("-")[0],
        row["content"] is None,
        None if state is None else tuple(sorted(json.loads(state))),
        row["refers_to"] is None,
        tuple(sorted(json.loads(data))),
    )


def test_rows_look_like_those_of_real_pushes(registry: Registry, database: Database) -> None:
    """They are compared column by column, for every event type that pushes, mounts and deletions make."""
    digest = registry.push("u/app", "v1", b"layer")
    started = registry.post("/v2/u/app/blobs/uploads/")
    registry.put(f"{started.headers['Location']}?digest={registry.blob('u/other', b'more')}", data=b"more")
    registry.post(f"/v2/u/new/blobs/uploads/?mount={registry.blob('u/other', b'more')}&from=u/other")
    registry.delete("/v2/u/app/manifests/v1")
    registry.delete(f"/v2/u/app/manifests/{digest}")
    with psycopg.connect(database.admin_url) as connection:
        rows = connection.execute(f"SELECT {COLUMNS} FROM log.es_event").fetchall()
    real: dict[str, set[Any]] = {}
    for each in map(named, rows):
        real.setdefault(each["type"], set()).add(shape(each))
    made: dict[str, set[Any]] = {}
    for each in map(named, Population(3000).rows()):
        decode(each["type"], each["schema_version"], each["data"])
        made.setdefault(each["type"], set()).add(shape(each))
    for event_type, shapes in real.items():
        assert shapes & made[event_type], (event_type, shapes, made[event_type])


def test_a_loaded_history_holds_together(database: Database) -> None:
    """Log, streams and refs verify, both folds give the same rows, and all facts can be read."""
    last = load_all(database, 5000, seed=3)
    assert verify.verify(database.app_url) == []
    from projections.engine.setup import ensure_tables

    ensure_tables(database.app_url)
    for model in MODELS:
        made = rebuild(database.app_url, model)
        assert made.position == last
        assert made.rows > 0, model.name
        assert made.mended.equal, made.mended
    population = Population(500)
    assert sum(1 for _ in population.rows()) >= 500
    facts = [facts_from_json(each) for _, _, each in population.contents]
    assert any(each.references for each in facts)
    assert any(each.subject for each in facts)


def test_a_seed_gives_one_history() -> None:
    """The same seed gives the same history, another seed another one."""
    first, again, other = (list(Population(300, seed).rows()) for seed in (1, 1, 2))
    assert first == again != other
