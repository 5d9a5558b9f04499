"""Upkeep: uploads expire by inactivity; leftovers, old idempotency keys and addresses go. Freezegun moves the time."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from domain.names import UploadId
from eventstore import verify
from eventstore.types import Content
from eventstore.upkeep import Step, Upkeep
from tagtrail.keeping import tasks
from tests.api import Registry, codes, registry_over, sha256
from tests.postgres import Database
from tests.sessions import happened_to, upload_of
from tests.upkeep import keep_once

IGNORED = ["psycopg", "psycopg_pool", "queue", "threading", "concurrent"]
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def now() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands until it is moved."""
    with freeze_time(START, ignore=IGNORED) as frozen:
        assert isinstance(frozen, FrozenDateTimeFactory)
        yield frozen


def test_a_session_expires_by_inactivity_not_by_age(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """Each chunk starts the time anew. After it the session is 404, its bytes are gone, and the log has an event."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    for _ in range(3):
        now.tick(timedelta(hours=23))
        assert registry.patch(location, data=b"x").status_code == 202
        assert keep_once(registry.rooms)["expire-uploads"] == 0
    now.tick(timedelta(hours=25))
    assert keep_once(registry.rooms)["expire-uploads"] == 1
    assert codes(registry.get(location)) == ["BLOB_UPLOAD_UNKNOWN"]
    assert list((registry.rooms.settings.data / "uploads").iterdir()) == []
    last = happened_to(registry.rooms.store, upload_of(location))[-1]
    assert (last.type, last.actor, last.recorded_at) == ("UploadExpired", "tagtrail", START + timedelta(hours=94))
    assert keep_once(registry.rooms)["expire-uploads"] == 0


def test_sessions_are_forgotten_after_their_days(
    registry: Registry, database: Database, now: FrozenDateTimeFactory
) -> None:
    """An idle one is ended first; its rows go a day later, when its end need not be told any more."""
    store = registry.rooms.store
    registry.blob("u/app", b"pushed")
    left, done = (registry.post("/v2/u/app/blobs/uploads/").headers["Location"] for _ in range(2))
    assert [registry.patch(each, data=b"x").status_code for each in (left, done)] == [202, 202]
    assert registry.put(f"{done}?digest={sha256(b'x')}").status_code == 201
    now.tick(timedelta(days=8))
    assert keep_once(registry.rooms)["drop-upload-log"] == 0
    assert [each.type for each in happened_to(store, upload_of(left))][-1] == "UploadExpired"
    now.tick(timedelta(days=2))
    assert keep_once(registry.rooms)["drop-upload-log"] == 1
    assert [store.session_state(f"upload-{upload_of(each)}").version for each in (left, done)] == [0, 0]
    assert codes(registry.patch(left, data=b"x")) == codes(registry.patch(done, data=b"x")) == ["BLOB_UPLOAD_UNKNOWN"]
    assert registry.head(f"/v2/u/app/blobs/{sha256(b'pushed')}").status_code == 200
    assert registry.head(f"/v2/u/app/blobs/{sha256(b'x')}").status_code == 200
    assert verify.verify(database.app_url) == []


def test_a_drop_waits_until_idle_sessions_have_ended_a_slice_at_a_time(
    registry: Registry, now: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper turns to other tasks in between."""
    monkeypatch.setattr("command_api.uploads.upkeep.SESSIONS_SLICE", 1)
    for _ in range(2):
        location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
        assert registry.patch(location, data=b"x").status_code == 202
    now.tick(timedelta(days=8))
    with closing(Upkeep(registry.rooms.settings.database_url, lambda: datetime.now(UTC))) as upkeep:
        (task,) = (
            each
            for each in tasks(registry.rooms.settings, registry.rooms.store, upkeep)
            if each.name == "drop-upload-log"
        )
        assert [task.step() for _ in range(3)] == [Step(0, more=True), Step(0, more=True), Step(0)]


def test_sessions_are_kept_for_ever_if_so_told(database: Database, tmp_path: Path, now: FrozenDateTimeFactory) -> None:
    with registry_over(database, tmp_path, upload_log_days=0) as registry:
        location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
        assert registry.delete(location).status_code == 204
        for _ in range(2):
            now.tick(timedelta(days=400))
            assert keep_once(registry.rooms)["drop-upload-log"] == 0
        assert len(happened_to(registry.rooms.store, upload_of(location))) == 2


def test_bytes_that_cannot_be_removed_keep_no_session_open(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """Both sessions expire although the staged bytes of one are a folder; the other's are gone."""
    locations = [registry.post("/v2/u/app/blobs/uploads/").headers["Location"] for _ in range(2)]
    assert [registry.patch(each, data=b"x").status_code for each in locations] == [202, 202]
    uploads = registry.rooms.settings.data / "uploads"
    stuck = uploads / upload_of(locations[0])
    stuck.unlink()
    stuck.mkdir()
    now.tick(timedelta(hours=25))
    assert keep_once(registry.rooms)["expire-uploads"] == 2
    assert [codes(registry.get(each)) for each in locations] == [["BLOB_UPLOAD_UNKNOWN"]] * 2
    assert list(uploads.iterdir()) == [stuck]


def test_a_closing_put_may_be_repeated_for_a_while(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """It is answered 201 until the session would have expired, and 404 after that."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert registry.put(f"{location}?digest={digest}").status_code == 201
    now.tick(timedelta(hours=23))
    assert registry.put(f"{location}?digest={digest}").status_code == 201
    now.tick(timedelta(hours=2))
    assert registry.put(f"{location}?digest={digest}").status_code == 404


def test_leftovers_of_crashes_are_swept(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """A staging file without a session, and content that no event names; open sessions keep theirs."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    registry.patch(location, data=b"x")
    registry.rooms.commands.blobs.create(UploadId("a" * 32))
    uploads = registry.rooms.settings.data / "uploads"
    for each in uploads.iterdir():
        os.utime(each, (START.timestamp(), START.timestamp()))
    registry.rooms.store.put_content(Content("sha256:" + "b" * 64, b"{}", "{}"))
    registry.push("u/app", "v1", b"layer")
    now.tick(timedelta(hours=23))
    registry.patch(location, data=b"x")
    assert keep_once(registry.rooms)["sweep-content"] == 0
    now.tick(timedelta(hours=2))
    os.utime(uploads / upload_of(location), (START.timestamp(), START.timestamp()))
    removed = keep_once(registry.rooms)
    assert (removed["discard-staging"], removed["expire-uploads"], removed["sweep-content"]) == (1, 0, 1)
    assert [each.name for each in uploads.iterdir()] == [upload_of(location)]
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200


def test_a_manifest_that_was_swept_may_be_pushed(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """Content that an earlier, broken-off push left was deleted, then comes again and stays."""
    body = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    digest = sha256(body)
    registry.rooms.store.put_content(Content(digest, body, "{}"))
    now.tick(timedelta(hours=25))
    assert keep_once(registry.rooms)["sweep-content"] == 1
    answer = registry.manifest("u/app", "v1", body, "application/vnd.oci.image.index.v1+json")
    assert answer.status_code == 201
    now.tick(timedelta(hours=25))
    assert keep_once(registry.rooms)["sweep-content"] == 0
    assert registry.get("/v2/u/app/manifests/v1").data == body


def test_old_idempotency_keys_are_forgotten(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """They are kept for 72 hours and gone after eight days; the events stay."""
    registry.push("u/app", "v1", b"layer")
    now.tick(timedelta(hours=72))
    assert keep_once(registry.rooms)["forget-commands"] == 0
    now.tick(timedelta(days=5))
    assert keep_once(registry.rooms)["forget-commands"] == 1
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200


def test_addresses_are_erased_after_their_days(
    registry: Registry, database: Database, now: FrozenDateTimeFactory
) -> None:
    """They are erased after 90 days, or as the option says; later ones stay."""

    def addresses() -> int:
        with psycopg.connect(database.app_url) as connection:
            row = connection.execute("SELECT count(*) FROM log.es_client WHERE address = '192.0.2.1'").fetchone()
        assert row is not None
        return int(row[0])

    client = {"REMOTE_ADDR": "192.0.2.1"}
    registry.post(f"/v2/u/app/blobs/uploads/?digest={sha256(b'x')}", data=b"x", environ_base=client)
    now.tick(timedelta(days=89))
    registry.post(f"/v2/u/app/blobs/uploads/?digest={sha256(b'y')}", data=b"y", environ_base=client)
    assert keep_once(registry.rooms)["erase-addresses"] == 0
    assert addresses() == 2
    now.tick(timedelta(days=2))
    assert keep_once(registry.rooms)["erase-addresses"] == 1
    assert addresses() == 1
