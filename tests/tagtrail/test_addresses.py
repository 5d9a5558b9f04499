"""Names of the server: the Host that a request may have, the pages that may call, the addresses in answers."""

import http.client
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.media_types import OCI_MANIFEST
from protocol.errors import WireError
from tagtrail.config import resolve
from tagtrail.hosts import Hosts, hosts_of
from tests.api import Registry, codes, image, registry_over, sha256
from tests.postgres import Database
from tests.servers import RunningServer, serving

NONE = f"/v2/a/blobs/uploads/{'a' * 40}"
D = f"sha256:{'a' * 64}"
STRANGE = [
    "evil.example",
    "evil.example:5000",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "192.0.2.1",
    "0.0.0.0",
    "[2001:db8::1]:5000",
    "registry.example.evil",
]
OURS = [
    "localhost",
    "LOCALHOST:5000",
    "localhost.",
    "registry.localhost:80",
    "127.0.0.1:5000",
    "127.5.6.7",
    "[::1]",
    "[::1]:5000",
]
MALFORMED = [
    "",
    "a b",
    "a,b",
    "localhost,localhost",
    "user@localhost",
    "http://localhost",
    "localhost:port",
    "[::1",
    "[::1]5000",
    "a/b",
    "a" * 256,
    "a" * 60_000,
]
ORIGIN = "https://ui.example.com"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server on loopback that has one more name."""
    with serving({"TAGTRAIL_ALLOW_HOST": "registry.test", "TAGTRAIL_PUBLIC_URL": "https://hub.test:8443/"}) as running:
        yield running


def raw(server: RunningServer, head: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a head as it is; answers the status, headers and body."""
    host, _, port = server.host.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("path", ["/v2/", "/healthz", "/metrics", "/v2/_catalog", f"/v2/a/blobs/{D}", "/nothing"])
def test_a_request_needs_one_host(server: RunningServer, path: str) -> None:
    """RFC 9112 section 3.2: without a Host, with two or a malformed one HTTP/1.1 is 400; HTTP/1.0 needs none."""
    for lines in ("", "Host:\r\n", "Host: localhost\r\nHost: localhost\r\n", "Host: a b\r\n"):
        status, _, body = raw(server, f"GET {path} HTTP/1.1\r\n{lines}\r\n")
        assert (status, b"Host" in body) == (400, True), lines
    assert raw(server, f"GET {path} HTTP/1.0\r\n\r\n")[0] != 400


def test_a_server_on_loopback_does_not_answer_to_names_of_others(server: RunningServer) -> None:
    """No method and no path is answered; the answer and the text at the start name the option that adds names."""
    for head in ("GET /v2/", "DELETE /v2/a/manifests/v1", f"GET /v2/a/blobs/{D}", "GET /metrics", "POST /nothing"):
        status, _, body = raw(server, f"{head} HTTP/1.1\r\nHost: evil.example:5000\r\n\r\n")
        assert (status, b"DENIED" in body, b"--allow-host" in body) == (403, True, True), head
    for host in ("registry.test", "registry.test:5000", "hub.test", "localhost"):
        assert raw(server, f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n")[0] == 200
    assert "--allow-host" in server.log.read_text()
    assert "localhost, hub.test, registry.test" in server.log.read_text()


def judged(hosts: Hosts, host: str) -> int:
    """The status of a request with this Host; 200 where nothing is said against it."""
    try:
        hosts.check({"HTTP_HOST": host, "SERVER_PROTOCOL": "HTTP/1.1"})
    except WireError as problem:
        return problem.status
    return 200


def test_a_name_is_ours_if_it_means_loopback_or_was_given() -> None:
    """Names of loopback are known by their spelling. Where others reach the server, every well-formed name is ours."""
    guarded = hosts_of(resolve({"allow_host": "Registry.Example"}, {}).settings)
    open_to_all = hosts_of(resolve({"listen": "0.0.0.0:5000", "insecure_open": True}, {}).settings)

    assert {host: judged(guarded, host) for host in STRANGE} == dict.fromkeys(STRANGE, 403)
    assert {host: judged(guarded, host) for host in OURS} == dict.fromkeys(OURS, 200)
    assert judged(guarded, "registry.example:443") == 200
    for hosts in (guarded, open_to_all):
        assert {host: judged(hosts, host) for host in MALFORMED} == dict.fromkeys(MALFORMED, 400)
    assert {host: judged(open_to_all, host) for host in STRANGE + OURS} == dict.fromkeys(STRANGE + OURS, 200)


def test_every_location_begins_with_the_public_url(database: Database, tmp_path: Path) -> None:
    """No request changes that. Without the option every location is relative (see test_bad_requests)."""
    with registry_over(database, tmp_path, public_url="https://hub.test/") as registry:
        spoof = {"Host": "registry.localhost", "X-Forwarded-Host": "evil.example"}
        root = "https://hub.test/v2/u/app"
        opened = registry.post("/v2/u/app/blobs/uploads/", headers=spoof)
        session = opened.headers["Location"]
        assert session.startswith(f"{root}/blobs/uploads/")
        path = session.removeprefix("https://hub.test")
        patched = registry.patch(path, data=b"layer")
        refused = registry.patch(path, data=b"x", headers={"Content-Range": "99-99"})
        closed = registry.put(f"{path}?digest={sha256(b'layer')}")
        whole = registry.post(f"/v2/u/app/blobs/uploads/?digest={sha256(b'{}')}", data=b"{}")
        mounted = registry.post(f"/v2/u/two/blobs/uploads/?mount={sha256(b'{}')}&from=u/app")
        body = image(b"{}", b"layer")
        pushed = registry.put("/v2/u/app/manifests/v1", data=body, content_type=OCI_MANIFEST)
        status = registry.get(
            registry.post("/v2/u/app/blobs/uploads/").headers["Location"].removeprefix("https://hub.test")
        )
        assert [each.status_code for each in (patched, refused, closed, whole, mounted, pushed, status)] == [
            202,
            416,
            201,
            201,
            201,
            201,
            204,
        ]
        assert patched.headers["Location"] == refused.headers["Location"] == session
        assert closed.headers["Location"] == f"{root}/blobs/{sha256(b'layer')}"
        assert whole.headers["Location"] == f"{root}/blobs/{sha256(b'{}')}"
        assert mounted.headers["Location"] == f"https://hub.test/v2/u/two/blobs/{sha256(b'{}')}"
        assert pushed.headers["Location"] == f"{root}/manifests/{sha256(body)}"
        assert status.headers["Location"].startswith(f"{root}/blobs/uploads/")


def test_no_page_may_call_unless_it_is_said(registry: Registry) -> None:
    """Off by default: no header of CORS, and a preflight is a method that no path takes."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    plain = registry.get("/v2/", headers={"Origin": ORIGIN})
    refused = registry.options("/v2/", headers=asked)
    assert refused.status_code == 405
    for answer in (plain, refused):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control") or name == "Vary"]


def test_pages_of_the_given_origins_may_call(database: Database, tmp_path: Path) -> None:
    """Refusals too carry the headers, or the page could not read them; others get none, and no cache mixes them up."""
    with registry_over(database, tmp_path, cors_origins=f"http://localhost:3000,{ORIGIN}") as registry:
        asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "accept"}
        paths = ("/v2/", "/v2/a/manifests/v1", "/v2/_catalog", "/api/v1/repositories/a/history", NONE)
        origins = ((ORIGIN, True), ("https://ui.example.com:444", False), ("null", False))
        for path, (origin, allowed) in itertools.product(paths, origins):
            answer = registry.get(path, headers={"Origin": origin})
            preflight = registry.options(path, headers={"Origin": origin, **asked})
            for each in (answer, preflight):
                assert each.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
                assert each.headers["Vary"] == "Origin"
                assert ("Docker-Content-Digest" in each.headers.get("Access-Control-Expose-Headers", "")) is allowed
            assert (preflight.status_code == 204) is allowed
            assert ("DELETE" in preflight.headers.get("Access-Control-Allow-Methods", "")) is allowed
            assert ("Accept" in preflight.headers.get("Access-Control-Allow-Headers", "")) is allowed
            assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Access-Control-Allow-Origin" not in registry.get("/v2/").headers


def test_the_pages_of_all_origins_may_call_if_that_is_said(database: Database, tmp_path: Path) -> None:
    with registry_over(database, tmp_path, cors_origins="*") as registry:
        answer = registry.get("/v2/_catalog", headers={"Origin": ORIGIN})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Vary" not in answer.headers
        # A page of another site still cannot make the browser take this server for its own.
        assert codes(registry.get("/v2/", headers={"Origin": ORIGIN, "Host": "evil.example"})) == ["DENIED"]


TAKEN = {
    "/v2/": "GET, HEAD",
    "/v2/_catalog": "GET, HEAD",
    "/v2/_oci/ext/discover": "GET, HEAD",
    "/v2/a/tags/list": "GET, HEAD",
    f"/v2/a/referrers/{D}": "GET, HEAD",
    f"/v2/a/blobs/{D}": "DELETE, GET, HEAD",
    "/v2/a/manifests/v1": "DELETE, GET, HEAD, PUT",
    "/v2/a/blobs/uploads/": "POST",
    NONE: "DELETE, GET, HEAD, PATCH, PUT",
    "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/metrics": "GET, HEAD",
    "/api/v1/repositories/a/history": "GET, HEAD, OPTIONS",
    f"/api/v1/blobs/{D}/references": "GET, HEAD, OPTIONS",
}


def test_allow_names_what_a_path_takes(registry: Registry) -> None:
    """RFC 9110 section 15.5.6 asks for it, also for a method that no path takes."""
    for path, text in TAKEN.items():
        taken = text.split(", ")
        for method in ("PROPFIND", "TRACE", "OPTIONS", "POST", "BREW"):
            answer = registry.open(path, method=method)
            if method in taken:
                assert answer.status_code != 405, (method, path)
            else:
                assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"]), (method, path)
                assert sorted(answer.headers["Allow"].split(", ")) == taken, (method, path)
