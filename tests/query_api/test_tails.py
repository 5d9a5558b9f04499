"""After a projector was dead for long, a GET still takes no more of the tail than it shows."""

import pytest

from projections.reader import OVERLAY_EVENTS
from tests.api import Registry, sha256

NAME = "u/app"
LAYER = b"of all images"
TAGS, PAGE, DELETED = 24, 3, (0, 1, 5)
# Events beyond those that are shown: of a tag and its manifest, and one that tells that there is another page.
MORE = 2


def digest_of(registry: Registry, name: str, tag: str) -> str:
    """The digest of the manifest that a tag names."""
    return registry.head(f"/v2/{name}/manifests/{tag}").headers["Docker-Content-Digest"]


@pytest.fixture
def behind(registry: Registry) -> Registry:
    """A registry whose read models know nothing: many tags, of which some are gone, and repositories of one layer."""
    for number in range(TAGS):
        registry.push(NAME, f"t{number:02d}", LAYER, bytes([number % 4]))
    for number in DELETED:
        registry.delete(f"/v2/{NAME}/manifests/t{number:02d}")
    for name in ("a", "b", "c", "d", "e"):
        registry.push(f"other/{name}", "v1", LAYER)
    registry.delete(f"/v2/other/b/manifests/{digest_of(registry, 'other/b', 'v1')}")
    return registry


def paths(registry: Registry) -> dict[str, int]:
    """The path of each question with a short page, and how many events its answer shows."""
    listed = {
        f"/v2/_catalog?n={PAGE}": PAGE,
        f"/v2/_catalog?n={PAGE}&last=other/a": PAGE,
        f"/v2/{NAME}/tags/list?n={PAGE}": PAGE,
        f"/v2/{NAME}/tags/list?n={PAGE}&last=t04": PAGE,
        f"/api/v1/repositories/{NAME}/history?n={PAGE}": PAGE,
        f"/api/v1/repositories/{NAME}/history?n={PAGE}&tag=t05": PAGE,
        # Manifests, and the repositories that link it.
        f"/api/v1/blobs/{sha256(LAYER)}/references?n={PAGE}": PAGE + 6,
    }
    return listed | {
        f"/v2/{NAME}/manifests/t20": 2,
        f"/v2/{NAME}/manifests/t05": 1,
        f"/v2/{NAME}/manifests/{digest_of(registry, NAME, 't20')}": 1,
    }


def test_a_question_brings_no_more_of_the_tail_than_it_shows(behind: Registry) -> None:
    """Its answer is the same as that of read models that have folded everything."""
    answers = {}
    for path, shown in paths(behind).items():
        before = OVERLAY_EVENTS._value.get()
        answers[path] = behind.get(path)
        assert OVERLAY_EVENTS._value.get() - before <= shown + MORE, path
    assert answers[f"/v2/{NAME}/tags/list?n={PAGE}"].get_json()["tags"] == ["t02", "t03", "t04"]
    assert answers[f"/v2/{NAME}/tags/list?n={PAGE}&last=t04"].get_json()["tags"] == ["t06", "t07", "t08"]
    assert answers[f"/v2/_catalog?n={PAGE}"].get_json()["repositories"] == ["other/a", "other/c", "other/d"]
    assert answers[f"/v2/{NAME}/manifests/t05"].status_code == 404
    behind.project()
    for path, answer in answers.items():
        again = behind.get(path)
        assert (again.status_code, again.headers.get("Link")) == (answer.status_code, answer.headers.get("Link")), path
        if answer.status_code == 200:
            assert again.data == answer.data, path


def test_a_blob_is_found_without_any_read_model(behind: Registry) -> None:
    """Its unlinking and a new link are seen too, and nothing of the tail is read for that."""
    path = f"/v2/{NAME}/blobs/{sha256(LAYER)}"
    before = OVERLAY_EVENTS._value.get()
    assert (behind.get(path).status_code, behind.head(f"/v2/other/z/blobs/{sha256(LAYER)}").status_code) == (200, 404)
    assert behind.delete(path).status_code == 202
    assert (behind.get(path).status_code, behind.get(f"/v2/other/a/blobs/{sha256(LAYER)}").status_code) == (404, 200)
    behind.blob(NAME, LAYER)
    assert behind.get(path).data == LAYER
    assert OVERLAY_EVENTS._value.get() == before


def test_pages_from_rows_and_tail_together_are_complete(behind: Registry) -> None:
    """The read models have some of the tags and manifests, and some of these are gone since."""
    behind.project()
    for number in (2, 6, 9):
        behind.delete(f"/v2/{NAME}/manifests/t{number:02d}")
    for number in (1, 30, 31):
        behind.push(NAME, f"t{number:02d}", LAYER, b"new")
    behind.push("other/b", "v2", LAYER)
    behind.push("other/bb", "v1", LAYER)
    behind.delete(f"/v2/other/d/manifests/{digest_of(behind, 'other/d', 'v1')}")
    gone = {*DELETED, 2, 6, 9} - {1}
    wanted = [f"t{number:02d}" for number in (*range(TAGS), 30, 31) if number not in gone]
    for _ in range(2):
        assert paged(behind, f"/v2/{NAME}/tags/list?n=2", "tags") == wanted
        assert paged(behind, "/v2/_catalog?n=2", "repositories") == [
            *("other/a", "other/b", "other/bb", "other/c", "other/e", NAME)
        ]
        behind.project()


def paged(registry: Registry, path: str, name: str) -> list[str]:
    """All entries of a list, page after page."""
    found: list[str] = []
    while path:
        answer = registry.get(path)
        found += answer.get_json()[name]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found
