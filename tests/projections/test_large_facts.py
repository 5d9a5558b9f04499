"""Manifests with long annotations: pages of referrers are complete and bounded, and so are the facts of one fold."""

import json
from typing import Any

import psycopg
import pytest

from domain.event import to_json
from domain.facts import ANNOTATIONS_BYTES_MAX, ANNOTATIONS_LEFT_OUT, facts_from_json, facts_to_json
from domain.manifest_parser import parse_manifest
from domain.media_types import OCI_MANIFEST
from eventstore.types import Content
from projections.all_models import models_named
from projections.builds import set_fold
from projections.builds.rebuild import rebuild
from projections.builds.verify import verify
from projections.engine import build_tables, folding, runner
from projections.engine.setup import engine_for
from projections.models import referrers
from query_api import lists
from tests.api import Registry, codes, image, index, sha256
from tests.postgres import Database

NAME = "u/app"
CONFIG = b"{}"
SUBJECT = image(CONFIG)
KINDS = ("application/vnd.test.a", "application/vnd.test.b")
# Annotations that fill a page alone, some that share a page, the marker of omitted ones as a client's own, and none.
LONG = [
    {"text": "ä" * 1_600_000},
    {"one": "x" * 700_000, "two": 'quoted "' * 50_000},
    *({"short": str(number)} for number in range(8)),
    *({"middle": str(number) * ANNOTATIONS_BYTES_MAX} for number in range(4)),
    {ANNOTATIONS_LEFT_OUT: "", "and": "more"},
    {},
]


def referrer(number: int, annotations: dict[str, str]) -> bytes:
    """A manifest about the subject."""
    named = {"mediaType": OCI_MANIFEST, "digest": sha256(SUBJECT), "size": len(SUBJECT)}
    kind = KINDS[number % 2]
    return image(CONFIG, subject=named, artifactType=kind, annotations={"n": str(number), **annotations})


REFERRERS = {sha256(body): body for body in (referrer(number, each) for number, each in enumerate(LONG))}


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """A registry that holds the subject and all referrers."""
    registry.blob(NAME, CONFIG)
    for body in (SUBJECT, *REFERRERS.values()):
        assert registry.manifest(NAME, sha256(body), body).status_code == 201
    return registry


def paged(registry: Registry, query: str = "") -> tuple[list[dict[str, Any]], list[int]]:
    """All referrers of the subject, page after page, and the sizes of the pages."""
    path, found, sizes = f"/v2/{NAME}/referrers/{sha256(SUBJECT)}{query}", [], []
    while path:
        answer = registry.get(path)
        assert answer.status_code == 200
        sizes.append(len(answer.data))
        found += json.loads(answer.data)["manifests"]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found, sizes


def expected(*, kind: str | None = None, without: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The entries that a client must get, without those of `without`, and of one kind if `kind` is given."""
    made = []
    for digest, body in sorted(REFERRERS.items()):
        document = json.loads(body)
        if digest not in without and kind in (None, document["artifactType"]):
            described = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(body)}
            made.append(described | {"artifactType": document["artifactType"], "annotations": document["annotations"]})
    return made


def assert_right(registry: Registry, without: frozenset[str] = frozenset()) -> None:
    """Check that all referrers are listed, in pages that no client refuses."""
    found, sizes = paged(registry)
    assert found == expected(without=without)
    assert len(sizes) > 2
    assert max(sizes) < 4 * 1024 * 1024
    for kind in KINDS:
        assert paged(registry, f"?artifactType={kind}")[0] == expected(kind=kind, without=without)


def project_some(registry: Registry, database: Database) -> None:
    """Let the model fold half of the log."""
    with engine_for(database.app_url).connect() as connection:
        live = build_tables.live(connection, referrers.model)
        connection.commit()
        runner.advance(connection, live, registry.head_position(), batch=registry.head_position() // 2)


def test_referrers_with_long_annotations_are_paged_to_the_end(filled: Registry, database: Database) -> None:
    """They are read from the tail, half folded, all folded, and after some were deleted and pushed again."""
    assert_right(filled)
    project_some(filled, database)
    assert_right(filled)
    filled.project()
    assert_right(filled)
    first, second, third = sorted(REFERRERS)[:3]
    for each in (first, second, third):
        assert filled.delete(f"/v2/{NAME}/manifests/{each}").status_code == 202
    filled.manifest(NAME, second, REFERRERS[second])
    assert_right(filled, frozenset({first, third}))
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        longest = connection.execute(
            "SELECT max(octet_length(annotations_json)) FROM readmodel.referrers_s3"
        ).fetchone()
    assert longest is not None
    assert 0 < longest[0] <= ANNOTATIONS_BYTES_MAX
    filled.project()
    assert_right(filled, frozenset({first, third}))
    assert [(each.name, each.samples) for each in verify(database.app_url) if not each.equal] == []


def test_a_page_may_be_empty_and_the_next_one_is_not(filled: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that would have filled the page were deleted since."""
    filled.project()
    monkeypatch.setattr(lists, "_REFERRERS_BYTES_MAX", 1)
    gone = frozenset(sorted(REFERRERS)[::2])
    for each in gone:
        filled.delete(f"/v2/{NAME}/manifests/{each}")
    found, sizes = paged(filled)
    assert found == expected(without=gone)
    assert len(sizes) == len(REFERRERS)


def test_facts_of_an_older_version_hold_all_annotations(registry: Registry, database: Database) -> None:
    """Such facts are cut when they are read, and both folds agree about them."""
    registry.blob(NAME, CONFIG)
    for body in (SUBJECT, *REFERRERS.values()):
        values = json.loads(facts_to_json(parse_manifest(body, OCI_MANIFEST).facts))
        values["annotations"] = json.loads(body).get("annotations", {})
        registry.rooms.store.put_content(Content(sha256(body), body, to_json(values)))
        assert registry.manifest(NAME, sha256(body), body).status_code == 201
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        size = connection.execute("SELECT max(octet_length(facts::text)) FROM log.es_content").fetchone()
        assert size is not None
        assert size[0] > 1_000_000
    assert_right(registry)
    registry.project()
    assert_right(registry)
    assert rebuild(database.app_url, referrers.model).mended.equal
    assert [(each.name, each.samples) for each in verify(database.app_url) if not each.equal] == []


def test_facts_stay_small_whatever_a_manifest_says() -> None:
    """Annotations that fit are kept as they are."""
    for body in REFERRERS.values():
        text = facts_to_json(parse_manifest(body, OCI_MANIFEST).facts)
        assert len(text) < 2 * ANNOTATIONS_BYTES_MAX
        said = json.loads(body)["annotations"]
        kept = facts_from_json(text).annotations
        assert kept in (said, {ANNOTATIONS_LEFT_OUT: ""})
        assert (kept == said) == (len(json.dumps(said, separators=(",", ":"))) <= ANNOTATIONS_BYTES_MAX)


def test_annotations_beyond_what_a_client_takes_are_refused(registry: Registry) -> None:
    """The push is refused, because no list could show such annotations. Those of a manifest of 4 MiB are taken."""
    registry.blob(NAME, CONFIG)
    body = image(CONFIG, annotations={"text": "x" * (4 * 1024 * 1024)})
    answer = registry.manifest(NAME, "v1", body)
    assert (answer.status_code, codes(answer)) == (400, ["MANIFEST_INVALID"])
    left = 4 * 1024 * 1024 - len(image(CONFIG, annotations={"text": ""}))
    assert registry.manifest(NAME, "v1", image(CONFIG, annotations={"text": "x" * left})).status_code == 201


@pytest.mark.parametrize("bound", [1, 5])
def test_the_facts_that_are_folded_at_a_time_are_bounded(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """The bound counts references, so even few manifests are folded in parts; the result is the same."""
    brought: list[int] = []
    fold = folding._load

    def counting(connection: Any, model: Any, table: Any, keys: Any) -> Any:
        if model.name == "blob_references":
            brought.append(len(keys))
        return fold(connection, model, table, keys)

    images = [registry.push(NAME, f"t{number}", *(bytes([number, each]) for each in range(3))) for number in range(6)]
    registry.manifest(NAME, "all", index(*(registry.get(f"/v2/{NAME}/manifests/{each}").data for each in images)))
    registry.delete(f"/v2/{NAME}/manifests/{images[0]}")
    monkeypatch.setattr(folding, "CHUNK_REFERENCES", bound)
    monkeypatch.setattr(folding, "TRANSACTION_REFERENCES", 2 * bound)
    monkeypatch.setattr(set_fold, "RANGE_FACTS_BYTES", 500 * bound)
    monkeypatch.setattr(folding, "_load", counting)
    registry.project()
    assert max(brought) <= max(6, bound + 4)
    assert [(each.name, each.samples) for each in verify(database.app_url) if not each.equal] == []
    for model in models_named("all"):
        assert rebuild(database.app_url, model).mended.equal, model.name
