"""Bad input as one table of requests, statuses and codes (rule: bad input changes nothing)."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.digests import digest_of
from domain.media_types import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from tests.api import Registry, codes, image, index, registry_over, sha256
from tests.postgres import Server, drop_database, new_database

D = "sha256:" + "a" * 64
LONG = "a" * 256
CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER, FOREIGN = b"layer", b"what only another repository has"
IMAGE = image(CONFIG, LAYER)
OTHER_IMAGE = image(CONFIG, LAYER, note="not pushed")
SESSION = "/v2/u/app/blobs/uploads/{open}"
CLOSED = "/v2/u/app/blobs/uploads/{closed}"
EXPECTED = f"digest={sha256(b'x' * 100 + b'more')}"


def manifest(body: bytes, content_type: str = OCI_MANIFEST, **more: Any) -> dict[str, Any]:
    """The body and headers of a PUT of a manifest."""
    return {"data": body, "content_type": content_type, **more}


def changed(**members: Any) -> bytes:
    """The bytes of the image with other members."""
    return json.dumps({**json.loads(IMAGE), **members}).encode()


def layers(**members: Any) -> bytes:
    """The bytes of the image whose layer has other members."""
    return changed(layers=[{**json.loads(IMAGE)["layers"][0], **members}])


def ranged(value: str, body: bytes = b"more") -> dict[str, Any]:
    """The body and headers of a chunk."""
    return {"data": body, "headers": {"Content-Range": value}}


def lengths(length: str) -> dict[str, Any]:
    """A body of four bytes that claims another length."""
    return {"input_stream": io.BytesIO(b"more"), "environ_overrides": {"CONTENT_LENGTH": length}}


CASES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v2/A/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/../x/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/a/../b/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/a//b/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2//blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/%2e%2e/x/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/a%00/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/a%0A/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/_upload/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", f"/v2/{LONG}/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/%C3%A4/blobs/uploads/", {}, 400, "NAME_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?digest=nonsense", {"data": b"x"}, 400, "DIGEST_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?digest=", {"data": b"x"}, 400, "DIGEST_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?digest=md5:abc", {"data": b"x"}, 400, "DIGEST_INVALID"),
    ("POST", f"/v2/a/blobs/uploads/?digest={D.upper()}", {"data": b"x"}, 400, "DIGEST_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?mount=nonsense", {}, 400, "DIGEST_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/blobs/sha256:short", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/blobs/sha256:..%2F..%2Fetc%2Fpasswd", {}, 404, "UNSUPPORTED"),
    ("GET", "/v2/a/blobs/blake3:" + "a" * 64, {}, 404, "BLOB_UNKNOWN"),
    ("GET", f"/v2/a/blobs/{D}", {}, 404, "BLOB_UNKNOWN"),
    ("DELETE", f"/v2/a/blobs/{D}", {}, 404, "BLOB_UNKNOWN"),
    ("DELETE", "/v2/a/blobs/md5:abc", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/manifests/nothing", {}, 404, "MANIFEST_UNKNOWN"),
    ("GET", f"/v2/a/manifests/{D}", {}, 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/a/manifests/sha256:bad", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/manifests/.bad", {}, 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/A/manifests/v1", {}, 400, "NAME_INVALID"),
    ("DELETE", f"/v2/a/manifests/{D}", {}, 404, "MANIFEST_UNKNOWN"),
    ("DELETE", "/v2/a/manifests/.bad", {}, 404, "MANIFEST_UNKNOWN"),
    ("PUT", "/v2/a/manifests/v1", {"data": b"{}", "content_type": OCI_MANIFEST}, 400, "MANIFEST_INVALID"),
    ("PUT", "/v2/a/manifests/v1", {"data": b"", "content_type": OCI_MANIFEST}, 400, "MANIFEST_INVALID"),
    ("PUT", "/v2/a/manifests/v1", {"data": b"\xff", "content_type": "text/html"}, 400, "MANIFEST_INVALID"),
    ("GET", "/v2/a/tags/list", {}, 404, "NAME_UNKNOWN"),
    ("GET", "/v2/a/tags/list?n=-1", {}, 400, "PAGINATION_NUMBER_INVALID"),
    ("GET", "/v2/_catalog?n=x", {}, 400, "PAGINATION_NUMBER_INVALID"),
    ("GET", "/v2/a/referrers/nonsense", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/referrers/md5:abc", {}, 400, "DIGEST_INVALID"),
    ("GET", "/v2/a/blobs/uploads/nothing", {}, 404, "BLOB_UPLOAD_UNKNOWN"),
    ("PATCH", "/v2/a/blobs/uploads/" + "a" * 32, {"data": b"x"}, 404, "BLOB_UPLOAD_UNKNOWN"),
    ("PUT", "/v2/a/blobs/uploads/" + "a" * 32 + f"?digest={D}", {}, 404, "BLOB_UPLOAD_UNKNOWN"),
    ("DELETE", "/v2/a/blobs/uploads/" + "a" * 32, {}, 404, "BLOB_UPLOAD_UNKNOWN"),
    ("POST", "/v2/a/manifests/v1", {}, 405, "UNSUPPORTED"),
    ("POST", "/v2/", {}, 405, "UNSUPPORTED"),
    ("PUT", "/v2/a/tags/list", {}, 405, "UNSUPPORTED"),
    ("PATCH", f"/v2/a/blobs/{D}", {}, 405, "UNSUPPORTED"),
    ("GET", "/v2/a/blobs/uploads/", {}, 405, "UNSUPPORTED"),
    ("OPTIONS", "/v2/a/tags/list", {}, 405, "UNSUPPORTED"),
    ("GET", "/v2/nonsense", {}, 404, "UNSUPPORTED"),
    ("GET", "/nonsense", {}, 404, "UNSUPPORTED"),
    ("GET", "/api/v1/nonsense", {}, 404, "UNSUPPORTED"),
    ("POST", "/api/v1/repositories/a/history", {}, 405, "UNSUPPORTED"),
    ("GET", "/api/v1/repositories/A/history", {}, 400, "NAME_INVALID"),
    ("GET", "/api/v1/repositories/a/history", {}, 404, "NAME_UNKNOWN"),
    ("GET", "/api/v1/repositories/a/history?n=0", {}, 400, "UNSUPPORTED"),
    ("GET", "/api/v1/repositories/a/history?tga=x", {}, 400, "UNSUPPORTED"),
    ("GET", "/api/v1/repositories/a/history?tag=%00", {}, 400, "UNSUPPORTED"),
    ("GET", "/api/v1/blobs/nonsense/references", {}, 400, "DIGEST_INVALID"),
    ("GET", f"/api/v1/blobs/{D}/references", {}, 404, "BLOB_UNKNOWN"),
    ("GET", f"/api/v1/blobs/{D}/references?after=%00", {}, 400, "UNSUPPORTED"),
    ("GET", "/v2/a/tags/list?" + "&".join(f"a{n}=1" for n in range(1500)), {}, 400, "UNSUPPORTED"),
]
NAMES = [
    "A",
    "a..b",
    "a___b",
    "a.-b",
    "_upload",
    "a_",
    "-a",
    "a%0A",
    "a%00",
    "%2e%2e/x",
    "a/../b",
    "a//b",
    LONG,
    "%C3%A4",
    "a%20b",
]
ROUTES_OF_NAMES = [
    ("POST", "blobs/uploads/"),
    ("PATCH", "blobs/uploads/" + "a" * 32),
    ("GET", "blobs/uploads/" + "a" * 32),
    ("GET", f"blobs/{D}"),
    ("DELETE", f"blobs/{D}"),
    ("GET", "manifests/v1"),
    ("PUT", "manifests/v1"),
    ("DELETE", "manifests/v1"),
    ("GET", "tags/list"),
    ("GET", f"referrers/{D}"),
    ("GET", "_oci/ext/discover"),
]
DIGESTS = [
    D.upper(),
    "SHA256:" + "a" * 64,
    D[:-1],
    D + "a",
    "sha256:",
    "sha256:..%2F..%2F" + "a" * 58,
    "md5:" + "a" * 32,
    D + "%0A",
    "sha256:%D9%A3",
    "sha512:" + "a" * 64,
]
WRITES_OF_DIGESTS = [
    ("POST", "/v2/u/app/blobs/uploads/?digest={digest}"),
    ("POST", "/v2/u/app/blobs/uploads/?mount={digest}&from=u/other"),
    ("PUT", SESSION + "?digest={digest}"),
]
DEEP = b'{"schemaVersion":2,"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
MANIFESTS: list[tuple[bytes, str, int, str]] = [
    # Texts that some clients would read and others would not, and texts that no client could read.
    (changed(manifests=[]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (changed(manifests=[]), OCI_INDEX, 400, "MANIFEST_INVALID"),
    (IMAGE, OCI_INDEX, 400, "MANIFEST_INVALID"),
    (IMAGE, DOCKER_LIST, 400, "MANIFEST_INVALID"),
    (index(IMAGE), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (changed(Layers=[]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(DIGEST=D), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE[:-1] + b',"layers":[]}', OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (b" " * (10 * 1024 * 1024 + 1), OCI_MANIFEST, 413, "MANIFEST_INVALID"),
    (DEEP, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (b"[" * 100_000, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE[:-1] + b',"x":' + b"9" * 5000 + b"}", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE[:-1] + b',"x":NaN}', OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE[:-1] + b',"x":-Infinity}', OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE.decode().encode("utf-16"), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (b"\xef\xbb\xbf" + IMAGE, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE[:-1] + b',"x":"\xff"}', OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (changed(x="a\x00"), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (changed(annotations={"a": "\ud800"}), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (changed(layers=[json.loads(IMAGE)["config"]] * 50_001), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(urls=["file:///etc/passwd"]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(urls=["http://169.254.169.254/#x"]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(size=-1), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(size=2**63), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (layers(size=6), OCI_MANIFEST, 400, "SIZE_INVALID"),
    (layers(digest="md5:" + "a" * 32), OCI_MANIFEST, 400, "DIGEST_INVALID"),
    (layers(digest=D.upper()), OCI_MANIFEST, 400, "DIGEST_INVALID"),
    (changed(mediaType="x\r\nSet-Cookie: a=b"), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    (IMAGE, "application/vnd.docker.distribution.manifest.v1+prettyjws", 400, "MANIFEST_INVALID"),
    # Somebody who knows a digest has no right to its bytes by that.
    (image(CONFIG, FOREIGN), OCI_MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
    (layers(digest=D), OCI_MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
    (index(OTHER_IMAGE), OCI_INDEX, 404, "MANIFEST_BLOB_UNKNOWN"),
]
CASES += [(method, f"/v2/{name}/{rest}", {}, 400, "NAME_INVALID") for name in NAMES for method, rest in ROUTES_OF_NAMES]
CASES += [
    (method, path.replace("{digest}", digest), {"data": b"x"}, 400, "DIGEST_INVALID")
    for digest in DIGESTS
    for method, path in WRITES_OF_DIGESTS
]
CASES += [
    ("PUT", "/v2/u/app/manifests/v1", manifest(body, kind), status, code) for body, kind, status, code in MANIFESTS
]
CASES += [
    # A manifest under a wrong digest, or under a text that is no tag.
    ("PUT", f"/v2/u/app/manifests/{D}", manifest(OTHER_IMAGE), 400, "DIGEST_INVALID"),
    ("PUT", f"/v2/u/app/manifests/{digest_of('sha512', IMAGE)}", manifest(OTHER_IMAGE), 400, "DIGEST_INVALID"),
    ("PUT", "/v2/u/app/manifests/sha256:short", manifest(OTHER_IMAGE), 400, "DIGEST_INVALID"),
    ("PUT", "/v2/u/app/manifests/md5:" + "a" * 32, manifest(OTHER_IMAGE), 400, "DIGEST_INVALID"),
    ("PUT", "/v2/u/app/manifests/.bad", manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    ("PUT", "/v2/u/app/manifests/v1%0A", manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    ("PUT", "/v2/u/app/manifests/" + "a" * 129, manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    ("PUT", "/v2/u/app/manifests/v1?tag=v2", manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    ("PUT", f"/v2/u/app/manifests/{sha256(OTHER_IMAGE)}?tag=.bad", manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    ("PUT", f"/v2/u/app/manifests/{sha256(OTHER_IMAGE)}?tag=a%0D%0AX:b", manifest(OTHER_IMAGE), 400, "TAG_INVALID"),
    (
        "PUT",
        f"/v2/u/app/manifests/{sha256(OTHER_IMAGE)}?" + "&".join(f"tag=t{n}" for n in range(101)),
        manifest(OTHER_IMAGE),
        414,
        "TAG_INVALID",
    ),
    ("PUT", "/v2/u/app/manifests/v1", manifest(OTHER_IMAGE, headers={"If-None-Match": "*"}), 412, "DENIED"),
    ("PUT", "/v2/u/app/manifests/v1", manifest(OTHER_IMAGE, headers={"If-Match": f'"{D}"'}), 412, "DENIED"),
    ("DELETE", "/v2/u/app/manifests/v1", {"headers": {"If-Match": f'"{D}"'}}, 412, "DENIED"),
    # A digest without its bytes.
    ("POST", f"/v2/u/new/blobs/uploads/?digest={sha256(LAYER)}", {}, 400, "DIGEST_INVALID"),
    ("PUT", f"{SESSION}?digest={sha256(LAYER)}", {}, 400, "DIGEST_INVALID"),
    ("PUT", SESSION, {"data": b"more"}, 400, "DIGEST_INVALID"),
    ("GET", f"/v2/u/app/blobs/{sha256(FOREIGN)}", {}, 404, "BLOB_UNKNOWN"),
    ("DELETE", f"/v2/u/app/blobs/{sha256(FOREIGN)}", {}, 404, "BLOB_UNKNOWN"),
    ("GET", f"/v2/u/other/manifests/{sha256(IMAGE)}", {}, 404, "MANIFEST_UNKNOWN"),
    # A session of another repository, and one that is over.
    *(
        (method, path + (f"?{EXPECTED}" if method == "PUT" else ""), {"data": b"more"}, 404, "BLOB_UPLOAD_UNKNOWN")
        for path in (SESSION.replace("u/app", "u/other"), CLOSED, SESSION[:-1] + "}a")
        for method in ("PATCH", "PUT", "GET", "DELETE")
    ),
    # Ranges and lengths that lie.
    *(
        (method, f"{SESSION}?{EXPECTED}", ranged(value), 416, "BLOB_UPLOAD_INVALID")
        for value in ("0-3", "99-102", "101-104", "-1-3", "100-99", "x", "9" * 19 + "-" + "9" * 19, "9" * 400 + "-1")
        for method in ("PATCH", "PUT")
    ),
    *(
        (method, f"{SESSION}?{EXPECTED}", ranged(value), 400, "SIZE_INVALID")
        for value in ("100-100", "100-104", "100-9223372036854775807")
        for method in ("PATCH", "PUT")
    ),
    ("PATCH", SESSION, lengths("5"), 400, "SIZE_INVALID"),
    ("PUT", f"{SESSION}?{EXPECTED}", lengths("9223372036854775807"), 400, "SIZE_INVALID"),
    ("PUT", f"{SESSION}?{EXPECTED}", lengths("3"), 400, "DIGEST_INVALID"),
    ("POST", f"/v2/u/app/blobs/uploads/?digest={sha256(b'more')}", lengths("5"), 400, "SIZE_INVALID"),
    ("PUT", "/v2/u/app/manifests/v1", lengths("99999999999"), 413, "MANIFEST_INVALID"),
    ("GET", f"/v2/u/app/blobs/{sha256(LAYER)}", {"headers": {"Range": "bytes=5-"}}, 416, "RANGE_INVALID"),
    ("GET", f"/v2/u/app/blobs/{sha256(LAYER)}", {"headers": {"Range": f"bytes={'9' * 5000}-"}}, 416, "RANGE_INVALID"),
]


@pytest.fixture(scope="module")
def prepared(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with an image, a blob in another repository, an open and a closed session; no test changes it."""
    database = new_database(postgres_server)
    with registry_over(database, tmp_path_factory.mktemp("prepared")) as made:
        for blob in (CONFIG, LAYER):
            made.blob("u/app", blob)
        made.blob("u/other", FOREIGN)
        assert made.manifest("u/app", "v1", IMAGE).status_code == 201
        sessions = [made.post("/v2/u/app/blobs/uploads/").headers["Location"] for _ in range(2)]
        for each in sessions:
            assert made.patch(each, data=b"x" * 100).status_code == 202
        assert made.delete(sessions[1]).status_code == 204
        made.names = {"open": sessions[0].rpartition("/")[2], "closed": sessions[1].rpartition("/")[2]}
        before = files(made.rooms.settings.data / "blobs")
        yield made
        # Compared once, at the end, because there are many folders.
        assert files(made.rooms.settings.data / "blobs") == before
    drop_database(postgres_server, database)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, and its bytes."""
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    CASES,
    ids=[f"{number}-{each[0]}-{each[1][:50]}".encode("ascii", "replace").decode() for number, each in enumerate(CASES)],
)
def test_bad_input_gets_its_answer_and_changes_nothing(
    prepared: Registry, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """Status and code are those of the table; the body has the protocol's shape, and no cache may keep it."""
    uploads = prepared.rooms.settings.data / "uploads"
    before = prepared.heads(), files(uploads)
    answer = prepared.open(path.format(**prepared.names), method=method, **options)
    assert (answer.status_code, codes(answer)) == (status, [code])
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (prepared.heads(), files(uploads)) == before
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("path", [f"/v2/a/blobs/{D}", "/v2/a/manifests/v1"])
def test_an_error_of_head_has_no_body(registry: Registry, path: str) -> None:
    """HTTP allows no body there, and a client would take it for the next answer."""
    answer = registry.head(path)
    assert (answer.status_code, answer.data) == (404, b"")


def test_a_failure_inside_is_answered_with_its_id(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 500 UNKNOWN with the id of the request, and the log names the same id."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(registry.rooms.store), "session_state", fail)
    answer = registry.get("/v2/a/blobs/uploads/" + "a" * 40, headers={"X-Request-Id": "id-1"})
    assert (answer.status_code, codes(answer)) == (500, ["UNKNOWN"])
    assert answer.get_json()["errors"][0]["detail"] == {"request_id": "id-1"}
    assert answer.headers["X-Request-Id"] == "id-1"


def test_blobs_are_never_pages(registry: Registry) -> None:
    """The headers keep a browser from running the content of a blob."""
    headers = registry.get(f"/v2/u/app/blobs/{registry.blob('u/app', b'<script>')}").headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert sha256(b"<script>") in headers["ETag"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "another.localhost:99"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"Forwarded": "host=evil"},
    ],
)
def test_no_header_says_where_the_registry_is(registry: Registry, headers: dict[str, str]) -> None:
    """Every address that it gives is relative; no header of the request and no `ns` changes it."""
    registry.push("u/app", "v1", LAYER)
    registry.push("u/app", "v2", LAYER)
    opened = registry.post("/v2/u/app/blobs/uploads/?ns=evil.example", headers=headers)
    assert opened.headers["Location"].startswith("/v2/u/app/blobs/uploads/")
    listed = registry.get("/v2/u/app/tags/list?n=1&ns=evil.example", headers=headers)
    assert listed.headers["Link"].startswith("</v2/u/app/tags/list?")
    assert not any(each in f"{opened.headers}{listed.headers}" for each in ("evil", "another"))


@pytest.mark.parametrize(
    "path",
    [
        "/v2/_catalog?last=%00",
        "/v2/u/app/tags/list?last=%00%0D%0A",
        f"/v2/u/app/referrers/{D}?last=%00",
        f"/v2/u/app/referrers/{D}?artifactType=%00",
        f"/v2/u/app/referrers/{D}?artifactType=a%0D%0AX:b&artifactType=%FF",
        "/v2/u/app/tags/list?last=%FF&n=" + "9" * 5000,
        "/api/v1/repositories/u/app/history?before=4611686018427387904&n=1000",
    ],
)
def test_odd_parameters_of_reads_are_no_failure(prepared: Registry, path: str) -> None:
    """A name that nothing has finds nothing, and no text reaches the database that Postgres cannot take."""
    answer = prepared.get(path)
    assert answer.status_code == 200
    assert not {"\r", "\n", "\x00"} & set(str(list(answer.headers.values())))
