"""The ways in which a client pushes, and what it knows of its push when its connection breaks."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

from werkzeug.wrappers import Response

from tests.api import Registry, image, sha256

HEAD = 40
CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()


@dataclass(slots=True)
class Push:
    """One client's push into a repository of its own; `kept` has the acknowledged paths with their bytes."""

    repository: str
    layer: bytes
    kept: dict[str, bytes] = field(default_factory=dict)
    # The locations of the sessions that the client was told of.
    sessions: list[str] = field(default_factory=list)

    @property
    def uploads(self) -> str:
        """The path at which sessions are opened."""
        return f"/v2/{self.repository}/blobs/uploads/"

    @property
    def manifest(self) -> bytes:
        """An image of the layer."""
        return image(CONFIG, self.layer)

    def keep_blob(self, answer: Response, data: bytes) -> None:
        """Note that this answer acknowledges the blob."""
        assert answer.status_code == 201, answer.data
        self.kept[f"/v2/{self.repository}/blobs/{sha256(data)}"] = data

    def keep_manifest(self, answer: Response, *references: str) -> None:
        """Note that this answer acknowledges the manifest under these references."""
        assert answer.status_code == 201, answer.data
        for each in (sha256(self.manifest), *references):
            self.kept[f"/v2/{self.repository}/manifests/{each}"] = self.manifest


def opened(registry: Registry, push: Push) -> str:
    """Open a session; answers its location."""
    answer = registry.post(push.uploads)
    assert answer.status_code == 202, answer.data
    push.sessions.append(answer.headers["Location"])
    return push.sessions[-1]


def chunk(registry: Registry, session: str, data: bytes, first: int) -> None:
    """PATCH with Content-Range."""
    answer = registry.patch(session, data=data, headers={"Content-Range": f"{first}-{first + len(data) - 1}"})
    assert answer.status_code == 202, answer.data


def closed(registry: Registry, push: Push, session: str, data: bytes = b"") -> None:
    """PUT that closes a session, with a last chunk or without."""
    push.keep_blob(registry.put(f"{session}?digest={sha256(push.layer)}", data=data), push.layer)


def monolithic(registry: Registry, push: Push) -> None:
    """POST with the digest."""
    push.keep_blob(registry.post(f"{push.uploads}?digest={sha256(push.layer)}", data=push.layer), push.layer)


def put_alone(registry: Registry, push: Push) -> None:
    """POST, PUT with everything."""
    closed(registry, push, opened(registry, push), push.layer)


def chunked(registry: Registry, push: Push) -> None:
    """POST, PATCH twice with ranges, PUT of nothing more."""
    session = opened(registry, push)
    chunk(registry, session, push.layer[:HEAD], 0)
    chunk(registry, session, push.layer[HEAD:], HEAD)
    closed(registry, push, session)


def last_chunk_in_put(registry: Registry, push: Push) -> None:
    """POST, PATCH, PUT with the rest."""
    session = opened(registry, push)
    chunk(registry, session, push.layer[:HEAD], 0)
    closed(registry, push, session, push.layer[HEAD:])


def refused_first(registry: Registry, push: Push) -> None:
    """POST, PATCH, PUT whose last chunk has other bytes than its digest says, PUT with the right ones."""
    session = opened(registry, push)
    chunk(registry, session, push.layer[:HEAD], 0)
    answer = registry.put(f"{session}?digest={sha256(push.layer)}", data=b"other bytes")
    assert answer.status_code == 400, answer.data
    closed(registry, push, session, push.layer[HEAD:])


def streamed(registry: Registry, push: Push) -> None:
    """POST, PATCH of a stream whose length is not said, PUT."""
    session = opened(registry, push)
    body = {"wsgi.input": BytesIO(push.layer), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = registry.patch(session, environ_overrides=body)
    assert answer.headers["Range"] == f"0-{len(push.layer) - 1}", answer.data
    closed(registry, push, session)


def cancelled(registry: Registry, push: Push) -> None:
    """POST, PATCH, DELETE of the session."""
    session = opened(registry, push)
    chunk(registry, session, push.layer[:HEAD], 0)
    assert registry.delete(session).status_code == 204


def in_another_repository(registry: Registry, push: Push) -> None:
    """Push the layer into another repository first."""
    other = Push(f"{push.repository}/other", push.layer, push.kept)
    monolithic(registry, other)


def mounted(registry: Registry, push: Push) -> None:
    """POST with `mount`."""
    query = f"?mount={sha256(push.layer)}&from={push.repository}/other"
    push.keep_blob(registry.post(push.uploads + query), push.layer)


def blobs_of_an_image(registry: Registry, push: Push) -> None:
    """Push layer and config first."""
    monolithic(registry, push)
    registry.blob(push.repository, CONFIG)


def by_tag(registry: Registry, push: Push) -> None:
    """PUT of a manifest under a tag."""
    push.keep_manifest(registry.manifest(push.repository, "t", push.manifest), "t")


def by_digest(registry: Registry, push: Push) -> None:
    """PUT of a manifest under its digest and two tags."""
    reference = f"{sha256(push.manifest)}?tag=a&tag=b"
    push.keep_manifest(registry.manifest(push.repository, reference, push.manifest), "a", "b")


def nothing(registry: Registry, push: Push) -> None:
    """Push nothing first."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to push: its name, the client's requests, and what is pushed before them."""

    name: str
    act: Callable[[Registry, Push], None]
    before: Callable[[Registry, Push], None] = nothing


WAYS = (
    Way("monolithic", monolithic),
    Way("put alone", put_alone),
    Way("chunked", chunked),
    Way("last chunk in put", last_chunk_in_put),
    Way("refused first", refused_first),
    Way("streamed", streamed),
    Way("cancelled", cancelled),
    Way("over a live blob", chunked, in_another_repository),
    Way("mounted", mounted, in_another_repository),
    Way("manifest by tag", by_tag, blobs_of_an_image),
    Way("manifest by digest", by_digest, blobs_of_an_image),
)
