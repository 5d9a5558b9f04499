"""The share of a push that stands in the history, and that in the log of uploads, also during an upgrade."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from domain.features import HANDLED, UPLOADS_LOG
from domain.media_types import OCI_MANIFEST
from eventstore import schema, verify
from eventstore.feed.members import Member, Membership
from eventstore.types import HISTORY, UPLOADS, SchemaOutdated
from tests.api import Registry, image, registry_over, sha256
from tests.postgres import Database
from tests.sessions import happened_to, upload_of
from tests.waiting import eventually

OPENING = "/v2/u/app/blobs/uploads/"
LAYER = b"a layer"
CONFIG = b"{}"


@pytest.fixture
def second(database: Database, tmp_path: Path) -> Iterator[Registry]:
    """Another process over the same database and data folder."""
    with registry_over(database, tmp_path) as made:
        yield made


@contextmanager
def living(database: Database, kind: str) -> Iterator[None]:
    """A process of this kind that knows no log of uploads."""
    old = Membership(database.app_url, Member(kind, features=HANDLED[kind] - {UPLOADS_LOG})).start()
    try:
        eventually(lambda: old.refusal is None)
        yield
    finally:
        old.close()


def upload(registry: Registry, data: bytes) -> str:
    """An upload as docker does it: opened, one chunk, closed. Answers where its session was."""
    location = registry.post(OPENING).headers["Location"]
    assert registry.patch(location, data=data).status_code == 202
    assert registry.put(f"{location}?digest={sha256(data)}").status_code == 201
    return location


def types(registry: Registry, log: int) -> list[str]:
    return [each.type for each in registry.rooms.store.read_log(0, 1000, log=log)]


def logs_of(registry: Registry, location: str) -> set[int]:
    """The logs that have something of a session."""
    stream = f"upload-{upload_of(location)}"
    return {
        log
        for log in (HISTORY, UPLOADS)
        if any(each.stream == stream for each in registry.rooms.store.read_log(0, 1000, log=log))
    }


def test_the_history_of_an_image_is_without_its_uploads(registry: Registry, database: Database) -> None:
    """An image of one layer has seven events, however its bytes came."""
    for data in (LAYER, CONFIG):
        upload(registry, data)
    assert registry.manifest("u/app", "v1", image(CONFIG, LAYER), OCI_MANIFEST).status_code == 201
    blob = ["BlobCommitted", "BlobLinked"]
    assert types(registry, HISTORY) == ["RepositoryCreated", *blob, *blob, "ManifestPushed", "TagMoved"]
    assert types(registry, UPLOADS) == ["UploadStarted", "ChunkAppended", "UploadCommitted"] * 2
    assert verify.verify(database.app_url) == []


@pytest.mark.parametrize("kind", ["api", "projector", "keeper", "relay"])
def test_sessions_go_to_the_history_while_a_process_knows_no_other_log(
    registry: Registry, second: Registry, database: Database, kind: str
) -> None:
    """Sessions that began there end there; then none begins there, and such a process is refused."""
    with living(database, kind):
        begun = registry.post(OPENING).headers["Location"]
        assert registry.patch(begun, data=b"12345").status_code == 202
        assert logs_of(registry, upload(second, LAYER)) == {HISTORY}
    eventually(lambda: logs_of(second, upload(second, b"later")) == {UPLOADS})
    assert second.patch(begun, data=b"678").status_code == 202
    assert registry.get(begun).headers["Range"] == "0-7"
    assert registry.put(f"{begun}?digest={sha256(b'12345678')}").status_code == 201
    assert [each.type for each in happened_to(registry.rooms.store, upload_of(begun))] == [
        *("UploadStarted", "ChunkAppended", "ChunkAppended", "UploadCommitted")
    ]
    assert logs_of(registry, begun) == {HISTORY}
    # The answer may have been lost.
    assert second.put(f"{begun}?digest={sha256(b'12345678')}").status_code == 201
    with pytest.raises(SchemaOutdated, match=f"the log uses uploads-log, which this {kind} does not know"):
        schema.check(database.app_url, {kind: HANDLED[kind] - {UPLOADS_LOG}})
    assert verify.verify(database.app_url) == []


def test_a_session_that_ended_in_either_log_is_not_new_in_the_other(
    registry: Registry, second: Registry, database: Database
) -> None:
    """Its id is genuine and young, and it has no bytes: the log that has it must be asked."""
    with living(database, "keeper"):
        before = registry.post(OPENING).headers["Location"]
        assert registry.delete(before).status_code == 204
        assert logs_of(registry, before) == {HISTORY}
    eventually(lambda: logs_of(second, upload(second, b"later")) == {UPLOADS})
    after = second.post(OPENING).headers["Location"]
    assert second.delete(after).status_code == 204
    assert logs_of(second, after) == {UPLOADS}
    for process in (registry, second):
        for location in (before, after):
            assert process.patch(location, data=b"more").status_code == 404
            assert process.put(f"{location}?digest={sha256(b'more')}", data=b"more").status_code == 404
    assert [logs_of(registry, each) for each in (before, after)] == [{HISTORY}, {UPLOADS}]


def test_a_chunk_is_taken_while_the_history_is_held(registry: Registry, database: Database) -> None:
    """A session's own events wait for no push."""
    location = registry.post(OPENING).headers["Location"]
    with psycopg.connect(database.app_url) as holding:
        holding.execute("SELECT pg_advisory_xact_lock(4711, 0)")
        assert registry.patch(location, data=LAYER).status_code == 202
    assert registry.put(f"{location}?digest={sha256(LAYER)}").status_code == 201
