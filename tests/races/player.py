"""Sends commands to a registry and tells them to a model; each status must be the one that the model foretells."""

from collections.abc import Iterable
from urllib.parse import urlencode

from tests.api import sha256
from tests.clients.wire import Answer
from tests.races.clients import Api, put_manifest
from tests.races.model import Manifest, Model, Repository, Session

# The conditions of a PUT on the manifest that the tag names: header, whose digest, and True if it holds.
CONDITIONS = (
    "none",
    "match-named",
    "match-other",
    "match-any",
    "none-match-named",
    "none-match-other",
    "none-match-any",
)
CONDITIONS_OF_DELETE = ("none", "match-named", "match-other", "match-any")
OTHER = sha256(b"no manifest at all")


class Player:
    """Plays against one model; each method is one command by way of one API."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def repository(self, name: str) -> Repository:
        """A repository by the last part of its name."""
        return self.model.repositories[f"{self.model.prefix}/{name}"]

    def upload(self, api: Api, name: str, data: bytes) -> None:
        """A whole blob by one POST."""
        repository = self.repository(name)
        path = f"/v2/{repository.name}/blobs/uploads/?digest={sha256(data)}"
        expect(api.ask("POST", path, data), 201)
        repository.link(data, "blob-uploaded")

    def start(self, api: Api, name: str) -> Session:
        """Open a session."""
        repository = self.repository(name)
        return self._opened(repository, expect(api.ask("POST", f"/v2/{repository.name}/blobs/uploads/"), 202))

    def mount(self, api: Api, name: str, origin: str, data: bytes) -> Session | None:
        """Mount a blob from another repository; a session if nobody links it."""
        repository = self.repository(name)
        linked = any(sha256(data) in each.blobs for each in self.model.repositories.values())
        query = urlencode({"mount": sha256(data), "from": self.repository(origin).name})
        answer = expect(api.ask("POST", f"/v2/{repository.name}/blobs/uploads/?{query}"), 201 if linked else 202)
        if not linked:
            return self._opened(repository, answer)
        repository.link(data, "blob-mounted")
        return None

    def chunk(self, api: Api, session: Session, data: bytes, ahead: int = 0) -> None:
        """Send a chunk announced so many bytes `ahead` of its place: 416 unless that is 0."""
        first = len(session.data) + ahead
        headers = {"Content-Range": f"{first}-{first + len(data) - 1}"}
        status = 404 if not session.is_open else 416 if ahead else 202
        expect(api.ask("PATCH", session.location, data, headers), status)
        if status == 202:
            session.data += data
            session.moved_at = self.model.hour

    def finish(self, api: Api, session: Session, rest: bytes, *, right: bool = True) -> None:
        """Send the closing PUT with the last bytes, under the right digest or a wrong one, perhaps once more."""
        whole = session.data + rest if session.is_open else session.data
        digest = sha256(whole) if right else OTHER
        repeated = session.digest == digest and self.model.hour - session.moved_at <= 24
        status = (201 if right else 400) if session.is_open else 201 if repeated else 404
        expect(api.ask("PUT", f"{session.location}?digest={digest}", rest if session.is_open else b""), status)
        if session.is_open and right:
            session.data, session.digest, session.is_open, session.moved_at = whole, digest, False, self.model.hour
            self.model.repositories[session.repository].link(whole, "blob-uploaded")

    def cancel(self, api: Api, session: Session) -> None:
        """Give a session up."""
        expect(api.ask("DELETE", session.location), 204 if session.is_open else 404)
        session.is_open = False

    def push(self, api: Api, name: str, manifest: Manifest, tag: str, condition: str = "none") -> None:
        """PUT by tag, maybe on a condition."""
        repository = self.repository(name)
        named = repository.tags.get(tag)
        headers, holds = condition_of(condition, named)
        status = 404 if not repository.has_all(manifest) else 201 if holds else 412
        answer = put_manifest(api, repository.name, tag, manifest.body, manifest.media_type, **headers)
        repository.tags_ever.add(tag)
        self._pushed(expect(answer, status), repository, manifest, [tag])

    def push_by_digest(self, api: Api, name: str, manifest: Manifest, tags: Iterable[str]) -> None:
        """PUT by digest, with any number of tags."""
        repository = self.repository(name)
        tags = list(tags)
        query = urlencode([("tag", each) for each in tags])
        reference = f"{manifest.digest}?{query}" if tags else manifest.digest
        answer = put_manifest(api, repository.name, reference, manifest.body, manifest.media_type)
        self._pushed(expect(answer, 201 if repository.has_all(manifest) else 404), repository, manifest, tags)

    def delete_tag(self, api: Api, name: str, tag: str, condition: str = "none") -> None:
        """DELETE by tag, maybe on a condition."""
        repository = self.repository(name)
        headers, holds = condition_of(condition, repository.tags.get(tag))
        status = 404 if tag not in repository.tags else 202 if holds else 412
        expect(api.ask("DELETE", f"/v2/{repository.name}/manifests/{tag}", headers=headers), status)
        if status == 202:
            repository.untag(tag)

    def delete_manifest(self, api: Api, name: str, digest: str) -> None:
        """DELETE by digest."""
        repository = self.repository(name)
        answer = api.ask("DELETE", f"/v2/{repository.name}/manifests/{digest}")
        expect(answer, 202 if repository.delete(digest) else 404)

    def delete_blob(self, api: Api, name: str, digest: str) -> None:
        """DELETE of a blob."""
        repository = self.repository(name)
        answer = api.ask("DELETE", f"/v2/{repository.name}/blobs/{digest}")
        expect(answer, 202 if repository.unlink(digest) else 404)

    def _opened(self, repository: Repository, answer: Answer) -> Session:
        made = Session(answer.headers["location"], repository.name, self.model.hour)
        self.model.sessions.append(made)
        return made

    def _pushed(self, answer: Answer, repository: Repository, manifest: Manifest, tags: list[str]) -> None:
        repository.manifests_ever.setdefault(manifest.digest, manifest)
        if answer.status == 201:
            assert answer.headers["docker-content-digest"] == manifest.digest
            assert answer.headers.get("oci-subject") == manifest.subject
            repository.push(manifest, tags)


def condition_of(condition: str, named: str | None) -> tuple[dict[str, str], bool]:
    """The header of a condition, and whether it holds for a tag that names this digest."""
    kind, _, what = condition.rpartition("-")
    if not kind:
        return {}, True
    value = {"named": named or OTHER, "other": OTHER, "any": "*"}[what]
    equal = named is not None if what == "any" else named == value
    header = {"match": "If-Match", "none-match": "If-None-Match"}[kind]
    return {header: value if what == "any" else f'"{value}"'}, equal == (kind == "match")


def expect(answer: Answer, status: int) -> Answer:
    """The answer, if it has this status; a refusal must be shaped as the protocol says."""
    assert answer.status == status, answer
    if status >= 400:
        assert answer.json()["errors"][0]["code"]
    return answer
