"""oras: artifacts, referrers by subject, files that come back the same, copies with all that refers to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from .images import ARCHITECTURES, random_bytes, read_blobs, write_layout
from .programs import Program
from .wire import Registry, digest_of

pytestmark = pytest.mark.clients

PLAIN = "--plain-http"
KIND = "application/vnd.example.test"


def _push(oras: Program, folder: Path, target: str) -> dict[str, Any]:
    """Push an artifact of two files; answers the descriptor that oras prints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text(f"hello from {target}\n")
    (folder / "b.bin").write_bytes(random_bytes(target, 700_000))
    files = ["a.txt:text/plain", "b.bin:application/octet-stream"]
    answer = json.loads(
        oras("push", PLAIN, "--format=json", f"--artifact-type={KIND}", target, *files, cwd=folder).text
    )
    assert isinstance(answer, dict)
    return answer


def _attach(oras: Program, folder: Path, subject: str, kind: str) -> str:
    """Attach a small file to a subject; answers the digest of the new referrer."""
    (folder / "note.txt").write_text(kind)
    done = oras("attach", PLAIN, "--format=json", f"--artifact-type={kind}", subject, "note.txt:text/plain", cwd=folder)
    return str(json.loads(done.text)["digest"])


def test_oras_pulls_the_files_that_it_pushed(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    target = f"{registry.host}/{repository}:1"
    pushed = _push(oras, tmp_path / "in", target)
    stored = registry.manifest(repository, "1")
    assert stored.digest == pushed["digest"]
    assert stored.json()["artifactType"] == KIND
    oras("pull", PLAIN, "-o", tmp_path / "out", target)
    for name in ("a.txt", "b.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


def test_oras_discovers_what_was_attached(oras: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """It finds referrers by the API, with its filter, and referrers of referrers."""
    target = f"{registry.host}/{repository}:1"
    subject = _push(oras, tmp_path, target)["digest"]
    signature = _attach(oras, tmp_path, target, "application/vnd.example.sig")
    bom = _attach(oras, tmp_path, target, "application/vnd.example.bom")
    nested = _attach(oras, tmp_path, f"{registry.host}/{repository}@{bom}", "application/vnd.example.sig")

    api = ["discover", PLAIN, "--format=json", "--distribution-spec=v1.1-referrers-api"]
    found = json.loads(oras(*api, target).text)
    assert found["digest"] == subject
    assert {entry["digest"] for entry in found["referrers"]} == {signature, bom}
    below = {entry["digest"]: entry.get("referrers", []) for entry in found["referrers"]}
    assert [entry["digest"] for entry in below[bom]] == [nested]
    filtered = json.loads(oras(*api, "--artifact-type=application/vnd.example.bom", target).text)
    assert [entry["digest"] for entry in filtered["referrers"]] == [bom]
    assert registry.tags(repository) == ["1"], "a registry with the referrers API gets no fallback tags"


def test_a_deleted_referrer_is_no_longer_discovered(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    target = f"{registry.host}/{repository}:1"
    _push(oras, tmp_path, target)
    signature = _attach(oras, tmp_path, target, "application/vnd.example.sig")
    oras("manifest", "delete", PLAIN, "--force", f"{registry.host}/{repository}@{signature}")
    found = json.loads(oras("discover", PLAIN, "--format=json", target).text)
    assert found["referrers"] == []


def test_oras_copies_an_artifact_with_its_referrers(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    source, target = f"{registry.host}/{repository}:1", f"{registry.host}/{repository}-copy:1"
    digest = _push(oras, tmp_path, source)["digest"]
    signature = _attach(oras, tmp_path, source, "application/vnd.example.sig")
    oras("cp", "-r", "--from-plain-http", "--to-plain-http", source, target)
    assert registry.manifest(f"{repository}-copy", "1").digest == digest
    found = json.loads(oras("discover", PLAIN, "--format=json", target).text)
    assert [entry["digest"] for entry in found["referrers"]] == [signature]


def test_oras_copies_a_multi_arch_image_there_and_back(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository, architectures=ARCHITECTURES)
    remote = f"{registry.host}/{repository}:v1"
    oras("cp", "--from-oci-layout", "--to-plain-http", f"{layout.folder}:{layout.tag}", remote)
    assert oras("resolve", PLAIN, remote).text == layout.digest
    oras("cp", "--from-plain-http", "--to-oci-layout", remote, f"{tmp_path}/back:v1")
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_oras_makes_an_index(oras: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    digests = []
    for architecture in ARCHITECTURES:
        layout = write_layout(tmp_path / architecture, repository, architectures=[architecture])
        digests.append(layout.digest)
        remote = f"{registry.host}/{repository}:{architecture}"
        oras("cp", "--from-oci-layout", "--to-plain-http", f"{layout.folder}:{layout.tag}", remote)
    oras("manifest", "index", "create", PLAIN, f"{registry.host}/{repository}:multi", *ARCHITECTURES)
    children = registry.manifest(repository, "multi").json()["manifests"]
    assert [child["digest"] for child in children] == digests
    assert [child["platform"]["architecture"] for child in children] == list(ARCHITECTURES)


def test_oras_pushes_fetches_and_deletes_a_blob(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    body = random_bytes(repository, 1_500_000)
    digest = digest_of(body)
    (tmp_path / "blob").write_bytes(body)
    name = f"{registry.host}/{repository}"
    oras("blob", "push", PLAIN, f"{name}@{digest}", tmp_path / "blob")
    assert oras("blob", "fetch", PLAIN, "-o", "-", f"{name}@{digest}").stdout == body
    oras("blob", "delete", PLAIN, "--force", f"{name}@{digest}")
    assert registry.request("HEAD", f"/v2/{repository}/blobs/{digest}").status == 404


def test_oras_tags_and_lists(oras: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    target = f"{registry.host}/{repository}:1"
    _push(oras, tmp_path, target)
    oras("tag", PLAIN, target, "latest", "stable")
    assert oras("repo", "tags", PLAIN, f"{registry.host}/{repository}").lines == ["1", "latest", "stable"]
    assert repository in oras("repo", "ls", PLAIN, registry.host).text


def test_oras_backs_up_and_restores_a_repository(
    oras: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Every tag and every referrer goes through a folder into another repository."""
    target = f"{registry.host}/{repository}"
    _push(oras, tmp_path, f"{target}:1")
    signature = _attach(oras, tmp_path, f"{target}:1", "application/vnd.example.sig")
    oras("tag", PLAIN, f"{target}:1", "2")
    oras("backup", PLAIN, "--include-referrers", "-o", tmp_path / "backup", target)
    oras("restore", PLAIN, "--input", tmp_path / "backup", f"{target}-restored")
    assert registry.tags(f"{repository}-restored") == ["1", "2"]
    assert registry.manifest(f"{repository}-restored", "2").body == registry.manifest(repository, "2").body
    found = json.loads(oras("discover", PLAIN, "--format=json", f"{target}-restored:1").text)
    assert [entry["digest"] for entry in found["referrers"]] == [signature]
