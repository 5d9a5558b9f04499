"""Upload sessions over HTTP, from their opening to their end, with all requests that are refused in between."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from werkzeug.wrappers import Response

import domain.upload
from command_api.blobs import commits
from command_api.uploads import requests as uploads
from domain.digests import digest_of
from domain.streams import blob_stream
from eventstore.store import Store
from eventstore.types import Cause, Command, NewEvent, StoreUnavailable
from tests.api import Registry, codes, image, sha256
from tests.waiting import eventually

DATA = bytes(range(256)) * 40


def start(registry: Registry, repository: str = "u/app", query: str = "") -> str:
    """Open a session and answer its location."""
    answer = registry.post(f"/v2/{repository}/blobs/uploads/{query}")
    assert answer.status_code == 202
    assert answer.headers["Range"] == "0-0"
    assert answer.headers["Docker-Upload-UUID"] in answer.headers["Location"]
    return answer.headers["Location"]


def chunk(registry: Registry, location: str, data: bytes, first: int | None = None) -> Response:
    """PATCH, with a Content-Range if `first` is given."""
    headers = {} if first is None else {"Content-Range": f"{first}-{first + len(data) - 1}"}
    return registry.patch(location, data=data, headers=headers)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_session_opens_with_and_without_the_slash(registry: Registry, slash: str) -> None:
    """Neither form is redirected."""
    assert registry.post(f"/v2/u/app/blobs/uploads{slash}").status_code == 202


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("way", ["post", "post+put", "patch+put", "patch+patch+put"])
def test_every_way_of_uploading_gives_the_same_blob(registry: Registry, data: bytes, algorithm: str, way: str) -> None:
    """Zero bytes and sha512 included, with no hint of the algorithm before the end."""
    digest = str(digest_of(algorithm, data))
    if way == "post":
        answer = registry.post(f"/v2/u/app/blobs/uploads/?digest={digest}", data=data)
    else:
        location = start(registry)
        rest = data
        for _ in range(way.count("patch")):
            half, rest = (rest[: len(rest) // 2], rest[len(rest) // 2 :]) if way.count("patch") > 1 else (rest, b"")
            assert chunk(registry, location, half).status_code == 202
        answer = registry.put(f"{location}?digest={digest}", data=rest)
    assert answer.status_code == 201, answer.data
    assert answer.headers["Docker-Content-Digest"] == digest
    got = registry.get(answer.headers["Location"])
    assert (got.status_code, got.data, got.headers["Content-Length"]) == (200, data, str(len(data)))
    assert registry.head(answer.headers["Location"]).headers["Content-Length"] == str(len(data))


def test_chunks_follow_each_other(registry: Registry) -> None:
    """202 with Range after each; GET of the session agrees."""
    location = start(registry)
    for first in range(0, len(DATA), 4000):
        answer = chunk(registry, location, DATA[first : first + 4000], first)
        assert answer.status_code == 202
        last = min(first + 4000, len(DATA)) - 1
        assert answer.headers["Range"] == f"0-{last}"
        assert registry.get(location).headers["Range"] == f"0-{last}"
    assert registry.put(f"{location}?digest={sha256(DATA)}").status_code == 201


@pytest.mark.parametrize(
    ("content_range", "status"),
    [
        ("0-99", 416),
        ("50-149", 416),
        ("101-200", 416),
        ("100-99", 416),
        ("bytes 100-199/200", 416),
        ("x-y", 416),
        ("-100", 416),
        ("99999999999999999999-99999999999999999999", 416),
        ("100-150", 400),
        ("100-300", 400),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_wrong_range_leaves_the_session_as_it_was(
    registry: Registry, content_range: str, status: int, method: str
) -> None:
    """416 with where to go on, also for PUT; then the session goes on to its end."""
    data = DATA[:200]
    location = start(registry)
    chunk(registry, location, data[:100], 0)
    before = registry.head_position()
    answer = registry.open(
        location,
        method=method,
        query_string={"digest": sha256(data)} if method == "PUT" else {},
        data=data[100:],
        headers={"Content-Range": content_range},
    )
    assert answer.status_code == status
    assert answer.headers["Range"] == "0-99"
    assert answer.headers["Location"] == location
    assert registry.head_position() == before
    assert registry.get(location).headers["Range"] == "0-99"
    assert registry.put(f"{location}?digest={sha256(data)}", data=data[100:]).status_code == 201


def test_a_wrong_digest_keeps_what_the_session_had(registry: Registry) -> None:
    """A client may send the whole PUT again."""
    location = start(registry)
    chunk(registry, location, DATA[:100])
    for digest in (sha256(b"other"), "sha256:short", "md5:" + "a" * 32, ""):
        answer = registry.put(f"{location}?digest={digest}", data=DATA[100:])
        assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"])
        assert registry.get(location).headers["Range"] == "0-99"
    assert registry.put(f"{location}?digest={sha256(DATA)}", data=DATA[100:]).status_code == 201


def test_a_wrong_digest_of_a_whole_blob_keeps_nothing(registry: Registry) -> None:
    """400 and no link."""
    answer = registry.post(f"/v2/u/app/blobs/uploads/?digest={sha256(b'x')}", data=DATA)
    assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert registry.head_position() == 0
    assert list((registry.rooms.settings.data / "uploads").iterdir()) == []


def test_the_closing_put_may_be_repeated(registry: Registry) -> None:
    """Its answer may have been lost; every other verb finds the session gone."""
    location = start(registry)
    for _ in range(2):
        assert registry.put(f"{location}?digest={sha256(DATA)}", data=DATA).status_code == 201
    assert registry.put(f"{location}?digest={sha256(b'x')}", data=b"x").status_code == 404
    for method in ("GET", "PATCH", "DELETE"):
        answer = registry.open(location, method=method)
        assert (answer.status_code, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])


def test_a_cancelled_session_is_gone(registry: Registry) -> None:
    """204, then 404; its bytes too."""
    location = start(registry)
    chunk(registry, location, DATA)
    assert registry.delete(location).status_code == 204
    assert registry.get(location).status_code == 404
    assert registry.delete(location).status_code == 404
    assert list((registry.rooms.settings.data / "uploads").iterdir()) == []


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_a_session_belongs_to_its_repository(registry: Registry, method: str) -> None:
    """404, as for one that never was."""
    location = start(registry).replace("/v2/u/app/", "/v2/u/other/")
    for each in (location, location[:-1], "/v2/u/app/blobs/uploads/" + "a" * 32):
        answer = registry.open(each, method=method, query_string={"digest": sha256(b"")})
        assert answer.status_code == 404


@pytest.mark.parametrize("source", ["", "&from=u/app", "&from=u/nothing", "&from=Not%20A%20Name"])
def test_a_mount_links_what_somebody_has(registry: Registry, source: str) -> None:
    """201 where a readable repository has the blob, else a session; never an error because of the source."""
    digest = registry.blob("u/app", DATA)
    answer = registry.post(f"/v2/u/copy/blobs/uploads/?mount={digest}{source}")
    if "Not" in source:
        assert answer.status_code == 202
        return
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v2/u/copy/blobs/{digest}")
    assert registry.get(f"/v2/u/copy/blobs/{digest}").data == DATA


def test_a_mount_of_what_nobody_has_opens_a_session(registry: Registry) -> None:
    """A blob has nobody after every link was deleted: bytes that are still on the disk give no right to them."""
    digest = registry.blob("u/app", DATA)
    registry.delete(f"/v2/u/app/blobs/{digest}")
    answer = registry.post(f"/v2/u/copy/blobs/uploads/?mount={digest}&from=u/app")
    assert answer.status_code == 202
    assert registry.put(f"{answer.headers['Location']}?digest={digest}", data=DATA).status_code == 201


def test_a_blob_whose_file_is_damaged_can_be_pushed_again(registry: Registry) -> None:
    """404 while it is missing or short, no mount, and the next push heals it."""
    digest = registry.blob("u/app", DATA)
    (file,) = (registry.rooms.settings.data / "blobs").rglob("*.0")
    for damage in (lambda: file.write_bytes(b"short"), file.unlink):
        damage()
        # A file that was seen is looked at again two seconds later.
        eventually(lambda: registry.head(f"/v2/u/app/blobs/{digest}").status_code == 404)
        assert registry.get(f"/v2/u/app/blobs/{digest}").status_code == 404
        assert registry.post(f"/v2/u/copy/blobs/uploads/?mount={digest}").status_code == 202
        registry.blob("u/app", DATA)
        assert registry.get(f"/v2/u/app/blobs/{digest}").data == DATA


def test_a_small_blob_of_other_bytes_is_nowhere_until_it_is_pushed_again(registry: Registry) -> None:
    """Its file has the size of the blob. HEAD, mount and manifests agree, so the client sends the healing bytes."""
    digest = registry.blob("u/app", DATA)
    (file,) = (registry.rooms.settings.data / "blobs").rglob("*.0")
    file.write_bytes(DATA[::-1])
    manifest = image(DATA)

    def statuses() -> list[int]:
        return [
            registry.head(f"/v2/u/app/blobs/{digest}").status_code,
            registry.post(f"/v2/u/copy/blobs/uploads/?mount={digest}").status_code,
            registry.manifest("u/app", "latest", manifest).status_code,
        ]

    assert statuses() == [404, 202, 404]
    registry.blob("u/app", DATA)
    assert statuses() == [200, 201, 201]


def test_a_session_whose_bytes_are_gone_is_gone_for_every_verb(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a closing PUT that renamed its bytes and could not append, or was killed between the two. A client that
    resumes by a GET must not be told to go on with a session that no PATCH or PUT finds. It can be ended, and uploaded
    anew.
    """
    location = start(registry)
    chunk(registry, location, DATA)
    path = f"{location}?digest={sha256(DATA)}"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", Mock(side_effect=StoreUnavailable("away")))
        assert registry.put(path).status_code == 503
    monkeypatch.setattr(uploads, "_COMMIT_WAIT_S", 0.01)
    refused = [registry.get(location), chunk(registry, location, b"more"), registry.put(path)]
    assert [(each.status_code, codes(each)) for each in refused] == [(404, ["BLOB_UPLOAD_UNKNOWN"])] * 3
    assert registry.head(location).status_code == 404
    assert registry.delete(location).status_code == 204
    registry.blob("u/app", DATA)


def test_parallel_uploads_of_one_blob_all_succeed(registry: Registry) -> None:
    """One copy, one BlobCommitted, one link."""
    with ThreadPoolExecutor(10) as pool:
        digests = list(pool.map(lambda _: registry.blob("u/new", DATA), range(10)))
    assert set(digests) == {sha256(DATA)}
    types = [each.type for each in registry.rooms.store.read_log(0, 100)]
    assert sorted(types) == ["BlobCommitted", "BlobLinked", "RepositoryCreated"]


def test_a_new_blob_is_committed_without_a_question(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is not there, so it is taken to be new; the append would tell."""
    with monkeypatch.context() as patch:
        patch.setattr(Store, "stream_states", Mock(side_effect=AssertionError("asked")))
        digest = registry.blob("u/app", DATA)
    assert registry.get(f"/v2/u/app/blobs/{digest}").data == DATA


def file_of(registry: Registry, digest: str, generation: int) -> Path:
    encoded = digest.partition(":")[2]
    return registry.rooms.settings.data / "blobs" / "sha256" / encoded[:2] / f"{encoded}.{generation}"


def test_a_live_blob_whose_file_is_gone_is_not_new(registry: Registry) -> None:
    """The next upload, into any repository, heals it and takes the generation that stands."""
    digest = registry.blob("u/app", DATA)
    file_of(registry, digest, 0).unlink()
    registry.blob("u/other", DATA)
    assert file_of(registry, digest, 0).read_bytes() == DATA
    assert [registry.get(f"/v2/{each}/blobs/{digest}").data for each in ("u/app", "u/other")] == [DATA, DATA]
    types = [each.type for each in registry.rooms.store.read_log(0, 100)]
    assert types.count("BlobCommitted") == 1


def test_a_blob_that_was_given_up_comes_back_as_its_next_generation(registry: Registry) -> None:
    """The old file may be unlinked at any time, and the upload does not find it either."""
    digest = registry.blob("u/app", DATA)
    old = registry.rooms.store.stream_state(blob_stream(digest))
    given_up = NewEvent(blob_stream(digest), digest, "BlobCommitted", 1, "{}", ref=None, state=old.state)
    cause = Cause("collector", "r")
    registry.rooms.store.append(Command("given-up", cause, registry.rooms.commands.clock(), (given_up,)))
    file_of(registry, digest, 0).unlink()
    registry.blob("u/other", DATA)
    assert not file_of(registry, digest, 0).exists()
    assert file_of(registry, digest, 1).read_bytes() == DATA
    assert registry.get(f"/v2/u/other/blobs/{digest}").data == DATA


def test_an_unknown_hint_is_refused(registry: Registry) -> None:
    """Before a session is opened."""
    assert registry.post("/v2/u/app/blobs/uploads/?digest-algorithm=md5").status_code == 400
    start(registry, query="?digest-algorithm=sha512")


def test_the_same_closing_put_sent_twice_at_once_succeeds_twice(registry: Registry) -> None:
    """A client that gave up waiting may send it again while the first is under way."""
    for _ in range(10):
        location = start(registry)
        path = f"{location}?digest={sha256(b'x')}"
        with ThreadPoolExecutor(2) as pool:
            answers = [each.result() for each in [pool.submit(registry.put, path, data=b"x") for _ in range(2)]]
        statuses = {each.status_code for each in answers}
        assert 201 in statuses
        assert statuses <= {201, 416}
        assert registry.put(f"{location}?digest={sha256(b'x')}").status_code == 201


def between(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, other: Callable[[], Response]) -> None:
    """Let another request be served in the middle of one: just before it calls the function `name`."""
    whole = getattr(module, name)

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, name, whole)
        assert other().status_code < 300
        return whole(*arguments, **options)

    monkeypatch.setattr(module, name, late)


@pytest.mark.parametrize(
    ("method", "module", "step"),
    [("PUT", uploads, "commit_blob"), ("PUT", commits, "decide_commit"), ("PATCH", uploads, "receive")],
)
def test_who_loses_against_a_cancellation_is_told_that_the_session_is_gone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, method: str, module: Any, step: str
) -> None:
    """404, not where a session that nobody can go on with stands."""
    location = start(registry)
    chunk(registry, location, DATA[:100])
    between(monkeypatch, module, step, lambda: registry.delete(location))
    query = {"digest": sha256(DATA)} if method == "PUT" else {}
    answer = registry.open(location, method=method, query_string=query, data=DATA[100:])
    assert (answer.status_code, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert registry.get(f"/v2/u/app/blobs/{sha256(DATA)}").status_code == 404


def test_a_cancellation_that_loses_against_a_chunk_says_where_the_session_stands(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """416 with the Range after the chunk, not the one before it."""
    location = start(registry)
    between(monkeypatch, domain.upload, "decide_cancellation", lambda: chunk(registry, location, DATA[:100]))
    answer = registry.delete(location)
    assert (answer.status_code, answer.headers["Range"]) == (416, "0-99")
    assert registry.delete(location).status_code == 204
