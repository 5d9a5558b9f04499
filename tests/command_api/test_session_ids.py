"""Upload sessions whose id is all that was made of them: nothing is written before the first thing happens."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from werkzeug.wrappers import Response

from command_api.uploads import requests as uploads
from command_api.uploads.finding import ASK_FIRST_BYTES
from command_api.uploads.seal_keys import SealKeys
from command_api.uploads.sessions import Sessions
from domain.event import decode
from domain.features import HANDLED, SESSION_IDS
from domain.streams import upload_stream
from domain.upload import UploadStarted
from eventstore import schema
from eventstore.feed.members import Member, Membership
from eventstore.reader import Reader
from eventstore.store import Store
from eventstore.types import Command, Outcome, Recorded, SchemaOutdated, StoreUnavailable
from eventstore.upkeep import Upkeep
from protocol.errors import WireError
from protocol.messages import Request
from protocol.routes import parse_path
from tests.api import Registry, codes, sha256
from tests.postgres import Database
from tests.sessions import happened_to, upload_of
from tests.upkeep import keep_once
from tests.waiting import eventually

UPLOADS = "/v2/u/app/blobs/uploads/"
DATA = b"all the bytes"
PUT = f"?digest={sha256(DATA)}"
VERBS = ("GET", "HEAD", "PATCH", "PUT", "DELETE")
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.fixture
def now() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands until it is moved."""
    with freeze_time(START, ignore=["psycopg", "psycopg_pool", "queue", "threading", "concurrent"]) as frozen:
        assert isinstance(frozen, FrozenDateTimeFactory)
        yield frozen


def opened(registry: Registry, query: str = "") -> str:
    answer = registry.post(UPLOADS + query)
    assert (answer.status_code, answer.headers["Range"]) == (202, "0-0")
    assert answer.headers["Location"] == UPLOADS + answer.headers["Docker-Upload-UUID"]
    return answer.headers["Location"]


def ask(registry: Registry, method: str, location: str, data: bytes = DATA) -> Response:
    """Any request of a session, with what that method brings."""
    query = {"digest": sha256(data)} if method == "PUT" else {}
    return registry.open(location, method=method, query_string=query, data=data if method in ("PATCH", "PUT") else b"")


def events(registry: Registry, location: str) -> list[Recorded]:
    return happened_to(registry.rooms.store, upload_of(location))


def types(registry: Registry, location: str) -> list[str]:
    return [each.type for each in events(registry, location)]


def staged(registry: Registry) -> list[str]:
    """The names of the files in the folder of uploads."""
    return [each.name for each in (registry.rooms.settings.data / "uploads").iterdir()]


def rotate(registry: Registry, *, kept: timedelta = DAY) -> None:
    """Make a new key; those replaced longer ago than `kept` go."""
    upkeep = Upkeep(registry.rooms.settings.database_url, registry.rooms.commands.clock)
    try:
        before = registry.rooms.store.seal_keys()[-1].id
        upkeep.rotate_seal_keys(timedelta(seconds=-1), kept)
        assert registry.rooms.store.seal_keys()[-1].id == before + 1
    finally:
        upkeep.close()


def test_a_session_is_opened_without_a_write_or_a_question(first: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor an event, once the process has read the keys and seen that such ids may be given out."""
    opened(first)
    monkeypatch.setattr(Reader, "rows", Mock(side_effect=AssertionError("asked")))
    monkeypatch.setattr(Store, "append", Mock(side_effect=AssertionError("appended")))
    locations = {opened(first) for _ in range(3)}
    assert len(locations) == 3
    monkeypatch.undo()
    assert first.heads() == (0, 0)
    assert staged(first) == []


@pytest.mark.parametrize(
    ("methods", "appended"),
    [
        (["PUT"], [["UploadStarted", "UploadCommitted", "RepositoryCreated", "BlobCommitted", "BlobLinked"]]),
        (
            ["PATCH", "PUT"],
            [
                ["UploadStarted", "ChunkAppended"],
                ["UploadCommitted", "RepositoryCreated", "BlobCommitted", "BlobLinked"],
            ],
        ),
        (["DELETE"], [["UploadStarted", "UploadCancelled"]]),
        (["PATCH", "DELETE"], [["UploadStarted", "ChunkAppended"], ["UploadCancelled"]]),
    ],
)
def test_the_start_is_appended_with_the_first_thing_that_happens(
    first: Registry, monkeypatch: pytest.MonkeyPatch, methods: list[str], appended: list[list[str]]
) -> None:
    """One append a request, and no question to the log on the way of a push."""
    location = opened(first)
    seen: list[list[str]] = []
    real = Store.append

    def append(store: Store, command: Command) -> Outcome:
        seen.append([each.type for each in command.events])
        return real(store, command)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", append)
        if "DELETE" not in methods:
            for question in ("stream_states", "session_states"):
                patch.setattr(Store, question, Mock(side_effect=AssertionError("asked")))
        for method in methods:
            rest = b"" if method == "PUT" and "PATCH" in methods else DATA
            query = {"digest": sha256(DATA)} if method == "PUT" else {}
            assert first.open(location, method=method, query_string=query, data=rest).status_code < 300
    assert seen == appended
    assert staged(first) == []
    if "PUT" in methods:
        assert first.get(f"/v2/u/app/blobs/{sha256(DATA)}").data == DATA


def test_the_start_says_when_the_client_was_answered(first: Registry, now: FrozenDateTimeFactory) -> None:
    location = opened(first, "?digest-algorithm=sha512")
    now.tick(timedelta(hours=2))
    assert ask(first, "PATCH", location).status_code == 202
    started, _ = events(first, location)
    assert decode(started.type, started.schema_version, started.data) == UploadStarted(
        upload_of(location), "u/app", "sha512", "2026-01-01T00:00:00.000+00:00"
    )
    assert started.recorded_at == START + timedelta(hours=2)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_session_without_an_event_says_that_it_has_nothing(first: Registry, second: Registry, method: str) -> None:
    location = opened(first)
    answer = second.open(location, method=method)
    assert (answer.status_code, answer.headers["Range"]) == (204, "0-0")
    assert (answer.headers["Location"], answer.headers["Docker-Upload-UUID"]) == (location, location[len(UPLOADS) :])


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({"Content-Range": "5-7"}, b"678", 416),
        ({"Content-Range": "9223372036854775807-9223372036854775808"}, b"678", 416),
        ({"Content-Range": "0-7"}, b"678", 400),
        ({"Content-Range": "7-5"}, b"678", 416),
        ({"Content-Range": "x"}, b"678", 416),
    ],
)
def test_a_first_chunk_that_is_refused_leaves_nothing(
    first: Registry, method: str, headers: dict[str, str], data: bytes, status: int
) -> None:
    """Neither an event nor an empty file, of which there would be one for each such request."""
    location = opened(first)
    query = {"digest": sha256(data)} if method == "PUT" else {}
    answer = first.open(location, method=method, query_string=query, data=data, headers=headers)
    assert answer.status_code == status, answer.data
    assert first.head_position() == 0
    assert staged(first) == []
    assert ask(first, method, location).status_code < 300, "the session stands as it stood"


@pytest.mark.parametrize("end", ["PUT", "DELETE"])
@pytest.mark.parametrize("begun", [False, True])
def test_what_has_ended_stays_ended_for_every_process(first: Registry, second: Registry, end: str, begun: bool) -> None:
    """The id is as genuine as before, and nothing of it may happen again."""
    location = opened(first)
    if begun:
        assert ask(second, "PATCH", location).status_code == 202
    ended = first.put(location + PUT, data=b"" if begun else DATA) if end == "PUT" else first.delete(location)
    assert ended.status_code == (201 if end == "PUT" else 204)
    before = types(first, location)
    for process in (second, first):
        for method in VERBS:
            other = ask(process, method, location, b"other bytes")
            assert other.status_code == 404, (method, other.data)
        for data in (b"", b"x" * 2_000_000):
            assert process.patch(location, data=data).status_code == 404
        assert process.patch(location, data=DATA, headers={"Content-Range": "0-12"}).status_code == 404
        again = process.put(location + PUT, data=DATA)
        assert again.status_code == (201 if end == "PUT" else 404), "the same PUT is answered again"
        assert process.put(f"{location}?digest=sha256:short", data=DATA).status_code == 404
    assert types(first, location) == before
    assert staged(first) == []


def test_processes_take_turns_in_a_session(first: Registry, second: Registry) -> None:
    """Each finds what the other one did since, also where it took the session to be new."""
    location = opened(first)
    assert second.patch(location, data=b"12345").status_code == 202
    behind = first.patch(location, data=b"other", headers={"Content-Range": "0-4"})
    assert (behind.status_code, behind.headers["Range"]) == (416, "0-4")
    assert first.patch(location, data=b"678", headers={"Content-Range": "5-7"}).status_code == 202
    assert second.put(f"{location}?digest={sha256(b'12345678')}").status_code == 201
    assert types(first, location) == ["UploadStarted", "ChunkAppended", "ChunkAppended", "UploadCommitted"]


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        *(("PATCH", "DELETE"), ("PUT", "PATCH"), ("PUT", "PUT"), ("PUT", "DELETE")),
        *(("DELETE", "PATCH"), ("DELETE", "PUT"), ("DELETE", "DELETE")),
    ],
)
def test_of_two_first_things_one_happens(
    first: Registry, second: Registry, monkeypatch: pytest.MonkeyPatch, loser: str, winner: str
) -> None:
    """Both take the session to be new, and the other process is served just before the append.

    Whoever loses is told where the session stands, or that it is gone. A chunk holds the staging file until its append
    is answered, so it loses against a cancellation alone.
    """
    location = opened(first)
    real = Store.append

    def append(store: Store, command: Command) -> Outcome:
        monkeypatch.setattr(Store, "append", real)
        assert ask(second, winner, location, b"winner").status_code < 300
        return real(store, command)

    monkeypatch.setattr(Store, "append", append)
    lost = ask(first, loser, location, b"loser")
    if winner == "PATCH":
        assert (lost.status_code, lost.headers["Range"]) == (416, "0-5")
        assert second.put(f"{location}?digest={sha256(b'winner')}").status_code == 201
    else:
        assert (lost.status_code, codes(lost)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert second.get(f"/v2/u/app/blobs/{sha256(b'loser')}").status_code == 404
    assert staged(first) == []


@pytest.mark.parametrize("method", VERBS)
def test_an_id_that_was_altered_in_any_part_names_no_session(first: Registry, method: str) -> None:
    """The answer is 404 and nothing changes, with and without an event of the session."""
    fresh, begun = opened(first), opened(first)
    assert ask(first, "PATCH", begun, b"begun").status_code == 202
    before = first.heads()
    for location in (fresh, begun):
        parts = location[len(UPLOADS) :].split("-", 5)
        for place, part in enumerate(parts):
            other = "0" if part[-1] != "0" else "1"
            altered = "-".join([*parts[:place], part[:-1] + other, *parts[place + 1 :]])
            for each in (altered, altered.upper(), parts[4], parts[4] + "0" * 8):
                answer = ask(first, method, UPLOADS + each)
                assert answer.status_code == 404, each
        assert ask(first, method, location.replace("/u/app/", "/u/other/")).status_code == 404
    assert first.heads() == before
    assert first.get(begun).headers["Range"] == "0-4"


@pytest.mark.parametrize("begun", [False, True])
def test_a_session_belongs_to_its_account(first: Registry, begun: bool) -> None:
    location = opened(first)
    if begun:
        assert ask(first, "PATCH", location).status_code == 202

    def status_for(account: str) -> int:
        route = parse_path(location)
        assert route is not None
        request = Request("GET", route, {"PATH_INFO": location}, "id", actor=account)
        try:
            return uploads.status(first.rooms.commands, request).status
        except WireError as problem:
            return problem.status

    assert [status_for(each) for each in ("anonymous", "somebody", "")] == [204, 404, 404]


@pytest.mark.parametrize("method", VERBS)
def test_the_time_in_the_id_decides_as_long_as_there_is_no_event(
    first: Registry, now: FrozenDateTimeFactory, method: str
) -> None:
    location = opened(first)
    now.tick(DAY)
    assert first.get(location).status_code == 204
    now.tick(timedelta(milliseconds=1))
    assert ask(first, method, location).status_code == 404
    assert first.heads() == (0, 0)
    assert staged(first) == []


def test_once_there_is_an_event_inactivity_decides(
    first: Registry, second: Registry, now: FrozenDateTimeFactory
) -> None:
    """A session that is in use outlives the time in its id, its key, and the memory of each process."""
    location = opened(first)
    for number in range(4):
        now.tick(timedelta(hours=23))
        removed = keep_once(first.rooms)
        assert removed["expire-uploads"] == 0
        process = (first, second)[number % 2]
        assert process.patch(location, data=b"x", headers={"Content-Range": f"{number}-{number}"}).status_code == 202
    keys = [each.id for each in first.rooms.store.seal_keys()]
    assert int(location[len(UPLOADS) :].split("-")[1], 16) not in keys
    fresh = replace(first.rooms.commands, sessions=Sessions(), seal_keys=SealKeys(first.rooms.store.seal_keys))
    third = Registry(replace(first.rooms, commands=fresh))
    for altered in (location[:-1] + ("A" if location[-1] != "A" else "B"), location.replace("/u/app/", "/u/other/")):
        assert [ask(third, method, altered).status_code for method in VERBS] == [404] * len(VERBS)
    assert third.get(location).headers["Range"] == "0-3"
    now.tick(DAY + timedelta(minutes=1))
    assert keep_once(first.rooms)["expire-uploads"] == 1
    assert [ask(each, "PATCH", location).status_code for each in (first, second, third)] == [404] * 3


def test_a_key_that_was_replaced_is_accepted_as_long_as_its_ids_are(
    first: Registry, second: Registry, now: FrozenDateTimeFactory
) -> None:
    """By processes that know of the new one and by those that do not yet; the keeper makes one each day."""
    keep_once(first.rooms)
    old = opened(first)
    assert second.get(old).status_code == 204
    now.tick(DAY - timedelta(minutes=1))
    assert keep_once(first.rooms)["rotate-keys"] == 0
    late = opened(first)
    now.tick(timedelta(minutes=2))
    keep_once(first.rooms)
    new = opened(first)
    key_of = [each[len(UPLOADS) :].split("-")[1] for each in (old, late, new)]
    assert key_of[0] == key_of[1] != key_of[2]
    # The second process has read the keys before there was the new one.
    assert [second.get(each).status_code for each in (old, late, new)] == [404, 204, 204]
    now.tick(DAY - timedelta(minutes=2))
    keep_once(first.rooms)
    assert ask(second, "PATCH", late).status_code == 202
    assert int(key_of[1], 16) in {each.id for each in first.rooms.store.seal_keys()}
    now.tick(timedelta(minutes=12))
    keep_once(first.rooms)
    assert int(key_of[1], 16) not in {each.id for each in first.rooms.store.seal_keys()}


def test_a_process_seals_with_the_newest_key_a_minute_after_it_was_made(
    first: Registry, now: FrozenDateTimeFactory
) -> None:
    before = opened(first)
    rotate(first)
    assert opened(first)[len(UPLOADS) :].split("-")[1] == before[len(UPLOADS) :].split("-")[1]
    now.tick(timedelta(seconds=61))
    assert opened(first)[len(UPLOADS) :].split("-")[1] != before[len(UPLOADS) :].split("-")[1]


def test_clocks_of_servers_may_differ(first: Registry, second: Registry, now: FrozenDateTimeFactory) -> None:
    """An id from a clock that is ahead is no older for that; the log's own times never go back."""
    now.tick(timedelta(minutes=4))
    location = opened(first)
    now.tick(timedelta(minutes=-4))
    assert second.get(location).status_code == 204
    assert second.put(location + PUT, data=DATA).status_code == 201


def test_the_secret_is_in_no_text_of_a_key(first: Registry) -> None:
    (key,) = first.rooms.store.seal_keys()
    assert len(key.secret) == 32
    keys = SealKeys(first.rooms.store.seal_keys)
    assert keys.current() == key
    for text in (repr(key), repr(keys), repr(vars(keys))):
        assert repr(key.secret)[2:-1] not in text
        assert key.secret.hex() not in text


def test_without_a_key_the_client_is_told_to_try_again() -> None:
    with pytest.raises(StoreUnavailable, match="no key"):
        SealKeys(list).current()


def test_a_request_of_which_nothing_is_recorded_leaves_no_file(first: Registry) -> None:
    location = opened(first)
    refused: list[Callable[[], Response]] = [
        lambda: first.patch(location, data=b"x", headers={"Content-Range": "0-4"}),
        lambda: first.patch(location, data=b"x", headers={"Content-Range": "5-5"}),
        lambda: first.patch(location, data=b"x", headers={"Content-Range": "nonsense"}),
        lambda: first.put(location + PUT, data=b"other"),
        lambda: first.put(location, data=DATA),
        lambda: first.put(location + PUT, data=DATA, headers={"Content-Range": "1-13"}),
    ]
    statuses = [each().status_code for each in refused]
    assert statuses == [400, 416, 416, 400, 400, 416]
    assert first.patch(location).status_code == 202, "a chunk without bytes"
    assert staged(first) == []
    assert first.heads() == (0, 0)
    assert first.put(location + PUT, data=DATA).status_code == 201


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("length", [None, ASK_FIRST_BYTES + 1], ids=["chunked", "long"])
def test_of_a_body_that_may_be_long_nothing_is_taken_for_a_session_that_has_ended(
    first: Registry, second: Registry, method: str, length: int | None
) -> None:
    """If bytes were taken, anybody could fill the disk by the id of an ended session, and no event would tell of it."""
    location = opened(first)
    assert second.delete(location).status_code == 204
    data = bytes(ASK_FIRST_BYTES + 1)
    body = io.BytesIO(data)
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    answer = first.open(
        location,
        method=method,
        query_string={"digest": sha256(data)} if method == "PUT" else {},
        input_stream=body,
        environ_overrides=chunked if length is None else {"CONTENT_LENGTH": str(length)},
    )
    assert (answer.status_code, body.tell()) == (404, 0)
    blobs = first.rooms.settings.data / "blobs"
    assert (staged(first), [each for each in blobs.rglob("*") if each.is_file()]) == ([], [])


def test_what_a_crash_left_of_a_first_chunk_does_not_count(first: Registry) -> None:
    """Killed between the flush of its bytes and its event: nobody was told of them."""
    location = opened(first)
    with first.rooms.commands.blobs.open(upload_of(location), 0, new=True) as writer:
        writer.write(b"never recorded")
        writer.sync()
    assert first.get(location).headers["Range"] == "0-0"
    assert first.put(location + PUT, data=DATA).status_code == 201
    assert first.get(f"/v2/u/app/blobs/{sha256(DATA)}").data == DATA


def test_an_unknown_outcome_of_the_first_chunk_is_asked_of_the_log(
    first: Registry, second: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk was recorded, and nobody was told: its bytes stay."""
    location = opened(first)
    real = Store.append

    def append(store: Store, command: Command) -> Outcome:
        real(store, command)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", append)
        assert ask(first, "PATCH", location, b"12345").status_code == 503
    for process in (first, second):
        assert process.get(location).headers["Range"] == "0-4"
    assert second.put(f"{location}?digest={sha256(b'12345')}").status_code == 201


def test_a_commit_that_was_cut_off_is_gone_for_those_who_take_the_session_to_be_new(
    first: Registry, second: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes became the blob and the append was lost, so no staging file tells that the log has a chunk."""
    location = opened(first)
    assert ask(first, "PATCH", location).status_code == 202
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", Mock(side_effect=StoreUnavailable("away")))
        assert first.put(location + PUT).status_code == 503
    monkeypatch.setattr(uploads, "_COMMIT_WAIT_S", 0.01)
    for process in (first, second):
        answers = [ask(process, method, location, b"other") for method in ("GET", "HEAD", "PATCH", "PUT")]
        answers.append(process.patch(location))
        assert [each.status_code for each in answers] == [404] * 5
    assert staged(first) == []
    assert second.delete(location).status_code == 204


def test_sessions_are_opened_the_old_way_while_a_process_knows_no_such_ids(
    first: Registry, second: Registry, database: Database
) -> None:
    """They go on when all know the new ids. An event without the new member has the version that old processes read."""
    old = Membership(database.app_url, Member("keeper", features=HANDLED["keeper"] - {SESSION_IDS})).start()
    try:
        eventually(lambda: old.refusal is None)
        begun = first.post(UPLOADS).headers["Location"]
        upload = begun[len(UPLOADS) :]
        assert len(upload) == 40
        assert staged(first) == [upload]
        assert ask(second, "PATCH", begun, b"12345").status_code == 202
        started = happened_to(first.rooms.store, upload)[0]
        assert (started.type, started.schema_version) == ("UploadStarted", 1)
        state = first.rooms.store.session_state(upload_stream(upload)).state
        assert state is not None
        assert "proof" not in state
    finally:
        old.close()
    eventually(lambda: len(first.post(UPLOADS).headers["Docker-Upload-UUID"]) > 40)
    assert second.get(begun).headers["Range"] == "0-4"
    assert first.put(f"{begun}?digest={sha256(b'12345')}").status_code == 201
    with pytest.raises(SchemaOutdated, match="the log uses session-ids, which this keeper does not know"):
        schema.check(database.app_url, {"keeper": HANDLED["keeper"] - {SESSION_IDS}})
