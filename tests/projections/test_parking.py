"""An event that a fold cannot take parks its key, which is told loudly; after a fix the key goes on in order."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from eventstore.feed.waking import Stop
from projections.builds import admin, housekeeping
from projections.builds.verify import verify
from projections.engine import folding, parking
from projections.engine.checkpoints import TRIES
from projections.engine.setup import engine_for
from projections.model import Happened, Model, Rows
from projections.models import tags
from projections.projector import project
from tests.api import Registry
from tests.feed.running import projecting
from tests.folded import wait_folded
from tests.postgres import Database
from tests.projections.making import broken_fold
from tests.waiting import eventually

BAD = "u/bad"
DEADLINE_S = 20.0


def parked_now(database: Database) -> list[parking.Parked]:
    """Wait until something is parked."""
    return list(eventually(lambda: admin.status(database.app_url).parked, DEADLINE_S, "something parked"))


@pytest.mark.parametrize("how", ["raises", "cannot be stored"])
def test_a_poisonous_event_parks_its_key_and_goes_on_in_order_after_the_fix(
    registry: Registry, database: Database, how: str
) -> None:
    """One key of one model is parked from that position on, and all others are folded."""
    registry.push(BAD, "fine", b"1")
    registry.push("u/good", "v1", b"1")
    with broken_fold(how), projecting(database.app_url):
        registry.push(BAD, "boom", b"2")
        poison = registry.rooms.store.read_log(0, 1000, types=["TagMoved"])[-1]
        registry.push(BAD, "later", b"3")
        registry.push("u/good", "v2", b"2")
        found = parked_now(database)
        wait_folded(database.app_url, registry.head_position())
        assert [(each.model, each.key, each.position, each.type) for each in found] == [
            ("tags", BAD, poison.position, "TagMoved")
        ]
        assert registry.get("/v2/u/good/tags/list").get_json()["tags"] == ["v1", "v2"]
        assert sorted(registry.get("/v2/_catalog").get_json()["repositories"]) == [BAD, "u/good"]
        registry.push(BAD, "latest", b"4")
        wait_folded(database.app_url, registry.head_position())
        assert all(each.equal for each in verify(database.app_url))
        with engine_for(database.app_url).connect() as connection:
            rows = connection.exec_driver_sql("SELECT tag FROM readmodel.tags_s1 WHERE repository = 'u/bad'")
            assert rows.scalars().all() == ["fine"], "nothing of the key is folded past what it cannot take"
        if how == "raises":
            answers_503_for_the_key_alone(registry)
        again = list(parking.replay(database.app_url))
        assert [(each.key, each.problem is None) for each in again] == [(BAD, False)]
        assert [each.position for each in admin.status(database.app_url).parked] == [poison.position]
    assert [(each.key, each.problem) for each in parking.replay(database.app_url)] == [(BAD, None)]
    assert admin.status(database.app_url).parked == ()
    assert registry.get(f"/v2/{BAD}/tags/list").get_json()["tags"] == ["boom", "fine", "later", "latest"]
    registry.rooms.reader._tail = False
    assert registry.get(f"/v2/{BAD}/tags/list").get_json()["tags"] == ["boom", "fine", "later", "latest"]
    assert [each.rows for each in verify(database.app_url)] == [0] * 7


def answers_503_for_the_key_alone(registry: Registry) -> None:
    """Check that a GET of the parked key is 503, because the fold raises there too, and that others are answered."""
    for path in (f"/v2/{BAD}/tags/list", f"/v2/{BAD}/manifests/boom"):
        answer: Any = registry.get(path)
        assert answer.status_code == 503
        problem = json.loads(answer.data)["errors"][0]
        assert problem["code"] == "UNAVAILABLE"
        assert problem["detail"]["request_id"] == answer.headers["X-Request-Id"]
        assert answer.headers["Retry-After"]
    assert registry.get(f"/v2/{BAD}/manifests/fine").status_code == 200, "the event says nothing of that tag"
    assert registry.get("/v2/u/good/manifests/v2").status_code == 200
    assert registry.get(f"/api/v1/repositories/{BAD}/history").status_code == 200


@contextmanager
def out_of_order(where: str, fault: Exception) -> Iterator[None]:
    """Raise this fault of the machine during the block where tags are folded, or where their rows are written."""
    whole, write = tags.model.fold, folding._write

    def fold(rows: Rows, happened: Happened) -> None:
        raise fault

    def refuse(connection: Any, model: Model, *rest: Any) -> None:
        if model is tags.model:
            raise fault
        write(connection, model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        if where == "fold":
            object.__setattr__(tags.model, "fold", fold)
        else:
            patch.setattr(folding, "_write", refuse)
        try:
            yield
        finally:
            object.__setattr__(tags.model, "fold", whole)


def ended_by(url: str) -> BaseException | None:
    """Run a projector until it ends by itself; answers its error."""
    stop = Stop()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(project, url, stop)
        try:
            return running.exception(DEADLINE_S)
        finally:
            stop.set()


@pytest.mark.parametrize("where", ["fold", "write"])
@pytest.mark.parametrize("fault", [MemoryError("no memory"), OSError(5, "input/output error")], ids=["memory", "disk"])
def test_a_fault_of_the_machine_stops_the_projector_and_parks_nothing(
    registry: Registry, database: Database, where: str, fault: Exception
) -> None:
    """The process ends and is started again; every repository is folded on from where it was."""
    registry.push("u/app", "v1", b"1")
    with out_of_order(where, fault):
        assert ended_by(database.app_url) is fault
        if where == "fold":
            answer = registry.get("/v2/u/app/tags/list")
            assert answer.status_code == (503 if isinstance(fault, MemoryError) else 500)
            assert "repository" not in json.loads(answer.data)["errors"][0]["message"], "it is not to blame"
    assert admin.status(database.app_url).parked == ()
    registry.project()
    assert [each.rows for each in verify(database.app_url)] == [0] * 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_machine_beside_the_folding_stops_the_projector_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that goes on without its housekeeping would look healthy."""
    fault = MemoryError("no memory")

    def out_of_memory(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(housekeeping, "remove_old", out_of_memory)
    assert ended_by(database.app_url) is fault


def only_behind(database: Database) -> list[str]:
    """The name of the one model that is behind the log; none while more are behind."""
    behind = [each.name for each in admin.status(database.app_url).builds if each.lag]
    return behind if len(behind) < 2 else []


def test_a_defect_of_the_projector_itself_parks_nothing(registry: Registry, database: Database) -> None:
    """The build whose step fails is tried again and again, and the others go on."""
    registry.push("u/app", "v1", b"1")
    write, tries = folding._write, [0]

    def defective(connection: Any, model: Model, *rest: Any) -> None:
        if model is tags.model:
            tries[0] += 1
            raise AttributeError("a name that nobody has given")
        write(connection, model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "_write", defective)
        with projecting(database.app_url):
            eventually(lambda: tries[0] > TRIES, DEADLINE_S, "one try more than parks a key")
            behind = eventually(lambda: only_behind(database), DEADLINE_S, "the others to be level")
    assert admin.status(database.app_url).parked == ()
    assert behind == ["tags"]
    registry.project()
    assert [each.rows for each in verify(database.app_url)] == [0] * 7


def test_a_fold_that_fails_once_is_tried_again_and_nothing_is_parked(registry: Registry, database: Database) -> None:
    """An event that the fold lacked may only have been late."""
    whole = tags.model.fold
    failures = iter([True, True])

    def fold(rows: Rows, happened: Happened) -> None:
        if next(failures, False):
            raise RuntimeError("not yet")
        whole(rows, happened)

    registry.push("u/app", "v1", b"1")
    object.__setattr__(tags.model, "fold", fold)
    try:
        with projecting(database.app_url):
            wait_folded(database.app_url, registry.head_position())
    finally:
        object.__setattr__(tags.model, "fold", whole)
    assert admin.status(database.app_url).parked == ()
    assert all(each.equal for each in verify(database.app_url))


def test_replaying_a_long_history_goes_in_steps(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a transaction of its own, and the events stay in order."""
    monkeypatch.setattr(parking, "BATCH_EVENTS", 2)
    with broken_fold("raises"), projecting(database.app_url):
        registry.push(BAD, "boom", b"1")
        for number in range(7):
            registry.push(BAD, f"t{number}", bytes([number]))
        parked_now(database)
        wait_folded(database.app_url, registry.head_position())
    (replayed,) = parking.replay(database.app_url)
    assert (replayed.events, replayed.problem) == (8, None)
    assert [each.rows for each in verify(database.app_url)] == [0] * 7
