"""Every version of every event type that was ever written is read for ever: there is a stored sample of each."""

from collections.abc import Iterator

import pytest

from domain import event as registry
from domain import events
from domain.event import Event, MalformedEvent, UnknownEvent, decode, encode, event, event_types, upcaster

D = "sha256:" + "a" * 64
U = "u" * 32

SAMPLES: dict[tuple[str, int], tuple[str, Event]] = {
    ("UploadStarted", 1): (f'{{"repository":"a/b","upload":"{U}"}}', events.UploadStarted(U, "a/b")),
    ("UploadStarted", 2): (
        f'{{"digest_algorithm":"sha512","repository":"a/b","started_at":"2026-01-02T03:04:05.678+00:00","upload":"{U}"}}',
        events.UploadStarted(U, "a/b", "sha512", "2026-01-02T03:04:05.678+00:00"),
    ),
    ("ChunkAppended", 1): (
        f'{{"offset":5,"repository":"a/b","size":7,"upload":"{U}"}}',
        events.ChunkAppended(U, "a/b", 5, 7),
    ),
    ("UploadCommitted", 1): (
        f'{{"digest":"{D}","repository":"a/b","size":12,"upload":"{U}"}}',
        events.UploadCommitted(U, "a/b", D, 12),
    ),
    ("UploadCancelled", 1): (f'{{"repository":"a/b","upload":"{U}"}}', events.UploadCancelled(U, "a/b")),
    ("UploadExpired", 1): (f'{{"repository":"a/b","upload":"{U}"}}', events.UploadExpired(U, "a/b")),
    ("BlobCommitted", 1): (f'{{"digest":"{D}","generation":0,"size":12}}', events.BlobCommitted(D, 12, 0)),
    ("BlobLinked", 1): (
        f'{{"digest":"{D}","generation":0,"mounted_from":"c","repository":"a/b","size":12,"source":"mount"}}',
        events.BlobLinked("a/b", D, 12, 0, "mount", "c"),
    ),
    ("BlobUnlinked", 1): (f'{{"digest":"{D}","repository":"a/b"}}', events.BlobUnlinked("a/b", D)),
    ("ManifestPushed", 1): (
        f'{{"digest":"{D}","media_type":"m","repository":"a/b","size":3,"subject":"{D}"}}',
        events.ManifestPushed("a/b", D, "m", 3, D),
    ),
    ("ManifestDeleted", 1): (f'{{"digest":"{D}","repository":"a/b"}}', events.ManifestDeleted("a/b", D)),
    ("TagMoved", 1): (f'{{"digest":"{D}","repository":"a/b","tag":"v1"}}', events.TagMoved("a/b", "v1", D)),
    ("TagDeleted", 1): ('{"repository":"a/b","tag":"v1"}', events.TagDeleted("a/b", "v1")),
    ("RepositoryCreated", 1): ('{"repository":"a/b"}', events.RepositoryCreated("a/b")),
}


@pytest.mark.parametrize("key", SAMPLES, ids=str)
def test_every_version_ever_written_is_read(key: tuple[str, int]) -> None:
    """The stored text gives the event, the event gives the stored text."""
    text, happened = SAMPLES[key]
    assert decode(*key, text) == happened
    if key[1] == happened.written_version:
        assert encode(happened) == text


def test_every_declared_type_has_a_sample() -> None:
    """Adding an event type without a stored sample fails here."""
    assert {(name, cls.SCHEMA_VERSION) for name, cls in event_types().items()} <= set(SAMPLES)


@pytest.mark.parametrize(
    ("name", "version", "data"),
    [
        ("NoSuchEvent", 1, "{}"),
        ("NoSuchEvent", 1, "not JSON"),
        ("TagDeleted", 2, '{"repository":"a","tag":"b"}'),
        ("TagDeleted", 2, '{"repository":"a","tag":"b","more":1}'),
        ("TagDeleted", 2, '["a","b"]'),
        ("TagDeleted", 2, "not JSON"),
        ("TagDeleted", 0, '{"repository":"a","tag":"b"}'),
    ],
)
def test_an_event_that_this_program_does_not_know_stops_its_reader(name: str, version: int, data: str) -> None:
    """A newer program wrote it and can read it, so nothing is wrong with it, whatever its data are."""
    with pytest.raises(UnknownEvent):
        decode(name, version, data)


@pytest.mark.parametrize(
    "data",
    [
        '{"repository":"a"}',
        '{"repository":"a","tag":"b","more":1}',
        '["a","b"]',
        "not JSON",
    ],
)
def test_an_event_that_no_program_could_read_is_told_apart(data: str) -> None:
    """Its type and version are known and its data are wrong: its key is parked, and all others go on."""
    with pytest.raises(MalformedEvent):
        decode("TagDeleted", 1, data)


@pytest.fixture
def undeclared() -> Iterator[None]:
    """Leave the registries as they were."""
    types, steps = dict(registry._TYPES), dict(registry._UPCASTERS)
    yield
    registry._TYPES.clear()
    registry._TYPES.update(types)
    registry._UPCASTERS.clear()
    registry._UPCASTERS.update(steps)


@pytest.mark.usefixtures("undeclared")
def test_old_versions_are_upcast_step_by_step() -> None:
    """Two steps from version 1 to version 3."""

    @event("Probe", version=3)
    class Probe(Event):
        name: str
        size: int
        kind: str

    @upcaster("Probe", from_version=1)
    def one(values: dict[str, object]) -> dict[str, object]:
        return {**values, "size": 0}

    @upcaster("Probe", from_version=2)
    def two(values: dict[str, object]) -> dict[str, object]:
        return {**values, "kind": "old"}

    assert decode("Probe", 1, '{"name":"a"}') == Probe("a", 0, "old")
    assert decode("Probe", 2, '{"name":"a","size":4}') == Probe("a", 4, "old")
    assert decode("Probe", 3, '{"name":"a","size":4,"kind":"new"}') == Probe("a", 4, "new")
