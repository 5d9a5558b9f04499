"""Pulls, lists and history give the same answers from the tail, from the rows, and from both."""

import json
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest
from flask import Flask
from freezegun import freeze_time

from projections.reader import OVERLAY_EVENTS, Reader
from tests.api import Registry, codes, sha256

DATA = bytes(range(256)) * 8
TAGS = ["1", "A", "B.1", "_x", "a", "a-1", "b"]


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_an_unchanged_body_is_not_sent_again(registry: Registry, kind: str) -> None:
    """A matching entity tag, quoted or bare, is answered 304."""
    manifest = registry.push("u/app", "v1", DATA)
    digest, path = (sha256(DATA), "blobs") if kind == "blob" else (manifest, "manifests")
    for tag in (f'"{digest}"', digest, "*"):
        answer = registry.get(f"/v2/u/app/{path}/{digest}", headers={"If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")
    assert registry.get(f"/v2/u/app/{path}/{digest}", headers={"If-None-Match": '"x"'}).status_code == 200


def all_pages(registry: Registry, path: str, member: str) -> list[str]:
    """Follow the links from the first page on."""
    found: list[str] = []
    following: str | None = path
    while following is not None:
        answer = registry.get(following)
        assert answer.status_code == 200
        found += answer.get_json()[member]
        link = answer.headers.get("Link")
        following = None if link is None else link[1:].partition(">")[0]
    return found


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_tags_are_listed_bytewise_page_by_page(registry: Registry, projected: bool, n: int) -> None:
    """Half of the tags are rows and half are in the tail; with `projected` all are rows."""
    for tag in TAGS[::2]:
        registry.push("u/app", tag, b"x")
    registry.push("u/app", "gone", b"x")
    registry.project()
    for tag in TAGS[1::2]:
        registry.push("u/app", tag, b"x")
    registry.delete("/v2/u/app/manifests/gone")
    if projected:
        registry.project()
    assert all_pages(registry, f"/v2/u/app/tags/list?n={n}", "tags") == TAGS
    assert registry.get("/v2/u/app/tags/list").json == {"name": "u/app", "tags": TAGS}
    assert registry.get("/v2/u/app/tags/list?last=A").get_json()["tags"] == TAGS[2:]
    assert registry.get("/v2/u/app/tags/list?n=2&last=A0").get_json()["tags"] == TAGS[2:4]
    none = registry.get("/v2/u/app/tags/list?n=0")
    assert (none.get_json()["tags"], none.headers.get("Link")) == ([], None)
    assert "Link" not in registry.get(f"/v2/u/app/tags/list?n={len(TAGS)}").headers


@pytest.mark.parametrize("n", [1, 2, 10])
def test_the_catalog_lists_repositories_with_a_manifest(registry: Registry, n: int) -> None:
    """A repository is listed at once, and leaves the list with its last manifest."""
    digests = {name: registry.push(name, "v1", b"x") for name in ("a", "b/c", "z")}
    registry.blob("only/blobs", b"x")
    assert all_pages(registry, f"/v2/_catalog?n={n}", "repositories") == ["a", "b/c", "z"]
    registry.project()
    assert all_pages(registry, f"/v2/_catalog?n={n}", "repositories") == ["a", "b/c", "z"]
    registry.delete(f"/v2/b/c/manifests/{digests['b/c']}")
    registry.push("m", "v1", b"x")
    assert all_pages(registry, f"/v2/_catalog?n={n}", "repositories") == ["a", "m", "z"]
    registry.project()
    assert all_pages(registry, f"/v2/_catalog?n={n}", "repositories") == ["a", "m", "z"]
    assert registry.get("/v2/only/blobs/tags/list").get_json()["tags"] == []


def test_history_tells_every_change(registry: Registry) -> None:
    """Changes come newest first, page by page, with their times; also those of one tag alone."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    with freeze_time(start, ignore=["psycopg", "psycopg_pool", "queue", "threading", "concurrent"]) as now:
        first = registry.push("u/app", "v1", b"a")
        now.tick(timedelta(days=1))
        second = registry.push("u/app", "v2", b"b")
        body = registry.get("/v2/u/app/manifests/v2").data
        registry.project()
        now.tick(timedelta(days=1))
        registry.manifest("u/app", "v1", body)
        registry.delete("/v2/u/app/manifests/v1")
    answer = registry.get("/api/v1/repositories/u/app/history?tag=v1").get_json()
    found = [(each["what"], each["from"], each["to"], each["time"]) for each in answer["entries"]]
    assert found == [
        ("tag-deleted", second, None, "2026-03-03T00:00:00+00:00"),
        ("tag-moved", first, second, "2026-03-03T00:00:00+00:00"),
        ("tag-created", None, first, "2026-03-01T00:00:00+00:00"),
    ]
    paged = []
    following: str | None = "/api/v1/repositories/u/app/history?n=2"
    while following is not None:
        page = registry.get(following).get_json()
        paged += page["entries"]
        following = page["next"]
    whole = registry.get("/api/v1/repositories/u/app/history?n=1000").get_json()["entries"]
    assert paged == whole
    assert [each["position"] for each in whole] == sorted((each["position"] for each in whole), reverse=True)
    assert whole[-1]["what"] == "repository-created"


def test_blob_references_tell_who_uses_a_blob(registry: Registry) -> None:
    """They are the repositories that link it and, page by page, the manifests that name it, each once."""
    for number in range(3):
        registry.push("a", f"t{number}", b"shared")
    registry.push("b", "v1", b"shared")
    for _ in range(2):
        found = registry.get(f"/api/v1/blobs/{sha256(b'shared')}/references?n=3").get_json()
        assert (found["count"], found["repositories"], len(found["manifests"])) == (4, ["a", "b"], 3)
        rest = registry.get(found["next"]).get_json()
        assert [each["repository"] for each in found["manifests"] + rest["manifests"]] == ["a", "a", "a", "b"]
        assert {each["role"] for each in found["manifests"]} == {"layer"}
        registry.project()
    digest = registry.get("/v2/a/manifests/t0").headers["Docker-Content-Digest"]
    registry.delete(f"/v2/a/manifests/{digest}")
    assert registry.get(f"/api/v1/blobs/{sha256(b'shared')}/references").get_json()["count"] == 3


def test_in_a_quiet_registry_the_tail_is_empty(registry: Registry) -> None:
    """Every GET answers the same without the tail, so that the tail does not hide a dead projector in tests."""
    registry.push("u/app", "v1", b"layer")
    paths = [
        "/v2/_catalog",
        "/v2/u/app/tags/list",
        "/v2/u/app/manifests/v1",
        f"/v2/u/app/blobs/{sha256(b'layer')}",
        f"/v2/u/app/referrers/{sha256(b'layer')}",
        "/api/v1/repositories/u/app/history",
        f"/api/v1/blobs/{sha256(b'layer')}/references",
    ]
    before = OVERLAY_EVENTS._value.get()
    overlaid = [registry.get(each).data for each in paths]
    seen = OVERLAY_EVENTS._value.get()
    assert seen > before
    registry.project()
    assert [registry.get(each).data for each in paths] == overlaid
    assert OVERLAY_EVENTS._value.get() == seen
    registry.rooms.reader._tail = False
    assert [registry.get(each).data for each in paths] == overlaid
    registry.delete("/v2/u/app/manifests/v1")
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200, "without the tail, a write is not seen"


def test_extensions_are_told(registry: Registry) -> None:
    """The registry tells its extensions, and each repository its own."""
    assert [each["name"] for each in registry.get("/v2/_oci/ext/discover").get_json()["extensions"]] == ["_catalog"]
    assert registry.get("/v2/a/b/_oci/ext/discover").json == {"extensions": []}
    assert codes(registry.get("/v2/A/_oci/ext/discover")) == ["NAME_INVALID"]
    assert json.loads(registry.get("/v2/").data) == {}


def test_a_client_that_asked_for_a_tag_gets_its_manifest_without_another_question(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker sends a HEAD of the tag, then a GET of the digest. A digest that was deleted since is not served."""
    digest = registry.push("u/app", "v1", DATA)
    assert registry.head("/v2/u/app/manifests/v1").headers["Docker-Content-Digest"] == digest
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "one", Mock(side_effect=AssertionError("asked")))
        for _ in range(2):
            found = registry.get(f"/v2/u/app/manifests/{digest}")
            assert (found.status_code, sha256(found.data)) == (200, digest)
    assert registry.delete(f"/v2/u/app/manifests/{digest}").status_code == 202
    assert [registry.get(f"/v2/u/app/manifests/{each}").status_code for each in ("v1", digest)] == [404, 404]


def test_a_push_of_an_image_leaves_what_is_kept_of_blobs(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a repeated push, which asks for its blobs first, is answered from memory. The end of a link is seen."""
    digest = sha256(DATA)
    registry.push("u/app", "v1", DATA)
    assert registry.head(f"/v2/u/app/blobs/{digest}").status_code == 200
    registry.push("u/app", "v2", b"another layer")
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "one", Mock(side_effect=AssertionError("asked")))
        assert registry.head(f"/v2/u/app/blobs/{digest}").status_code == 200
    registry.delete("/v2/u/app/manifests/v1")
    assert registry.delete(f"/v2/u/app/blobs/{digest}").status_code == 202
    assert registry.head(f"/v2/u/app/blobs/{digest}").status_code == 404


def test_neither_a_push_nor_a_pull_goes_through_flask(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of their requests does; lists do."""
    monkeypatch.setattr(Flask, "wsgi_app", Mock(side_effect=AssertionError("through Flask")))
    digest = sha256(DATA)
    location = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
    assert registry.patch(location, data=DATA).status_code == 202
    assert registry.put(f"{location}?digest={digest}").status_code == 201
    manifest = registry.push("u/app", "v1", DATA)
    assert registry.get("/v2/u/app/manifests/v1").headers["Docker-Content-Digest"] == manifest
    assert registry.head(f"/v2/u/app/blobs/{digest}").status_code == 200
    assert registry.get("/v2/u/app/tags/list").status_code == 500
