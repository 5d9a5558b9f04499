"""PUT and DELETE of manifests and tags."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from blobstore.interface import BlobName
from command_api.manifests.known import KnownManifests
from domain.digests import digest_of
from domain.facts import facts_from_json
from domain.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from eventstore.types import Command, Outcome
from tests.api import Registry, codes, image, index, sha256
from tests.postgres import Database

CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"layer"


@pytest.fixture
def body(registry: Registry) -> bytes:
    """An image manifest whose blobs are in u/app."""
    registry.blob("u/app", CONFIG)
    registry.blob("u/app", LAYER)
    return image(CONFIG, LAYER)


def test_a_push_by_tag_is_pulled_by_tag_and_digest(registry: Registry, body: bytes) -> None:
    """Its exact bytes come back under the type that was sent."""
    answer = registry.manifest("u/app", "v1", body)
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, sha256(body))
    assert answer.headers["Location"] == f"/v2/u/app/manifests/{sha256(body)}"
    for reference in ("v1", sha256(body)):
        for method in ("GET", "HEAD"):
            got = registry.open(f"/v2/u/app/manifests/{reference}", method=method)
            assert got.status_code == 200
            assert got.headers["Content-Type"] == OCI_MANIFEST
            assert got.headers["Content-Length"] == str(len(body))
            assert got.headers["ETag"] == f'"{sha256(body)}"'
            assert got.data == (body if method == "GET" else b"")


def test_a_push_is_one_append(registry: Registry, body: bytes) -> None:
    """The manifest and its tag stand side by side, with the same request."""
    before = registry.head_position()
    registry.manifest("u/app", "v1", body, headers={"X-Request-Id": "push-1"})
    events = registry.rooms.store.read_log(before, 10)
    assert [each.type for each in events] == ["ManifestPushed", "TagMoved"]
    assert {each.request_id for each in events} == {"push-1"}
    assert {each.actor for each in events} == {"anonymous"}


def test_a_manifest_that_is_known_is_recorded_again_without_its_bytes(
    registry: Registry, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every push is in the history, but the bytes go to the database only with the first one of a repository."""
    sent: list[Command] = []
    append = registry.rooms.store.append

    def noted(command: Command) -> Outcome:
        sent.append(command)
        return append(command)

    monkeypatch.setattr(registry.rooms.store, "append", noted)
    before = registry.head_position()
    for tag in ("v1", "v1", "v2"):
        assert registry.manifest("u/app", tag, body).status_code == 201
    assert [[each.digest for each in command.contents] for command in sent] == [[sha256(body)], [], []]
    pushed = registry.rooms.store.read_log(before, 10)
    assert [each.type for each in pushed] == ["ManifestPushed", "TagMoved"] * 3
    assert {each.content for each in pushed if each.type == "ManifestPushed"} == {sha256(body)}


def test_bytes_that_the_database_has_lost_come_back_with_the_next_push(
    registry: Registry, body: bytes, database: Database
) -> None:
    """A known manifest is sent without its bytes first; the append notices that they are not there."""
    registry.manifest("u/app", "v1", body)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE log.es_content DISABLE TRIGGER ALL")
        admin.execute("DELETE FROM log.es_content")
    assert registry.manifest("u/app", "v2", body).status_code == 201
    assert registry.get("/v2/u/app/manifests/v2").data == body


def test_a_push_reads_each_small_blob_once(registry: Registry, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of the config were read to see that they are right, and serve its metadata too."""
    names: list[BlobName] = []
    blobs = registry.rooms.commands.blobs
    read = blobs.read_small

    def noted(name: BlobName, limit: int) -> bytes | None:
        names.append(name)
        return read(name, limit)

    monkeypatch.setattr(blobs, "read_small", noted)
    assert registry.manifest("u/app", "v1", body).status_code == 201
    assert sorted(str(each.digest) for each in names) == sorted([sha256(CONFIG), sha256(LAYER)])
    content = registry.rooms.store.get_content(sha256(body))
    assert content is not None
    assert facts_from_json(content.facts).platform == "linux/amd64"


def test_a_tag_that_moves_leaves_the_old_manifest(registry: Registry) -> None:
    """The event names the manifest that the tag named before."""
    first, second = registry.push("u/app", "v1", b"a"), registry.push("u/app", "v2", b"b")
    body = registry.get(f"/v2/u/app/manifests/{second}").data
    registry.manifest("u/app", "v1", body)
    assert registry.get("/v2/u/app/manifests/v1").data == body
    assert registry.get(f"/v2/u/app/manifests/{first}").status_code == 200
    moves = registry.rooms.store.read_stream("tag-u/app:v1")
    assert [each.prev_ref for each in moves] == [None, f"manifest-u/app@{first}"]


def test_many_tags_move_in_one_push_by_digest(registry: Registry, body: bytes) -> None:
    """Each is answered; the digest keeps its algorithm."""
    digest = str(digest_of("sha512", body))
    tags = [f"t{number}" for number in range(12)]
    query = "&".join(f"tag={each}" for each in tags)
    answer = registry.manifest("u/app", f"{digest}?{query}", body)
    assert answer.status_code == 201
    assert answer.headers.getlist("OCI-Tag") == tags
    for tag in tags:
        assert registry.head(f"/v2/u/app/manifests/{tag}").headers["Docker-Content-Digest"] == digest


def test_missing_blobs_are_listed_one_by_one(registry: Registry) -> None:
    """Those of other repositories are missing too."""
    registry.blob("u/app", CONFIG)
    registry.blob("u/other", LAYER)
    answer = registry.manifest("u/app", "v1", image(CONFIG, LAYER, b"more", LAYER))
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"] * 2
    assert [each["detail"] for each in json.loads(answer.data)["errors"]] == [sha256(LAYER), sha256(b"more")]


def test_a_wrong_size_is_refused(registry: Registry, body: bytes) -> None:
    """400 SIZE_INVALID."""
    document = json.loads(body)
    document["layers"][0]["size"] += 1
    answer = registry.manifest("u/app", "v1", json.dumps(document).encode())
    assert (answer.status_code, codes(answer)) == (400, ["SIZE_INVALID"])


def test_an_index_needs_its_children(registry: Registry, body: bytes) -> None:
    """Nested ones too; a build cache's index may name blobs."""
    child = index(body)
    assert codes(registry.manifest("u/app", "multi", child, OCI_INDEX)) == ["MANIFEST_BLOB_UNKNOWN"]
    registry.manifest("u/app", sha256(body), body)
    assert registry.manifest("u/app", "multi", child, OCI_INDEX).status_code == 201
    assert registry.get("/v2/u/app/tags/list").get_json()["tags"] == ["multi"]
    cache = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(LAYER), "size": len(LAYER)}
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [cache]}).encode()
    assert registry.manifest("u/app", "cache", body, OCI_INDEX).status_code == 201


def test_the_last_type_of_a_kind_wins(registry: Registry, body: bytes) -> None:
    """Another flavour is kept and warned of, another kind is refused."""
    registry.manifest("u/app", "v1", body)
    answer = registry.manifest("u/app", "v1", body, DOCKER_MANIFEST)
    assert answer.status_code == 201
    assert answer.headers["Warning"].startswith('299 - "')
    assert registry.get("/v2/u/app/manifests/v1").headers["Content-Type"] == DOCKER_MANIFEST
    assert registry.manifest("u/app", "v1", body, OCI_INDEX).status_code == 400


def test_a_manifest_above_the_size_limit_is_refused_and_one_below_is_taken(registry: Registry, body: bytes) -> None:
    """413 beyond it, with and without an announced length; 4 MB and more below it."""
    large = image(CONFIG, LAYER, annotations={f"k{n}": "x" * 10_000 for n in range(400)})
    assert registry.manifest("u/app", "large", large).status_code == 201
    assert registry.get("/v2/u/app/manifests/large").data == large
    answer = registry.manifest("u/app", "v1", b" " * (10 * 1024 * 1024 + 1))
    assert (answer.status_code, codes(answer)) == (413, ["MANIFEST_INVALID"])


CONDITIONS: list[tuple[dict[str, str], bool, int]] = [
    ({"If-None-Match": "*"}, False, 201),
    ({"If-None-Match": "*"}, True, 412),
    ({"If-Match": "*"}, False, 412),
    ({"If-Match": "*"}, True, 201),
    ({"If-Match": '"{old}"'}, True, 201),
    ({"If-Match": "{old}"}, True, 201),
    ({"If-Match": '"sha256:x", "{old}"'}, True, 201),
    ({"If-Match": '"sha256:x"'}, True, 412),
    ({"If-Match": '"{old}"'}, False, 412),
    ({"If-None-Match": '"{old}"'}, True, 412),
    ({"If-None-Match": '"sha256:x"'}, True, 201),
]


@pytest.mark.parametrize(("headers", "exists", "status"), CONDITIONS)
def test_a_conditional_push_succeeds_only_if_its_condition_holds(
    registry: Registry, headers: dict[str, str], exists: bool, status: int
) -> None:
    """Judged by what the tag names at the moment of the append."""
    old = registry.push("u/app", "v1" if exists else "v0", b"old")
    registry.blob("u/app", CONFIG)
    body = image(CONFIG)
    sent = {name: value.format(old=old) for name, value in headers.items()}
    answer = registry.manifest("u/app", "v1", body, headers=sent)
    assert answer.status_code == status
    if status == 412:
        assert codes(answer) == ["DENIED"]
        expected = old if exists else None
        found = registry.head("/v2/u/app/manifests/v1").headers.get("Docker-Content-Digest")
        assert found == expected


def test_of_racing_conditional_pushes_one_wins(registry: Registry) -> None:
    """One of them moves the tag, the others are told 412."""
    old = registry.push("u/app", "v1", b"old")
    registry.blob("u/app", CONFIG)
    bodies = [image(CONFIG, note=str(number)) for number in range(8)]

    def push(body: bytes) -> int:
        return registry.manifest("u/app", "v1", body, headers={"If-Match": f'"{old}"'}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(push, bodies)) == [201] + [412] * 7


def test_parallel_pushes_of_many_tags_into_a_new_repository_succeed(registry: Registry) -> None:
    """No push is refused because of another one."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: registry.push("u/new", f"t{number:02}", b"shared"), range(32)))
    assert registry.get("/v2/u/new/tags/list").get_json()["tags"] == [f"t{number:02}" for number in range(32)]


def test_deleting_a_tag_leaves_the_manifest(registry: Registry) -> None:
    """202, then 404; the manifest stays by digest."""
    digest = registry.push("u/app", "v1", b"a")
    assert registry.delete("/v2/u/app/manifests/v1").status_code == 202
    assert registry.head("/v2/u/app/manifests/v1").status_code == 404
    assert registry.head(f"/v2/u/app/manifests/{digest}").status_code == 200
    assert codes(registry.delete("/v2/u/app/manifests/v1")) == ["MANIFEST_UNKNOWN"]
    assert registry.get("/v2/u/app/tags/list").json == {"name": "u/app", "tags": []}


def test_deleting_a_manifest_takes_all_its_tags(registry: Registry) -> None:
    """One append deletes the manifest and its tags, and no other tag."""
    digest = registry.push("u/app", "v1", b"a")
    other = registry.push("u/app", "other", b"b")
    body = registry.get("/v2/u/app/manifests/v1").data
    registry.manifest("u/app", "v2", body)
    assert registry.delete(f"/v2/u/app/manifests/{digest}").status_code == 202
    for reference in ("v1", "v2", digest):
        assert registry.get(f"/v2/u/app/manifests/{reference}").status_code == 404
    assert registry.get("/v2/u/app/tags/list").get_json()["tags"] == ["other"]
    assert registry.head(f"/v2/u/app/manifests/{other}").status_code == 200
    assert registry.delete(f"/v2/u/app/manifests/{digest}").status_code == 404
    assert registry.manifest("u/app", "v1", body).status_code == 201


def test_a_blob_that_is_unlinked_stays_away_until_it_is_pushed_again(registry: Registry) -> None:
    """Its layer is 404, and a manifest that names it is refused."""
    registry.push("u/app", "v1", LAYER)
    body = registry.get("/v2/u/app/manifests/v1").data
    path = f"/v2/u/app/blobs/{sha256(LAYER)}"
    assert registry.delete(path).status_code == 202
    assert registry.head(path).status_code == 404
    assert registry.delete(path).status_code == 404
    assert registry.get("/v2/u/app/manifests/v1").status_code == 200
    assert codes(registry.manifest("u/app", "v2", body)) == ["MANIFEST_BLOB_UNKNOWN"]
    registry.blob("u/app", LAYER)
    assert registry.manifest("u/app", "v2", body).status_code == 201


def test_a_manifest_never_stands_without_its_blobs(registry: Registry) -> None:
    """Pushes race with the deletion of their layer; at each accepted push the link was live."""
    registry.blob("u/app", CONFIG)
    body = image(CONFIG, LAYER)
    path = f"/v2/u/app/blobs/{sha256(LAYER)}"

    def push(_: int) -> int:
        registry.blob("u/app", LAYER)
        return registry.manifest("u/app", "v1", body).status_code

    with ThreadPoolExecutor(8) as pool:
        pushes = [pool.submit(push, number) for number in range(60)]
        deletes = [pool.submit(registry.delete, path) for _ in range(60)]
        statuses = {each.result() for each in pushes}
        assert 201 in statuses, "every push was refused, which shows nothing"
        assert {each.result().status_code for each in deletes} <= {202, 404}
    assert statuses <= {201, 404}
    live = False
    for event in registry.rooms.store.read_log(0, 2000):
        if event.stream == f"link-u/app@{sha256(LAYER)}":
            live = event.type == "BlobLinked"
        assert live or event.type != "ManifestPushed"


def referrer(subject: bytes, artifact_type: str) -> bytes:
    """A manifest with a subject."""
    descriptor: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": sha256(subject), "size": len(subject)}
    return image(CONFIG, subject=descriptor, artifactType=artifact_type, annotations={"type": artifact_type})


def test_a_push_with_a_subject_says_so(registry: Registry, body: bytes) -> None:
    """By tag and by digest, before the subject is there."""
    made = referrer(body, "a/sig")
    for reference in ("sig", sha256(made)):
        answer = registry.manifest("u/app", reference, made)
        assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, sha256(body))


def test_referrers_are_listed_filtered_and_removed(registry: Registry, body: bytes) -> None:
    """Without a projector and after one has caught up."""
    path = f"/v2/u/app/referrers/{sha256(body)}"
    assert registry.get(path).get_json()["manifests"] == []
    made = [referrer(body, f"a/type{number}") for number in range(3)]
    for each in made:
        registry.manifest("u/app", sha256(each), each)
    for _ in range(2):
        answer = registry.get(path)
        assert answer.headers["Content-Type"] == OCI_INDEX
        found = {each["digest"]: each for each in answer.get_json()["manifests"]}
        assert set(found) == {sha256(each) for each in made}
        assert found[sha256(made[0])]["annotations"] == {"type": "a/type0"}
        filtered = registry.get(f"{path}?artifactType=a/type1")
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        assert [each["artifactType"] for each in filtered.get_json()["manifests"]] == ["a/type1"]
        both = registry.get(f"{path}?artifactType=a/type1&artifactType=a/type2")
        assert len(both.get_json()["manifests"]) == 2
        registry.project()
    registry.delete(f"/v2/u/app/manifests/{sha256(made[0])}")
    assert len(registry.get(path).get_json()["manifests"]) == 2
    assert codes(registry.get("/v2/u/app/referrers/sha256:bad")) == ["DIGEST_INVALID"]


def test_known_manifests_are_bounded_in_number() -> None:
    """The one that was pushed longest ago is forgotten first, and then asked for again."""
    known = KnownManifests(names_max=2)
    for each in ("a", "b", "a", "c"):
        known.learn(each)
    assert [each for each in ("a", "b", "c") if known.has(each)] == ["a", "c"]
