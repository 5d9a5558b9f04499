"""Manifests that name more than an append may look at, and manifests with more tags than one may delete."""

import json
from typing import Any

import psycopg
import pytest

from domain.manifest import UNTAGGED_MAX
from domain.media_types import OCI_INDEX
from domain.references import NAMED_DIRECTLY_MAX
from eventstore import verify
from eventstore.sets import Sets
from eventstore.types import JudgedSet
from tests.api import Registry, codes, sha256
from tests.large import image_of, index_of, link_many, many
from tests.postgres import Database
from tests.upkeep import sweep_sets

NAME = "u/app"
CONFIG = b"{}"
LAYERS = many(NAMED_DIRECTLY_MAX + 50)
IMAGE = image_of(CONFIG, LAYERS)


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """A registry that has all layers."""
    link_many(registry, NAME, [CONFIG, *LAYERS])
    return registry


def refs(database: Database) -> list[tuple[Any, ...]]:
    """The targets of manifests, with the transactions that wrote it."""
    with psycopg.connect(database.admin_url) as connection:
        query = (
            "SELECT from_stream, target, xmin::text FROM log.es_ref WHERE starts_with(from_stream, 'manifest-')"
            " ORDER BY from_stream, target"
        )
        return connection.execute(query).fetchall()


def references_of(registry: Registry, blob: bytes) -> list[dict[str, str]]:
    """The manifests that name a blob."""
    found: list[dict[str, str]] = json.loads(registry.get(f"/api/v1/blobs/{sha256(blob)}/references").data)["manifests"]
    return found


def test_a_manifest_that_names_very_much_is_pushed_repeated_and_deleted(filled: Registry, database: Database) -> None:
    """One row says what it refers to, and a repetition does not touch it."""
    assert filled.manifest(NAME, "v1", IMAGE).status_code == 201
    before = refs(database)
    assert len(before) == 1
    layer = f"link-{NAME}@{sha256(LAYERS[7])}"
    assert filled.rooms.store.referring_streams(layer, 10) == [f"manifest-{NAME}@{sha256(IMAGE)}"]
    assert filled.manifest(NAME, "v2", IMAGE).status_code == 201
    assert refs(database) == before
    assert filled.get(f"/v2/{NAME}/manifests/v1").data == IMAGE
    assert len(references_of(filled, LAYERS[7])) == 1
    assert filled.delete(f"/v2/{NAME}/manifests/{sha256(IMAGE)}").status_code == 202
    assert refs(database) == []
    assert verify.verify(database.app_url) == []


def test_a_repeated_push_touches_no_reference(filled: Registry, database: Database) -> None:
    """Most pushes of a CI repeat an earlier one."""
    small = image_of(CONFIG, LAYERS[:3])
    filled.manifest(NAME, "v1", small)
    before = refs(database)
    assert len(before) == 4
    filled.manifest(NAME, "v1", small)
    assert refs(database) == before


def test_a_set_goes_once_its_manifest_was_deleted(filled: Registry, database: Database) -> None:
    """The next push of it stores it again."""
    filled.manifest(NAME, "v1", IMAGE)
    assert sweep_sets(database) == 0
    filled.delete(f"/v2/{NAME}/manifests/{sha256(IMAGE)}")
    assert sweep_sets(database) == 1
    assert filled.manifest(NAME, "v1", IMAGE).status_code == 201
    assert verify.verify(database.app_url) == []


def test_what_is_missing_of_very_much_is_listed(filled: Registry) -> None:
    """All missing things are listed, as for a manifest that names few."""
    for gone in (3, 140):
        assert filled.delete(f"/v2/{NAME}/blobs/{sha256(LAYERS[gone])}").status_code == 202
    answer = filled.manifest(NAME, "v1", IMAGE)
    assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_BLOB_UNKNOWN"] * 2)
    assert [each["detail"] for each in json.loads(answer.data)["errors"]] == [sha256(LAYERS[3]), sha256(LAYERS[140])]


def test_a_layer_that_goes_after_it_was_judged_is_missed_by_the_append(
    filled: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No manifest is accepted whose blobs are not linked at that moment."""
    judge = Sets.judge

    def judged_too_early(sets: Sets, digest: str) -> JudgedSet:
        found = judge(sets, digest)
        filled.delete(f"/v2/{NAME}/blobs/{sha256(LAYERS[9])}")
        return found

    monkeypatch.setattr(Sets, "judge", judged_too_early)
    answer = filled.manifest(NAME, "v1", IMAGE)
    assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    assert json.loads(answer.data)["errors"][0]["detail"] == sha256(LAYERS[9])
    assert filled.get(f"/v2/{NAME}/manifests/v1").status_code == 404


def test_an_index_of_very_many_children_needs_each_of_them(filled: Registry) -> None:
    """A child may be there as a manifest or as a blob."""
    children = [image_of(CONFIG, [each]) for each in LAYERS]
    for each in children[:-1]:
        filled.manifest(NAME, sha256(each), each)
    index = index_of(children)
    answer = filled.manifest(NAME, "all", index, OCI_INDEX)
    assert (answer.status_code, json.loads(answer.data)["errors"][0]["detail"]) == (404, sha256(children[-1]))
    link_many(filled, NAME, children[-1:])
    assert filled.manifest(NAME, "all", index, OCI_INDEX).status_code == 201
    assert [each["digest"] for each in references_of(filled, children[0])] == [sha256(index)]


def test_a_manifest_with_very_many_tags_is_deleted_in_bounded_steps(filled: Registry, database: Database) -> None:
    """Its last tags go with it; no tag of another manifest does."""
    small, other = image_of(CONFIG, LAYERS[:2]), image_of(CONFIG, LAYERS[:1])
    filled.manifest(NAME, "other", other)
    tags = [f"t{number}" for number in range(2 * UNTAGGED_MAX + 30)]
    for start in range(0, len(tags), 100):
        query = "&".join(f"tag={each}" for each in tags[start : start + 100])
        assert filled.manifest(NAME, f"{sha256(small)}?{query}", small).status_code == 201
    before = filled.head_position()
    assert filled.delete(f"/v2/{NAME}/manifests/{sha256(small)}").status_code == 202
    assert json.loads(filled.get(f"/v2/{NAME}/tags/list").data)["tags"] == ["other"]
    assert filled.get(f"/v2/{NAME}/manifests/{sha256(small)}").status_code == 404
    with psycopg.connect(database.admin_url) as connection:
        steps = connection.execute(
            "SELECT array_agg(type ORDER BY position DESC), count(*) FROM log.es_event"
            " WHERE position > %s GROUP BY request_id, recorded_at ORDER BY max(position)",
            (before,),
        ).fetchall()
    assert [count for _, count in steps] == [UNTAGGED_MAX, UNTAGGED_MAX, 31]
    assert [types.count("ManifestDeleted") for types, _ in steps] == [0, 0, 1]
    assert filled.delete(f"/v2/{NAME}/manifests/{sha256(small)}").status_code == 404
    assert verify.verify(database.app_url) == []
