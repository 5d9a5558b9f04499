"""Read models give the same answers, however far they have folded and whatever feeds them."""

import random
import threading
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.event import UnknownEvent
from domain.media_types import OCI_MANIFEST
from projections.all_models import MODELS, UnknownModel, models_named
from projections.builds import admin
from projections.builds.rebuild import rebuild
from projections.builds.verify import verify
from projections.engine import build_tables, runner
from projections.engine.setup import engine_for, ensure_tables
from projections.projector import project
from tests.api import Registry, sha256
from tests.folded import wait_folded
from tests.postgres import Database

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "tag", "delete tag", "delete manifest", "unlink", "project", "step"]),
        st.sampled_from(["a", "b/c"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


def answers(registry: Registry) -> dict[str, Any]:
    """The answers to every GET about the repositories that the tests use."""
    found: dict[str, Any] = {"catalog": registry.get("/v2/_catalog").json}
    for name in ("a", "b/c"):
        paths = [f"/v2/{name}/tags/list", f"/api/v1/repositories/{name}/history?n=1000"]
        paths += [f"/v2/{name}/manifests/t{number}" for number in range(4)]
        paths += [f"/v2/{name}/blobs/{sha256(f'layer{number}'.encode())}" for number in range(4)]
        for path in paths:
            answer = registry.get(path)
            found[path] = (answer.status_code, answer.data if answer.status_code == 200 else None)
    for number in range(4):
        path = f"/api/v1/blobs/{sha256(f'layer{number}'.encode())}/references"
        answer = registry.get(path)
        found[path] = (answer.status_code, answer.data if answer.status_code == 200 else None)
    return found


def live(connection: sa.Connection, number: int) -> build_tables.Build:
    """The live build of a model, given its number."""
    found = build_tables.live(connection, MODELS[number])
    connection.commit()
    return found


def step(registry: Registry, url: str, what: str, name: str, number: int) -> None:
    """Do one random thing to the registry; a refusal is as good as a success."""
    layer = f"layer{number}".encode()
    if what == "push":
        registry.push(name, f"t{number}", layer)
    elif what == "tag":
        got = registry.get(f"/v2/{name}/manifests/t{number}")
        if got.status_code == 200:
            registry.manifest(name, f"t{(number + 1) % 4}", got.data)
    elif what == "delete tag":
        registry.delete(f"/v2/{name}/manifests/t{number}")
    elif what == "delete manifest":
        got = registry.head(f"/v2/{name}/manifests/t{number}")
        if got.status_code == 200:
            registry.delete(f"/v2/{name}/manifests/{got.headers['Docker-Content-Digest']}")
    elif what == "unlink":
        registry.delete(f"/v2/{name}/blobs/{sha256(layer)}")
    elif what == "step":
        # Models move at their own pace: a random one goes a little further.
        with engine_for(url).connect() as connection:
            runner.advance(connection, live(connection, number), registry.head_position(), batch=3)
    else:
        registry.project()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_history_gives_the_same_answers_however_far_each_model_is(
    registry: Registry, database: Database, steps: list[tuple[str, str, int]]
) -> None:
    """Answers with a tail equal those of folded rows and those of a fold from nothing. Examples share a growing log."""
    for what, name, number in steps:
        step(registry, database.app_url, what, name, number)
    overlaid = answers(registry)
    registry.project()
    assert answers(registry) == overlaid
    registry.rooms.reader._tail = False
    try:
        assert answers(registry) == overlaid
    finally:
        registry.rooms.reader._tail = True
    assert [each.name for each in verify(database.app_url) if not each.equal] == []


@pytest.fixture
def full(registry: Registry, database: Database) -> str:
    """The URL of a database whose read models hold something."""
    for number in range(4):
        registry.push("u/app", f"t{number}", b"layer")
    registry.project()
    return database.app_url


TAMPERED = {
    "catalog": "UPDATE readmodel.catalog_s1 SET manifests = 99",
    "tags": "UPDATE readmodel.tags_s1 SET digest = 'x' WHERE tag = 't1'",
    "manifests": "DELETE FROM readmodel.manifests_s2",
    "referrers": "INSERT INTO readmodel.referrers_s3 VALUES ('r', 'd', 's', 'm', 1, NULL, '{}')",
    "links": "DELETE FROM readmodel.links_s1",
    "blob_references": "DELETE FROM readmodel.blob_references_s1 WHERE role = 'layer'",
    "audit": "UPDATE readmodel.audit_s2 SET actor = 'someone'",
}


@pytest.mark.parametrize("name", [each.name for each in MODELS])
def test_verify_finds_what_was_tampered_with_and_rebuild_mends_it(registry: Registry, full: str, name: str) -> None:
    """Verify names the model and rows of it; all others are equal."""
    with psycopg.connect(full, autocommit=True) as connection:
        connection.execute(TAMPERED[name])
    differing = [each for each in verify(full) if not each.equal]
    assert [each.name for each in differing] == [name]
    assert differing[0].samples
    done = rebuild(full, models_named(name)[0])
    assert (done.name, done.position) == (name, registry.head_position())
    assert done.mended.rows == differing[0].rows > 0
    assert all(each.equal for each in verify(full))


def test_both_folds_write_annotations_alike_whatever_is_in_them(registry: Registry, database: Database) -> None:
    """They hold quotes, control characters, text beyond ASCII and beyond 16 bits, and keys that locales sort apart."""
    subject = registry.push("u/app", "t", b"layer")
    odd = {"é": 'a"b\\c', "z": "\n\t\x01\x7f\u2028", "a": "🐘", "B": "</script>", "": "", "ab": "/"}
    descriptor = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    registry.push("u/app", "r", b"layer", subject=descriptor, annotations=odd)
    registry.project()
    assert all(each.equal for each in verify(database.app_url))
    (listed,) = registry.get(f"/v2/u/app/referrers/{subject}").get_json()["manifests"]
    assert listed["annotations"] == odd
    assert rebuild(database.app_url, models_named("referrers")[0]).mended.equal


def test_reads_stay_right_while_a_model_is_rebuilt(registry: Registry, full: str) -> None:
    """Readers see the old rows until the new ones are there."""
    done = threading.Event()
    found: set[tuple[int, int]] = set()

    def read() -> None:
        while not done.is_set():
            answer = registry.get("/v2/u/app/tags/list")
            found.add((answer.status_code, len(answer.get_json()["tags"])))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            for model in MODELS:
                rebuild(full, model)
    finally:
        done.set()
        reader.join()
    assert found == {(200, 4)}


def test_two_projectors_leave_right_rows(registry: Registry, database: Database) -> None:
    """The later one finds the work done."""
    stop = threading.Event()
    threads = [threading.Thread(target=project, args=(database.app_url, stop), kwargs={"batch": 7}) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        for number in range(20):
            registry.push("u/app", f"t{number % 5}", str(number).encode())
        wait_folded(database.app_url, registry.head_position())
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert all(each.equal for each in verify(database.app_url))


def test_a_write_is_seen_by_the_next_read_while_projectors_run(registry: Registry, database: Database) -> None:
    """Tags move while a projector folds them; each read sees the move that was just acknowledged."""
    stop = threading.Event()
    projector = threading.Thread(target=project, args=(database.app_url, stop), kwargs={"batch": 2})
    bodies = [registry.get(f"/v2/u/app/manifests/{registry.push('u/app', f'm{n}', bytes([n]))}").data for n in range(2)]
    projector.start()
    chance = random.Random(7)
    try:
        for _ in range(300):
            body = chance.choice(bodies)
            assert registry.manifest("u/app", "moving", body).status_code == 201
            assert registry.get("/v2/u/app/manifests/moving").data == body
            assert registry.delete("/v2/u/app/manifests/moving").status_code == 202
            assert registry.get("/v2/u/app/manifests/moving").status_code == 404
            assert "moving" not in registry.get("/v2/u/app/tags/list").get_json()["tags"]
    finally:
        stop.set()
        projector.join()


def test_an_unknown_event_stops_a_model(registry: Registry, full: str, database: Database) -> None:
    """It is never skipped: the checkpoint stays before it."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO log.es_event SELECT position + 1, recorded_at, 1, log_id, partition, 1, false,"
            " gen_random_uuid(), 'future', key, 'FutureEvent', actor, request_id, NULL, NULL, NULL, NULL, NULL, '{}'"
            " FROM log.es_event ORDER BY position DESC LIMIT 1"
        )
    head = registry.head_position()
    with engine_for(full).connect() as connection, pytest.raises(UnknownEvent, match="FutureEvent"):
        runner.advance(connection, live(connection, 0), head)
    assert admin.status(full).models[0].lag == 1


def test_a_projector_waits_longer_for_company_while_much_comes() -> None:
    """A single push is folded soon; a busy projector gathers the events of a second before it folds."""
    assert [runner.gather_s(events) for events in (0, 27, 50, 51, 2000)] == [0.2, 0.2, 0.2, 1.0, 1.0]


def test_an_unknown_model_is_named() -> None:
    """The error lists the models that there are."""
    with pytest.raises(UnknownModel, match="tags"):
        models_named("tgas")


def test_tables_are_made_once_by_many(database: Database) -> None:
    """Any number of processes may start at the same time."""
    threads = [threading.Thread(target=ensure_tables, args=(database.app_url,)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with engine_for(database.app_url).connect() as connection:
        count = connection.execute(sa.text("SELECT count(*) FROM readmodel.checkpoint")).scalar_one()
    assert count == 16 * len(MODELS)
