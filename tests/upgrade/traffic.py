"""Requests that bring an event of every type into the log, over the wire alone: any release answers them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
TIMEOUT_S = 60.0


def digest_of(data: bytes) -> str:
    """Its sha256 digest text."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, media_type: str) -> dict[str, object]:
    """The digest by which manifests name it."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


@dataclass
class Client:
    """A client that fails on any answer that it does not expect."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def close(self) -> None:
        """Close its connections."""
        self.session.close()

    def ask(self, method: str, path: str, *expected: int, **more: Any) -> requests.Response:
        """The answer; raises AssertionError unless its status is an expected one."""
        answer = self.session.request(method, f"{self.url}{path}", timeout=TIMEOUT_S, **more)
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer

    def blob(self, repository: str, data: bytes) -> str:
        """Upload it at once."""
        self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", 201, data=data)
        return digest_of(data)

    def chunks(self, repository: str, data: bytes, size: int) -> str:
        """Upload it in chunks, and close the session with the last one."""
        location = self.ask("POST", f"/v2/{repository}/blobs/uploads/", 202).headers["Location"]
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            headers = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
            location = self.ask("PATCH", location, 202, data=piece, headers=headers).headers["Location"]
        mark = "&" if "?" in location else "?"
        self.ask("PUT", f"{location}{mark}digest={digest_of(data)}", 201)
        return digest_of(data)

    def manifest(self, repository: str, reference: str, document: dict[str, object], media_type: str) -> bytes:
        """PUT it and answer its bytes."""
        body = json.dumps(document).encode()
        headers = {"Content-Type": media_type}
        self.ask("PUT", f"/v2/{repository}/manifests/{reference}", 201, data=body, headers=headers)
        return body

    def push(self, repository: str, tag: str, text: str, **more: object) -> bytes:
        """Push an image of two blobs that are made of the text."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"text": text}}}).encode()
        layer = f"layer of {text}".encode()
        self.blob(repository, config)
        self.blob(repository, layer)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config, CONFIG),
            "layers": [descriptor(layer, LAYER)],
            **more,
        }
        return self.manifest(repository, tag, document, MANIFEST)


def everything(client: Client) -> None:
    """Make a few hundred events in four repositories: images, an index, referrers, moves, deletions, ends of sessions.

    One session is left open; it expires, if the server's `upload_expiry_s` is short.
    """
    for repository in ("you/app", "you/base", "them/app"):
        images = [client.push(repository, f"v{number}", f"{repository} {number}") for number in range(6)]
        client.push(repository, "latest", f"{repository} 5")
        client.push(repository, "latest", f"{repository} newest", annotations={"made": "again"})
        children = [descriptor(each, MANIFEST) for each in images[:3]]
        client.manifest(repository, "all", {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, INDEX)
        for number, subject in enumerate(images[2:4]):
            signature = {"subject": descriptor(subject, MANIFEST), "artifactType": "application/vnd.example.signature"}
            client.push(repository, f"signature-{number}", f"{repository} signature {number}", **signature)
        client.ask("DELETE", f"/v2/{repository}/manifests/v0", 202)
        client.ask("DELETE", f"/v2/{repository}/manifests/{digest_of(images[5])}", 202)
    layer = client.chunks("chunks/only", b"0123456789" * 40, 100)
    client.ask("POST", f"/v2/you/app/blobs/uploads/?mount={layer}&from=chunks/only", 201)
    unused = client.blob("you/app", b"named by no manifest")
    client.ask("DELETE", f"/v2/you/app/blobs/{unused}", 202)
    location = client.ask("POST", "/v2/you/app/blobs/uploads/", 202).headers["Location"]
    client.ask("DELETE", location, 204)
    # A session is surely in the log only once it has a chunk, and only then can the keeper let it expire.
    location = client.ask("POST", "/v2/you/app/blobs/uploads/", 202).headers["Location"]
    client.ask("PATCH", location, 202, data=b"never ended")


def answers(client: Client) -> Iterator[tuple[str, dict[str, object]]]:
    """The registry's answers about all that it has except bytes of blobs: the path, and status, type and body."""
    catalog = client.ask("GET", "/v2/_catalog", 200).json()["repositories"]
    yield "/v2/_catalog", {"status": 200, "body": {"repositories": catalog}}
    for repository in catalog:
        listed = client.session.get(f"{client.url}/v2/{repository}/tags/list", timeout=TIMEOUT_S)
        yield f"/v2/{repository}/tags/list", {"status": listed.status_code, "body": listed.json()}
        history = client.ask("GET", f"/api/v1/repositories/{repository}/history", 200)
        yield f"/api/v1/repositories/{repository}/history", {"status": 200, "body": history.json()}
        for tag in listed.json().get("tags") or ():
            path = f"/v2/{repository}/manifests/{tag}"
            found = client.ask("GET", path, 200, headers={"Accept": f"{MANIFEST}, {INDEX}"})
            yield path, {"status": 200, "type": found.headers["Content-Type"], "text": found.text}
            digest = found.headers["Docker-Content-Digest"]
            path = f"/v2/{repository}/referrers/{digest}"
            referrers = client.ask("GET", path, 200).json()
            yield path, {"status": 200, "body": referrers}
