"""GET /healthz tells that the process lives, GET /readyz that it can serve, or else what is missing."""

import json
from collections.abc import Callable

from blobstore.interface import BlobStore, BlobStoreError
from eventstore.store import Store
from eventstore.types import StoreError
from protocol.messages import Answer, json_answer


class Health:
    """The checks of one API process."""

    def __init__(self, store: Store, blobs: BlobStore, refusal: Callable[[], str | None]) -> None:
        self._store = store
        self._refusal = refusal
        self._blobs = blobs

    def alive(self) -> Answer:
        """200 as long as the process answers at all."""
        return json_answer(200, b'{"status":"alive"}')

    def ready(self) -> Answer:
        """200 if this program serves the database's schema, the database takes writes and the disk bytes; else 503."""
        problems = [*self._database(), *self._bytes()]
        body = json.dumps({"status": "not ready" if problems else "ready", "problems": problems}).encode()
        return json_answer(503 if problems else 200, body, [("Cache-Control", "no-store")])

    def _database(self) -> list[str]:
        try:
            found = self._store.log_info()
        except StoreError as problem:
            return [f"database: {problem}"]
        refusal = found.schema.refusal()
        if refusal is not None:
            return [f"schema: {refusal}"]
        forbidden = self._refusal()
        if forbidden is not None:
            return [f"registration: {forbidden}"]
        if found.read_only:
            return ["database: takes no writes (it is read-only)"]
        refused = self._store.write_problem()
        return [f"database: takes no writes ({refused})"] if refused else []

    def _bytes(self) -> list[str]:
        try:
            self._blobs.check()
        except BlobStoreError as problem:
            return [f"blobs: {problem}"]
        return []
