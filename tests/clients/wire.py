"""A plain HTTP client of the registry, by which tests check what another client has pushed."""

import hashlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ACCEPTED = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
ANSWER_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry serves it."""

    digest: str
    media_type: str
    body: bytes

    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry, named by its ``host`` ("127.0.0.1:PORT")."""

    host: str

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request, answer whatever comes back."""
        connection = http.client.HTTPConnection(self.host, timeout=ANSWER_SECONDS_MAX)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            answered = response.read()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, answered)
        finally:
            connection.close()

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Read a manifest by tag or digest; checks that its bytes have the digest that the registry names."""
        answer = self.request("GET", f"/v2/{repository}/manifests/{reference}", {"Accept": ACCEPTED})
        assert answer.status == 200, f"{repository}:{reference}: {answer.status} {answer.body[:300]!r}"
        named = answer.headers["docker-content-digest"]
        assert digest_of(answer.body, named.partition(":")[0]) == named
        return Manifest(named, answer.headers["content-type"], answer.body)

    def manifest_status(self, repository: str, reference: str) -> int:
        """The status of a HEAD of a manifest."""
        return self.request("HEAD", f"/v2/{repository}/manifests/{reference}", {"Accept": ACCEPTED}).status

    def blob(self, repository: str, digest: str) -> bytes:
        """Read a blob; checks that its bytes have that digest."""
        answer = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        assert answer.status == 200, f"{repository}@{digest}: {answer.status} {answer.body[:300]!r}"
        assert digest_of(answer.body, digest.partition(":")[0]) == digest
        return answer.body

    def put_blob(self, repository: str, body: bytes) -> dict[str, Any]:
        """Upload a blob in one piece; answers the start of a descriptor, without a media type."""
        digest = digest_of(body)
        started = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert started.status == 202, f"{started.status} {started.body[:300]!r}"
        where = urlsplit(started.headers["location"])
        query = f"{where.query}&" if where.query else ""
        kind = {"Content-Type": "application/octet-stream"}
        done = self.request("PUT", f"{where.path}?{query}digest={digest}", kind, body)
        assert done.status == 201, f"{done.status} {done.body[:300]!r}"
        return {"digest": digest, "size": len(body)}

    def put_manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> Answer:
        """Push a manifest as it is, answer whatever comes back."""
        return self.request("PUT", f"/v2/{repository}/manifests/{reference}", {"Content-Type": media_type}, body)

    def tags(self, repository: str) -> list[str]:
        """The tag list of a repository."""
        answer = self.request("GET", f"/v2/{repository}/tags/list")
        assert answer.status == 200, f"{repository}: {answer.status} {answer.body[:300]!r}"
        tags = answer.json()["tags"]
        assert isinstance(tags, list)
        return tags


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    """The digest of some bytes, as the registry writes it."""
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
