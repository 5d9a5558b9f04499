"""Clients that push over HTTP and send each request again until it succeeds, whatever fails meanwhile."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from domain.streams import link_stream, tag_stream
from eventstore.types import Recorded
from tests.api import image, sha256
from tests.clients.wire import Answer
from tests.races.clients import Connection, put_manifest
from tests.races.log import assert_chained, events_of_stream, log_of

RETRY_PAUSE_S = 0.1
BLOB_EVERY = 4
ASKED_AGAIN_MAX_S = 120.0


@dataclass
class Pusher:
    """One client with a repository and a tag of its own; it remembers its acknowledged pushes in order."""

    host: str
    repository: str
    acknowledged: list[str] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unknown_moves: int = 0
    longest_s: float = 0.0
    failure: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """Push one image after the other under the tag and read each back; some have a new layer."""
        self._api = Connection(self.host)
        try:
            while not stop.is_set():
                self._push()
        except BaseException as problem:  # noqa: BLE001 - raised by who waits for all of them
            self.failure = problem

    def _push(self) -> None:
        turn = len(self.acknowledged)
        if turn % BLOB_EVERY == 0:
            layer = f"layer {turn} of {self.repository}".encode()
            self._until(201, "POST", f"/v2/{self.repository}/blobs/uploads/?digest={sha256(layer)}", layer)
            self.blobs.append(layer)
        body = image(self.blobs[-1], annotations={"turn": str(turn)})
        put_manifest(self, self.repository, "latest", body)
        self.acknowledged.append(sha256(body))
        found = self._until(200, "GET", f"/v2/{self.repository}/manifests/latest")
        assert found.headers["docker-content-digest"] == self.acknowledged[-1]

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request again and again until it succeeds; answers its answer."""
        return self._until(201, method, path, body, headers)

    def _until(
        self, status: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request again while the answer is 503; fails unless another answer has this status."""
        give_up = time.monotonic() + ASKED_AGAIN_MAX_S
        while True:
            began = time.monotonic()
            answer = self._api.ask(method, path, body, headers)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.statuses[answer.status] += 1
            if answer.status == status:
                return answer
            assert answer.status == 503, answer
            self.unknown_moves += method == "PUT"
            assert int(answer.headers["retry-after"]) > 0
            assert time.monotonic() < give_up, f"{method} {path} is never done"
            time.sleep(RETRY_PAUSE_S)


@contextmanager
def pushing(host: str, clients: int, prefix: str) -> Iterator[list[Pusher]]:
    """Let so many clients push during the block, into repositories whose names begin with the prefix.

    If one of them fails, its error is raised at the end.
    """
    stop = threading.Event()
    pushers = [Pusher(host, f"faults/{prefix}{number}") for number in range(clients)]
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in pushers]
    for each in threads:
        each.start()
    try:
        yield pushers
    finally:
        stop.set()
        for each in threads:
            each.join()
    for pusher in pushers:
        if pusher.failure is not None:
            raise pusher.failure


def done(pushers: list[Pusher]) -> list[int]:
    """The number of acknowledged pushes of each client."""
    return [len(each.acknowledged) for each in pushers]


def told(pushers: list[Pusher]) -> str:
    """A line that counts the pushes and the answers to the clients."""
    statuses = sum((each.statuses for each in pushers), Counter[int]())
    longest = max(each.longest_s for each in pushers)
    return f"{sum(done(pushers))} pushes, answers {dict(sorted(statuses.items()))}, longest request {longest:.2f} s"


def assert_each_once(database_url: str, pushers: list[Pusher]) -> None:
    """Check that each tag moved through the acknowledged images in order and no others, and each blob was linked once.

    A push that was answered 503 may have been done. Sent again, it is another push of the same image, which moves the
    tag to the digest that it names already. Any other event would have been appended behind the client's back.
    """
    with log_of(database_url) as store:
        for each in pushers:
            moves = events_of_stream(store, tag_stream(each.repository, "latest"))
            assert_chained(moves)
            told = [digest_of(move) for move in moves]
            assert [digest for digest, _ in groupby(told)] == each.acknowledged
            assert len(moves) <= len(each.acknowledged) + each.unknown_moves
            for layer in each.blobs:
                linked = events_of_stream(store, link_stream(each.repository, sha256(layer)))
                assert [event.type for event in linked] == ["BlobLinked"]


def digest_of(move: Recorded) -> str:
    """The manifest that the tag names after a TagMoved."""
    return str(json.loads(move.data)["digest"])
