"""Bad input as one table: status, code, and that nothing changed (I11, protocol section 11)."""

from typing import Any

import pytest

from domain.media_types import OCI_MANIFEST
from tests.api import Registry, codes, sha256

D = "sha256:" + "a" * 64
LONG = "a" * 256
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


@pytest.mark.parametrize(("method", "path", "options", "status", "code"), CASES, ids=lambda each: str(each)[:60])
def test_bad_input_gets_its_answer_and_changes_nothing(
    registry: Registry, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """Never a 5xx; the body is the protocol's, the common headers are there."""
    answer = registry.open(path, method=method, **options)
    assert (answer.status_code, codes(answer)) == (status, [code])
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert registry.head_position() == 0
    assert list((registry.rooms.settings.data / "uploads").iterdir()) == []
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("path", [f"/v2/a/blobs/{D}", "/v2/a/manifests/v1"])
def test_an_error_of_head_has_no_body(registry: Registry, path: str) -> None:
    """G6."""
    answer = registry.head(path)
    assert (answer.status_code, answer.data) == (404, b"")


def test_a_blob_is_readable_only_where_it_is_linked(registry: Registry) -> None:
    """I8: knowing a digest is no right."""
    digest = registry.blob("u/private", b"secret")
    assert registry.get(f"/v2/u/other/blobs/{digest}").status_code == 404


def test_a_failure_inside_is_answered_with_its_id(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 UNKNOWN with the request's id, which the log has too."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(registry.rooms.store), "stream_state", fail)
    answer = registry.get("/v2/a/blobs/uploads/" + "a" * 32, headers={"X-Request-Id": "id-1"})
    assert (answer.status_code, codes(answer)) == (500, ["UNKNOWN"])
    assert answer.json["errors"][0]["detail"] == {"request_id": "id-1"}
    assert answer.headers["X-Request-Id"] == "id-1"


def test_blobs_are_never_pages(registry: Registry) -> None:
    """A browser must not run what a blob holds."""
    headers = registry.get(f"/v2/u/app/blobs/{registry.blob('u/app', b'<script>')}").headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert sha256(b"<script>") in headers["ETag"]
