"""Upkeep: expiry by inactivity, orphans, old idempotency keys; time moved by freezegun."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from command_api import upkeep
from domain.names import UploadId
from eventstore.types import Content
from tests.api import Registry, codes

IGNORED = ["psycopg", "psycopg_pool", "queue", "threading", "concurrent"]
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def now() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands until it is moved."""
    with freeze_time(START, ignore=IGNORED) as frozen:
        assert isinstance(frozen, FrozenDateTimeFactory)
        yield frozen


def test_a_session_expires_by_inactivity_not_by_age(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """U10: each chunk starts the time anew; then 404, the bytes gone, an event in the log."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    for _ in range(3):
        now.tick(timedelta(hours=23))
        assert registry.patch(location, data=b"x").status_code == 202
        assert upkeep.sweep(registry.rooms.commands).uploads_expired == 0
    now.tick(timedelta(hours=25))
    assert upkeep.sweep(registry.rooms.commands).uploads_expired == 1
    assert codes(registry.get(location)) == ["BLOB_UPLOAD_UNKNOWN"]
    assert list((registry.rooms.settings.data / "uploads").iterdir()) == []
    last = registry.rooms.store.read_log(registry.head_position() - 1, 1)[0]
    assert (last.type, last.actor, last.recorded_at) == ("UploadExpired", "tagtrail", START + timedelta(hours=94))
    assert upkeep.sweep(registry.rooms.commands).uploads_expired == 0


def test_a_closing_put_may_be_repeated_for_a_while(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """201 within the expiry, 404 after it."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert registry.put(f"{location}?digest={digest}").status_code == 201
    now.tick(timedelta(hours=23))
    assert registry.put(f"{location}?digest={digest}").status_code == 201
    now.tick(timedelta(hours=2))
    assert registry.put(f"{location}?digest={digest}").status_code == 404


def test_what_crashes_leave_is_swept(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """A staging file without a session, and content that no event names; open sessions keep theirs."""
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    registry.rooms.commands.blobs.create(UploadId("a" * 32))
    uploads = registry.rooms.settings.data / "uploads"
    for each in uploads.iterdir():
        os.utime(each, (START.timestamp(), START.timestamp()))
    registry.rooms.store.put_content(Content("sha256:" + "b" * 64, b"{}", "{}"))
    registry.push("u/app", "v1", b"layer")
    now.tick(timedelta(hours=23))
    registry.patch(location, data=b"x")
    now.tick(timedelta(hours=2))
    os.utime(uploads / location.rpartition("/")[2], (START.timestamp(), START.timestamp()))
    swept = upkeep.sweep(registry.rooms.commands)
    assert (swept.files_discarded, swept.uploads_expired, swept.content_swept) == (1, 0, 1)
    assert [each.name for each in uploads.iterdir()] == [location.rpartition("/")[2]]
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200


def test_old_idempotency_keys_are_forgotten(registry: Registry, now: FrozenDateTimeFactory) -> None:
    """After 72 hours; the events stay."""
    registry.push("u/app", "v1", b"layer")
    now.tick(timedelta(hours=73))
    assert upkeep.sweep(registry.rooms.commands).commands_forgotten > 0
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200
