"""A client that lost an answer sends its request again: it is done once, and the client can go on."""

import http.client
import secrets
from collections.abc import Mapping
from contextlib import closing

from domain.media_types import OCI_MANIFEST
from domain.streams import link_stream, manifest_stream, tag_stream, upload_stream
from tests.api import image, sha256
from tests.clients.wire import Answer
from tests.races.clients import Connection, put_whole_blob
from tests.races.log import events_of_stream, log_of
from tests.servers import RunningServer
from tests.sessions import upload_of
from tests.waiting import eventually

LAYER = b"layer"


def ask_twice(
    server: RunningServer, stream: str, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a request, close the connection unread once its event is there, send it again; gives the second answer."""
    with log_of(server.database_url) as store:
        before = len(events_of_stream(store, stream))
        with closing(http.client.HTTPConnection(server.host, timeout=60)) as lost:
            lost.request(method, path, body=body, headers=dict(headers or {}))
            eventually(lambda: len(events_of_stream(store, stream)) > before)
    return Connection(server.host).ask(method, path, body, headers)


def types_of(server: RunningServer, stream: str) -> list[str]:
    """The types of all events of a stream."""
    with log_of(server.database_url) as store:
        return [each.type for each in events_of_stream(store, stream)]


def test_a_manifest_put_again_is_another_push_of_the_same(server: RunningServer) -> None:
    """The second push moves the tag to the digest that it names already, so readers see no difference."""
    repository = f"faults/lost{secrets.token_hex(4)}"
    put_whole_blob(Connection(server.host), repository, LAYER)
    body = image(LAYER)
    path, tag = f"/v2/{repository}/manifests/latest", tag_stream(repository, "latest")
    answer = ask_twice(server, tag, "PUT", path, body, {"Content-Type": OCI_MANIFEST})
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, sha256(body))
    with log_of(server.database_url) as store:
        moves = events_of_stream(store, tag)
    stands = manifest_stream(repository, sha256(body))
    assert [(each.type, each.prev_ref) for each in moves] == [("TagMoved", None), ("TagMoved", stands)]
    assert Connection(server.host).ask("GET", f"/v2/{repository}/tags/list").json()["tags"] == ["latest"]


def test_a_blob_sent_again_is_linked_once(server: RunningServer) -> None:
    repository = f"faults/lost{secrets.token_hex(4)}"
    link = link_stream(repository, sha256(LAYER))
    answer = ask_twice(server, link, "POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(LAYER)}", LAYER)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, sha256(LAYER))
    assert types_of(server, link) == ["BlobLinked"]


def test_a_session_sent_again_chunk_by_chunk_is_committed_once(server: RunningServer) -> None:
    """A chunk that is there already is refused with the end of the session; the closing PUT is answered again."""
    repository, api = f"faults/lost{secrets.token_hex(4)}", Connection(server.host)
    location = api.ask("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    upload = upload_stream(upload_of(location))
    chunk = ask_twice(server, upload, "PATCH", location, LAYER, {"Content-Range": f"0-{len(LAYER) - 1}"})
    assert (chunk.status, chunk.headers["range"]) == (416, f"0-{len(LAYER) - 1}")

    link = link_stream(repository, sha256(LAYER))
    closed = ask_twice(server, link, "PUT", f"{location}?digest={sha256(LAYER)}", b"")
    assert (closed.status, closed.headers["docker-content-digest"]) == (201, sha256(LAYER))
    assert types_of(server, upload) == ["UploadStarted", "ChunkAppended", "UploadCommitted"]
    assert types_of(server, link) == ["BlobLinked"]
    assert api.ask("GET", f"/v2/{repository}/blobs/{sha256(LAYER)}").body == LAYER
