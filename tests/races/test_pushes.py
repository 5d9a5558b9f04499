"""Clients that push at once: pushes whose order does not matter never conflict, and no move of a tag is lost.

The long form is `make test-long PART=test_pushes`.
"""

import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from domain.streams import blob_stream, tag_stream
from tests.api import image, sha256
from tests.races.clients import Connection, put_blob, put_manifest, put_whole_blob, together
from tests.races.log import assert_chained, assert_manifests_stood, events_of, events_of_stream, log_of
from tests.servers import RunningServer

CLIENTS = 64
ROUNDS = [1, pytest.param(20, marks=pytest.mark.slow)]


def files_of(server: RunningServer, data: bytes) -> list[str]:
    """The names of the files that hold a blob."""
    hex_digits = sha256(data).partition(":")[2]
    return [each.name for each in (server.data / "blobs").rglob(f"{hex_digits}*")]


def push(host: str, repository: str, tag: str, blobs: Sequence[bytes], body: bytes) -> list[int]:
    """Push an image as clients do; answers every status."""
    api = Connection(host)
    return [*(put_blob(api, repository, each) for each in blobs), put_manifest(api, repository, tag, body).status]


def move(host: str, repository: str, body: bytes, times: int) -> list[int]:
    """Move one tag to the same manifest again and again; answers every status."""
    api = Connection(host)
    return [put_manifest(api, repository, "latest", body).status for _ in range(times)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_one_image_under_many_tags_into_a_new_repository_succeeds(server: RunningServer, rounds: int) -> None:
    """64 clients at once all get 201 and make 64 tags, one repository, one copy and one BlobCommitted of each blob."""
    for _ in range(rounds):
        repository = f"races/{secrets.token_hex(6)}"
        config, *layers = (f"{repository} {part}".encode() * 1000 for part in ("config", "layer", "other layer"))
        body = image(config, *layers)

        blobs = (config, *layers)
        pushes = [partial(push, server.host, repository, f"tag-{number:02}", blobs, body) for number in range(CLIENTS)]
        answers = together(pushes)
        assert answers == [[201] * 4] * CLIENTS
        tags = Connection(server.host).ask("GET", f"/v2/{repository}/tags/list").json()["tags"]
        assert tags == [f"tag-{number:02}" for number in range(CLIENTS)]
        assert [files_of(server, each) for each in blobs] == [[f"{sha256(each).partition(':')[2]}.0"] for each in blobs]
        with log_of(server.database_url) as log:
            counted = Counter(each.type for each in events_of(log, repository) if not each.stream.startswith("upload-"))
            assert counted == {
                "RepositoryCreated": 1,
                "BlobLinked": 3,
                "ManifestPushed": CLIENTS,
                "TagMoved": CLIENTS,
            }
            committed = [events_of_stream(log, blob_stream(sha256(each))) for each in blobs]
            assert [[each.type for each in events] for events in committed] == [["BlobCommitted"]] * 3


@pytest.mark.parametrize("rounds", ROUNDS)
def test_every_move_of_many_writers_of_one_tag_is_kept(server: RunningServer, rounds: int) -> None:
    """32 writers make 20 moves each: 640 moves are kept, each names the value before it, and the tag has the last."""
    writers, moves = 32, 20
    for _ in range(rounds):
        repository = f"races/{secrets.token_hex(6)}"
        put_whole_blob(Connection(server.host), repository, b"layer")
        bodies = [image(b"layer", b"layer", annotations={"writer": str(number)}) for number in range(writers)]

        answers = together([partial(move, server.host, repository, body, moves) for body in bodies])
        assert answers == [[201] * moves] * writers
        with log_of(server.database_url) as log:
            events = events_of_stream(log, tag_stream(repository, "latest"))
            assert_chained(events)
            assert_manifests_stood(log, repository)
        moved_to = Counter(json.loads(each.data)["digest"] for each in events)
        assert moved_to == {sha256(body): moves for body in bodies}
        got = Connection(server.host).ask("GET", f"/v2/{repository}/manifests/latest")
        assert got.headers["docker-content-digest"] == json.loads(events[-1].data)["digest"]


@pytest.mark.parametrize("upload", [put_blob, put_whole_blob])
@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_parallel_uploads_of_one_blob_succeed_and_leave_one_copy(
    server: RunningServer, rounds: int, upload: Callable[[Connection, str, bytes], int]
) -> None:
    """10 uploads at once into two repositories all get 201; there is one file, one BlobCommitted, one link in each."""
    for _ in range(rounds):
        name = secrets.token_hex(6)
        data = name.encode() * 100_000
        repositories = [f"races/{name}-{number}" for number in range(2)]
        answers = together([partial(upload, Connection(server.host), each, data) for each in repositories * 5])
        assert answers == [201] * 10
        assert len(files_of(server, data)) == 1
        with log_of(server.database_url) as log:
            assert [each.type for each in events_of_stream(log, blob_stream(sha256(data)))] == ["BlobCommitted"]
            assert [len(events_of(log, each, "BlobLinked")) for each in repositories] == [1, 1]
        assert Connection(server.host).ask("GET", f"/v2/{repositories[0]}/blobs/{sha256(data)}").body == data
