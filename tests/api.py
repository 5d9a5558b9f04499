"""Runs the whole registry in the test's process over a real Postgres; requests need no server, so they are cheap."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from werkzeug.test import Client
from werkzeug.wrappers import Response

from domain.digests import digest_of
from domain.media_types import OCI_INDEX, OCI_MANIFEST
from eventstore.types import UPLOADS
from projections.engine.setup import ensure_tables
from projections.projector import project
from tagtrail.config import resolve
from tagtrail.shell import Application
from tagtrail.wiring import Rooms, make_rooms, make_wsgi
from tests.folded import wait_folded
from tests.postgres import Database

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def sha256(data: bytes) -> str:
    """The digest text of some bytes."""
    return str(digest_of("sha256", data))


def image(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """An image manifest over blobs, as bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG_TYPE, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": sha256(each), "size": len(each)} for each in layers],
        **more,
    }
    return json.dumps(document).encode()


def index(*manifests: bytes, **more: Any) -> bytes:
    """An index over manifests, as bytes."""
    children = [{"mediaType": OCI_MANIFEST, "digest": sha256(each), "size": len(each)} for each in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **more}).encode()


class Registry(Client):
    """A client of a registry in this process, with short forms of the requests that tests need."""

    def __init__(self, rooms: Rooms) -> None:
        self.application: Application = make_wsgi(rooms)
        super().__init__(self.application, Response)
        self.rooms = rooms
        self.names: dict[str, str] = {}

    def blob(self, repository: str, data: bytes) -> str:
        """Upload a blob and answer its digest."""
        answer = self.post(f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data=data)
        assert answer.status_code == 201, answer.data
        return sha256(data)

    def manifest(
        self, repository: str, reference: str, body: bytes, media_type: str = OCI_MANIFEST, **options: Any
    ) -> Response:
        """PUT a manifest."""
        return self.put(f"/v2/{repository}/manifests/{reference}", data=body, content_type=media_type, **options)

    def push(self, repository: str, tag: str, *layers: bytes, **more: Any) -> str:
        """Push a whole image and answer its manifest's digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "tag": tag}).encode()
        for each in (config, *layers):
            self.blob(repository, each)
        body = image(config, *layers, **more)
        answer = self.manifest(repository, tag, body)
        assert answer.status_code == 201, answer.data
        return sha256(body)

    def head_position(self) -> int:
        """The position of the log's last event."""
        return self.rooms.store.head()

    def heads(self) -> tuple[int, int]:
        """The positions of the last events of the history and of the log of uploads."""
        return self.head_position(), self.rooms.store.head(UPLOADS)

    def project(self) -> None:
        """Run a projector until it has folded everything."""
        stop = threading.Event()
        url = self.rooms.settings.database_url
        thread = threading.Thread(target=project, args=(url, stop))
        thread.start()
        try:
            wait_folded(url, self.head_position())
        finally:
            stop.set()
            thread.join()


def codes(answer: Response) -> list[str]:
    """The error codes of an answer."""
    return [each["code"] for each in json.loads(answer.data)["errors"]]


@contextmanager
def registry_over(database: Database, folder: Path, *, tail: bool = True, **options: Any) -> Iterator[Registry]:
    """Run a registry over a migrated database and a data folder during the block; `options` are those of `serve`."""
    ensure_tables(database.app_url)
    flags = {"data": str(folder), "database": database.app_url, "access_log": False, **options}
    settings = resolve(flags, {"TAGTRAIL_TEST_CLOCK": str(folder / "clock")}).settings
    rooms = make_rooms(settings, tail=tail)
    rooms.commands.blobs.prepare()
    try:
        yield Registry(rooms)
    finally:
        rooms.close()
