"""The questions that can be asked about the repositories of a model by GET and HEAD, with the right answers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.clients.wire import Answer
from tests.races.model import Model, Repository, Session

HISTORY_PAGE = 100
# Of a JSON answer, what is compared; keys that the model does not know, such as times, are left out.
Part = Any


@dataclass(frozen=True)
class Question:
    """A request, and what must come back: status, some headers, the body or what is read from its JSON."""

    method: str
    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    member: str | None = None
    listed: Part = None

    def differs(self, answer: Answer) -> str | None:
        """The fault of an answer, None if there is none."""
        if answer.status != self.status:
            return f"{self.method} {self.path}: {answer.status}, not {self.status}: {answer.body[:200]!r}"
        for name, value in self.headers.items():
            if answer.headers.get(name) != value:
                return f"{self.method} {self.path}: {name} {answer.headers.get(name)}, not {value}"
        if self.body is not None and answer.body != self.body:
            return f"{self.method} {self.path}: {answer.body[:200]!r}, not {self.body[:200]!r}"
        if self.member is not None and (found := self._read(answer)) != self.listed:
            return f"{self.method} {self.path}: {self.member} {found}, not {self.listed}"
        return None

    def _read(self, answer: Answer) -> Part:
        found = answer.json()[self.member]
        match self.member:
            case "entries":
                return [(each["what"], each["tag"], each["from"], each["to"]) for each in found]
            case "repositories":
                return [each for each in found if each.startswith(self.path.partition("last=")[2])]
            case "manifests" if self.path.endswith("/references"):
                return [(each["repository"], each["digest"], each["role"]) for each in found]
        return found


def questions(model: Model) -> Iterator[Question]:
    """All questions about a model."""
    for repository in model.repositories.values():
        yield from of_repository(repository)
    yield of_catalog(model)
    for session in model.sessions:
        yield of_session(session)
    for digest in sorted({each for one in model.repositories.values() for each in one.blobs_ever}):
        yield of_references(model, digest)


def of_repository(repository: Repository) -> Iterator[Question]:
    """Its tags, manifests, blobs, referrers, history."""
    for tag in sorted(repository.tags_ever):
        yield from of_manifest(repository, tag, repository.tags.get(tag))
    for digest in repository.manifests_ever:
        yield from of_manifest(repository, digest, digest if digest in repository.manifests else None)
        yield of_referrers(repository, digest)
    for digest in sorted(repository.blobs_ever):
        yield from of_blob(repository, digest)
    path = f"/v2/{repository.name}/tags/list"
    if repository.known:
        yield Question("GET", path, 200, member="tags", listed=sorted(repository.tags))
        entries = repository.history[: -HISTORY_PAGE - 1 : -1]
        yield Question("GET", f"/api/v1/repositories/{repository.name}/history", 200, member="entries", listed=entries)
    else:
        yield Question("GET", path, 404)


def of_manifest(repository: Repository, reference: str, digest: str | None) -> Iterator[Question]:
    """GET and HEAD of a manifest by tag or digest."""
    path = f"/v2/{repository.name}/manifests/{reference}"
    if digest is None:
        yield from (Question(method, path, 404) for method in ("GET", "HEAD"))
        return
    manifest = repository.manifests[digest]
    headers = {"docker-content-digest": digest, "content-type": manifest.media_type}
    yield Question("GET", path, 200, headers, manifest.body)
    yield Question("HEAD", path, 200, headers | {"content-length": str(len(manifest.body))})


def of_blob(repository: Repository, digest: str) -> Iterator[Question]:
    """GET and HEAD of a blob."""
    path = f"/v2/{repository.name}/blobs/{digest}"
    data = repository.blobs.get(digest)
    if data is None:
        yield from (Question(method, path, 404) for method in ("GET", "HEAD"))
        return
    yield Question("GET", path, 200, body=data)
    yield Question("HEAD", path, 200, {"content-length": str(len(data)), "docker-content-digest": digest})


def of_referrers(repository: Repository, subject: str) -> Question:
    """The manifests that name a subject."""
    found = sorted(each.digest for each in repository.manifests.values() if each.subject == subject)
    listed = [repository.manifests[each].descriptor for each in found]
    return Question("GET", f"/v2/{repository.name}/referrers/{subject}", 200, member="manifests", listed=listed)


def of_catalog(model: Model) -> Question:
    """The repositories of the model that have a manifest; they follow each other in the catalog."""
    listed = sorted(each.name for each in model.repositories.values() if each.manifests)
    path = f"/v2/_catalog?n={len(model.names)}&last={model.prefix}/"
    return Question("GET", path, 200, member="repositories", listed=listed)


def of_session(session: Session) -> Question:
    """The state of an upload."""
    if not session.is_open:
        return Question("GET", session.location, 404)
    last = max(len(session.data) - 1, 0)
    return Question("GET", session.location, 204, {"range": f"0-{last}"})


def of_references(model: Model, digest: str) -> Question:
    """The manifests that name a blob."""
    path = f"/api/v1/blobs/{digest}/references"
    linked = any(digest in each.blobs for each in model.repositories.values())
    found = []
    for repository in model.repositories.values():
        for manifest in repository.manifests.values():
            role = next((role for role, named in manifest.needs if named == digest), None)
            if role is not None:
                found.append((repository.name, manifest.digest, role))
    if not linked and not found:
        return Question("GET", path, 404)
    return Question("GET", path, 200, member="manifests", listed=sorted(found))
