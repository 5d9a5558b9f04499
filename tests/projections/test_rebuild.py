"""A read model is rebuilt while it is read and written: the rebuild is resumed, compared, swapped in and undone."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from domain.tag import TagMoved
from projections.all_models import MODELS
from projections.builds import admin, fill, housekeeping, rebuild
from projections.builds.set_fold import insert_range
from projections.builds.verify import verify
from projections.columns import Name, table_of
from projections.engine import build_tables, runner
from projections.engine.setup import engine_for, ensure_tables
from projections.model import Happened, Model, Rows
from projections.models import catalog, links, tags
from tests.api import Registry
from tests.feed.running import projecting
from tests.folded import wait_folded
from tests.postgres import Database
from tests.projections.making import builds_of, live_build, random_pushes


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ranges so short that a small log has many."""
    monkeypatch.setattr(fill, "RANGE_EVENTS", 20)
    monkeypatch.setattr(fill, "FILLERS", 1)


class BrokenOff(Exception):
    """Ctrl-C in the middle of a rebuild."""


def test_a_rebuild_that_was_broken_off_goes_on_where_it_was(registry: Registry, database: Database) -> None:
    """The live build stays as it was, and ranges that were folded are not folded again."""
    head = random_pushes(registry, 1, 40)
    registry.project()
    done: list[int] = []

    def break_off(upto: int, target: int) -> None:
        done.append(upto)
        if len(done) == 2:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        rebuild.rebuild(database.app_url, tags.model, progress=break_off)
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "live"), ("tags_s1_v2", "filling")]
    building = [each for each in admin.status(database.app_url).builds if each.state == "filling"]
    assert [(each.filled, each.target) for each in building] == [(40, head)]
    random_pushes(registry, 2, 10)
    resumed: list[int] = []
    found = rebuild.rebuild(database.app_url, tags.model, progress=lambda upto, _: resumed.append(upto))
    assert resumed[0] == 60
    assert found.position == head
    assert found.mended.equal
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "retired"), ("tags_s1_v2", "live")]
    assert all(each.equal for each in verify(database.app_url))


def test_stripes_that_were_broken_off_are_gone_on_with_each_where_it_was(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections fold at once, each its stripe of the log."""
    monkeypatch.setattr(fill, "FILLERS", 2)
    random_pushes(registry, 12, 40)
    registry.project()

    def break_off(done: int, target: int) -> None:
        if done >= 40:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        rebuild.rebuild(database.app_url, links.model, progress=break_off)
    (building,) = [each for each in admin.status(database.app_url).builds if each.state == "filling"]
    assert 40 <= building.filled < building.target
    seen: list[int] = []
    assert rebuild.rebuild(database.app_url, links.model, progress=lambda done, _: seen.append(done)).mended.equal
    assert building.filled < seen[0] <= seen[-1] == building.target
    assert all(each.equal for each in verify(database.app_url))


def superseded_tables(database: Database) -> int:
    """The number of tables of superseded events; fails unless all of them would survive a crash."""
    with psycopg.connect(database.admin_url) as connection:
        rows = connection.execute(
            "SELECT relpersistence FROM pg_class WHERE relkind = 'r' AND relname LIKE 'superseded_%'"
        ).fetchall()
    assert all(kept == "p" for (kept,) in rows)
    return len(rows)


def test_models_that_are_folded_together_may_be_broken_off_and_gone_on_with_one_by_one(
    registry: Registry, database: Database
) -> None:
    """The models share a table of superseded events, which is dropped with the last of them."""
    head = random_pushes(registry, 13, 40)
    registry.project()

    def break_off(done: int, target: int) -> None:
        if done >= 3 * 40:
            raise BrokenOff

    three = (tags.model, links.model, catalog.model)
    with pytest.raises(BrokenOff):
        rebuild.fold(database.app_url, three, progress=break_off)
    assert superseded_tables(database) == 1
    assert rebuild.rebuild(database.app_url, tags.model).mended.equal
    assert superseded_tables(database) == 1

    def break_off_at_once(done: int, target: int) -> None:
        raise BrokenOff

    with pytest.raises(BrokenOff):
        rebuild.fold(database.app_url, [links.model], progress=break_off_at_once)
    with engine_for(database.app_url).connect() as connection:
        (further,) = build_tables.listed(connection, [links.model], [build_tables.FILLING])
        (behind,) = build_tables.listed(connection, [catalog.model], [build_tables.FILLING])
    assert further.filled > behind.filled > 0
    seen: list[int] = []
    rebuild.fold(database.app_url, three, progress=lambda done, _: seen.append(done))
    # Tags are begun anew, the other two go on, each where it was.
    assert min(seen) > 2 * 40
    assert seen[-1] == 3 * head
    assert superseded_tables(database) == 0
    for model in three:
        assert rebuild.rebuild(database.app_url, model, progress=None).mended.equal
        assert builds_of(database.app_url, model)[-1][1] == "live"
    assert all(each.equal for each in verify(database.app_url))


def test_a_build_that_is_filled_and_not_yet_swapped_in_is_gone_on_with(registry: Registry, database: Database) -> None:
    """Its rows are not folded a second time."""
    random_pushes(registry, 14, 20)
    registry.project()
    rebuild.fold(database.app_url, [tags.model])
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "live"), ("tags_s1_v2", "following")]
    folded: list[int] = []
    found = rebuild.rebuild(database.app_url, tags.model, progress=lambda done, _: folded.append(done))
    assert found.mended.equal
    assert folded == []
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "retired"), ("tags_s1_v2", "live")]


def test_the_second_of_two_rebuilds_at_once_is_refused(registry: Registry, database: Database) -> None:
    """The first one is not disturbed."""
    random_pushes(registry, 3, 10)
    registry.project()

    def second(upto: int, target: int) -> None:
        with pytest.raises(rebuild.RebuildRefused, match="another rebuild of tags"):
            rebuild.rebuild(database.app_url, tags.model)

    assert rebuild.rebuild(database.app_url, tags.model, progress=second).mended.equal


def test_reads_and_writes_go_on_while_every_model_is_rebuilt(registry: Registry, database: Database) -> None:
    """With a projector at work no answer is stale, no request fails, and nothing differs afterwards."""
    random_pushes(registry, 4, 30)
    bodies = [registry.get(f"/v2/u/m/manifests/{registry.push('u/m', f'm{n}', bytes([n]))}").data for n in range(2)]
    wrong: list[object] = []
    done = threading.Event()
    moves = 0

    def move() -> None:
        nonlocal moves
        while not done.is_set():
            body = bodies[moves % 2]
            if registry.manifest("u/m", "moving", body).status_code != 201:
                wrong.append("write refused")
            if registry.get("/v2/u/m/manifests/moving").data != body:
                wrong.append(("stale", moves))
            if "moving" not in registry.get("/v2/u/m/tags/list").get_json()["tags"]:
                wrong.append(("not listed", moves))
            if "u/m" not in registry.get("/v2/_catalog").get_json()["repositories"]:
                wrong.append(("not in the catalog", moves))
            moves += 1

    with projecting(database.app_url):
        mover = threading.Thread(target=move)
        mover.start()
        try:
            for _ in range(2):
                for model in MODELS:
                    found = rebuild.rebuild(database.app_url, model)
                    assert found.mended.equal, found.mended
                    print(f"{model.name}: swap took {found.swap_s * 1000:.1f} ms")
        finally:
            done.set()
            mover.join()
        wait_folded(database.app_url, registry.head_position())
    assert wrong == []
    assert moves > 10
    assert all(each.equal for each in verify(database.app_url))


def test_the_build_that_was_live_before_is_kept_up_gone_back_to_and_removed(
    registry: Registry, database: Database
) -> None:
    """Going back takes a moment, because the old build is fed too."""
    random_pushes(registry, 5, 10)
    registry.project()
    rebuild.rebuild(database.app_url, tags.model)
    random_pushes(registry, 6, 10)
    registry.project()
    states = {each.id: each.lag for each in admin.status(database.app_url).builds if each.name == "tags"}
    assert states == {"tags_s1_v1": 0, "tags_s1_v2": 0}
    assert rebuild.swap_back(database.app_url, tags.model, keep_s=0) == "tags_s1_v1"
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "live"), ("tags_s1_v2", "retired")]
    assert all(each.equal for each in verify(database.app_url))
    housekeeping.remove_old(database.app_url, MODELS)
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "live")]
    with pytest.raises(rebuild.RebuildRefused, match="no earlier build"):
        rebuild.swap_back(database.app_url, tags.model)


def test_rows_and_checkpoint_that_readers_see_are_of_one_build(registry: Registry, database: Database) -> None:
    """The replaced build may be ahead of the live one: reads take the tail from the checkpoint of the live one."""
    registry.push("u/app", "v1", b"a")
    registry.project()
    rebuild.rebuild(database.app_url, tags.model)
    registry.push("u/app", "v2", b"b")
    with engine_for(database.app_url).connect() as connection:
        (old,) = build_tables.listed(connection, [tags.model], [build_tables.RETIRED])
        known = build_tables.live(connection, catalog.model)
        connection.commit()
        # A page of tags takes the tail from the lower of the checkpoints of two models; the other model is level.
        for each in (old, known):
            assert runner.advance(connection, each, registry.head_position()) == registry.head_position()
    assert registry.get("/v2/u/app/tags/list").get_json()["tags"] == ["v1", "v2"]


def test_two_folds_that_disagree_stop_the_swap(registry: Registry, database: Database) -> None:
    """The set fold of this test forgets deletions. A third fold, of some keys from nothing, tells which is right."""
    registry.push("u/app", "gone", b"a")
    registry.push("u/app", "kept", b"b")
    registry.delete("/v2/u/app/manifests/gone")
    registry.project()
    wrong = replace(tags.model, set_fold=tags.model.set_fold.replace("e.is_last", "NOT e.is_last"))
    with pytest.raises(rebuild.RebuildRefused, match="the two folds of tags disagree about u/app"):
        rebuild.rebuild(database.app_url, wrong)
    assert live_build(database.app_url, tags.model).id == "tags_s1_v1"
    assert registry.get("/v2/u/app/tags/list").get_json()["tags"] == ["kept"]
    housekeeping.remove_old(database.app_url, MODELS)
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "live")]


def test_a_live_build_that_is_far_behind_is_replaced_after_a_sample_was_judged(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no build to compare with, so the third fold judges some repositories."""
    monkeypatch.setattr(rebuild, "COMPARED_LAG_MAX", 10)
    random_pushes(registry, 14, 40)
    wrong = replace(tags.model, set_fold=tags.model.set_fold.replace("e.data->>'digest'", "e.data->>'tag'"))
    with pytest.raises(rebuild.RebuildRefused, match="the two folds of tags disagree about u/app"):
        rebuild.rebuild(database.app_url, wrong)
    for model in MODELS:
        assert rebuild.rebuild(database.app_url, model).position == registry.head_position()
        assert live_build(database.app_url, model).version > 1
    assert all(each.equal for each in verify(database.app_url))


def test_a_rebuild_of_another_epoch_is_not_gone_on_with(registry: Registry, database: Database) -> None:
    """The positions that it has reached may have been used again for other events."""
    random_pushes(registry, 7, 20)
    registry.project()

    def break_off(upto: int, target: int) -> None:
        raise BrokenOff

    with pytest.raises(BrokenOff):
        rebuild.rebuild(database.app_url, tags.model, progress=break_off)
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        connection.execute("SELECT log.es_raise_epoch(0::smallint, epoch) FROM log.es_log")
    seen: list[int] = []
    rebuild.rebuild(database.app_url, tags.model, progress=lambda upto, _: seen.append(upto))
    assert seen[0] == 20
    assert builds_of(database.app_url, tags.model) == [("tags_s1_v1", "retired"), ("tags_s1_v2", "live")]


@dataclass(frozen=True, slots=True)
class _CountedRow:
    """A row of a new shape of tags: it also counts how often a tag was moved since it was made."""

    repository: Name
    tag: Name
    digest: Name
    moves: int


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case TagMoved(repository, tag, digest):
            before = rows.get((repository, tag))
            rows[repository, tag] = _CountedRow(repository, tag, digest, 1 if before is None else before.moves + 1)
        case _:
            tags.model.fold(rows, happened)


_SET_FOLD = """
SELECT e.key, e.data->>'tag', e.data->>'digest',
       (SELECT count(*) FROM log.es_event AS m
         WHERE m.log_id = 0 AND m.stream = e.stream AND m.version <= e.version AND m.version > coalesce(
             (SELECT max(d.version) FROM log.es_event AS d
               WHERE d.log_id = 0 AND d.stream = e.stream AND d.type = 'TagDeleted' AND d.version < e.version), 0))
  FROM range_event AS e
 WHERE e.type = 'TagMoved' AND e.is_last
"""
NEXT = Model(
    "tags",
    2,
    table_of(_CountedRow, "tags_s2", ("repository", "tag")),
    _CountedRow,
    tags.model.types,
    tags.model.touched,
    _fold,
    _SET_FOLD,
)


def test_a_new_shape_fills_itself_beside_the_old_one_which_goes_when_nobody_asks(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of both versions work side by side; each reads its own shape, and both are right."""
    url = database.app_url
    random_pushes(registry, 8, 40)
    monkeypatch.setattr(housekeeping, "FILL_EVENTS", 50)
    newer = tuple(NEXT if each is tags.model else each for each in MODELS)
    with projecting(url):
        # The new version starts beside the old one: its shape is there at once, and filled by SQL.
        ensure_tables(url, newer)
        housekeeping.Housekeeping(url, newer, threading.Event())._fill_new()
    # The new version ends last; otherwise housekeeping of the old one would drop the new shape.
    with projecting(url, models=newer), projecting(url):
        random_pushes(registry, 9, 20)
        random_pushes(registry, 10, 10)
        wait_folded(url, registry.head_position())
        with engine_for(url).connect() as connection:
            build = build_tables.live(connection, NEXT)
            assert build.version > 1
            connection.commit()
            runner.advance(connection, build, registry.head_position())
            old = connection.exec_driver_sql("SELECT repository, tag, digest FROM readmodel.tags_s1 ORDER BY 1, 2")
            new = connection.exec_driver_sql("SELECT repository, tag, digest FROM readmodel.tags_s2 ORDER BY 1, 2")
            assert old.all() == new.all() != []
        assert rebuild.rebuild(url, NEXT).mended.equal
        monkeypatch.setattr(housekeeping, "UNASKED_S", 0.0)
        for _ in range(2):
            housekeeping.remove_old(url, newer)
        assert builds_of(url, tags.model), "a process still asks for the old shape"
    for _ in range(2):
        housekeeping.remove_old(url, newer)
    assert builds_of(url, tags.model) == []
    assert builds_of(url, NEXT)
    with engine_for(url).connect() as connection:
        views = connection.exec_driver_sql("SELECT viewname FROM pg_views WHERE schemaname = 'readmodel'").scalars()
        assert not [each for each in views if each.startswith("tags_s1")]
    ensure_tables(url)
    registry.project()
    assert all(each.equal for each in verify(url))


def test_a_model_that_is_far_behind_is_folded_by_sql(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A projector that finds an old log and a new read model does not begin at its first event."""
    monkeypatch.setattr(housekeeping, "FILL_EVENTS", 30)
    random_pushes(registry, 11, 30)
    house = housekeeping.Housekeeping(database.app_url, MODELS, threading.Event())
    assert {each.id for each in house._new_models()} == {each.id for each in MODELS}
    groups: list[int] = []

    def counting(connection: sa.Connection, tables: Sequence[tuple[Model, sa.Table]], *rest: Any) -> int:
        groups.append(len(tables))
        return insert_range(connection, tables, *rest)

    monkeypatch.setattr(fill, "insert_range", counting)
    house._fill_new()
    assert set(groups) == {len(MODELS)}, "the log is read once for all"
    assert house._new_models() == []
    assert all(each.equal for each in verify(database.app_url))


def test_a_fill_that_is_refused_is_tried_again_after_longer_and_longer_pauses(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try reads the whole log, so tries must be rare. The first try fills the other models."""
    monkeypatch.setattr(housekeeping, "FILL_EVENTS", 30)
    random_pushes(registry, 14, 40)
    wrong = replace(tags.model, set_fold=tags.model.set_fold.replace("e.data->>'digest'", "e.data->>'tag'"))
    models = tuple(wrong if each is tags.model else each for each in MODELS)
    now, tries = 1000.0, []

    def counting(url: str, model: Model) -> rebuild.Rebuilt:
        tries.append((now, model.name))
        return rebuild.rebuild(url, model)

    monkeypatch.setattr(rebuild, "COMPARED_LAG_MAX", 10)
    monkeypatch.setattr(housekeeping, "rebuild", counting)
    house = housekeeping.Housekeeping(database.app_url, models, threading.Event(), lambda: now)
    for _ in range(100):
        house._fill_new()
        now += 1.0
    assert sorted(name for _, name in tries if name != "tags") == sorted(
        each.name for each in MODELS if each is not tags.model
    )
    assert [moment for moment, name in tries if name == "tags"] == [1000.0, 1010.0, 1030.0, 1070.0]
    assert [each.name for each in house._new_models()] == ["tags"]


def test_a_fill_that_the_database_breaks_off_is_left_alone_too(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk or a lost connection the log must not be read again each second."""
    monkeypatch.setattr(housekeeping, "FILL_EVENTS", 30)
    random_pushes(registry, 14, 40)
    ends = "SELECT '', '', '', now(), 0 WHERE pg_terminate_backend(pg_backend_pid())"
    broken = replace(tags.model, set_fold=ends)
    house = housekeeping.Housekeeping(database.app_url, (broken,), threading.Event(), lambda: 0.0)
    with pytest.raises(OperationalError, match="terminating connection"):
        house._fill_new()
    house._fill_new()
    assert [each.name for each in house._new_models()] == ["tags"]
