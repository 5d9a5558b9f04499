"""Clients that push as real ones do: they try again after a 503 or a broken connection, and resume uploads."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from domain.media_types import OCI_MANIFEST
from tests.api import image, sha256
from tests.clients.wire import Answer
from tests.faults.ledger import Ledger, Session
from tests.races.clients import Connection

REPOSITORIES = tuple(f"kills/app{number}" for number in range(4))
MOVING_TAGS = tuple(f"moving{number}" for number in range(8))
SHARED_LAYERS = 12
LEFT_MAX = 4
RETRY_PAUSE_S = 0.1
RETRY_PAUSE_MAX_S = 1.0
# Longer than several restarts in a row take on a machine that is ten times slower than usual.
PATIENCE_S = 240.0
# Clients may try again after several statuses, but here they should never see another one than this.
TRY_AGAIN = 503


class GaveUp(Exception):
    """A client gives up a request to which no answer came."""


class Line:
    """One client's connection, which breaks when its server does."""

    def __init__(self, host: str, ledger: Ledger) -> None:
        self._host = host
        self._ledger = ledger
        self._connection: Connection | None = None

    def once(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer | None:
        """Send one request; None if no answer came, or one that asks to try again."""
        if self._connection is None:
            self._connection = Connection(self._host)
        began = time.monotonic()
        try:
            answer = self._connection.ask(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self._connection = None
            self._ledger.count("broken")
            return None
        finally:
            self._ledger.took(f"{method} {path}", time.monotonic() - began)
        if answer.status == TRY_AGAIN:
            self._ledger.count("answered 503")
            return None
        return answer

    def stubbornly(self, what: str, ask: Callable[[], Answer | None]) -> Answer:
        """Call `ask` until it gives an answer, and answer that; AssertionError after PATIENCE_S seconds."""
        began, pause = time.monotonic(), RETRY_PAUSE_S
        while (answer := ask()) is None:
            assert time.monotonic() - began < PATIENCE_S, f"{what}: no answer in {PATIENCE_S:g} s"
            time.sleep(pause)
            pause = min(2 * pause, RETRY_PAUSE_MAX_S)
        return answer

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request again and again until it is answered."""
        return self.stubbornly(f"{method} {path}", lambda: self.once(method, path, body, headers))


class Pusher:
    """One client that pushes an image and reads something back, again and again, until it is told to stop."""

    def __init__(self, name: str, seed: int, host: str, ledger: Ledger, stop: threading.Event, pause_s: float) -> None:
        self._name = name
        self._chance = random.Random(f"{seed}/{name}")
        self._line = Line(host, ledger)
        self._ledger = ledger
        self._stop = stop
        self._pause_s = pause_s
        self._left: list[Session] = []
        self._pushes = 0

    def run(self) -> None:
        """Push and read until told to stop; a wrong answer is noted and ends it."""
        try:
            while not self._stop.wait(self._chance.uniform(0, 2 * self._pause_s)):
                self.push()
                self.read_back()
        except Exception as problem:
            self._ledger.complain(f"client {self._name}: {problem!r}")
            raise

    def push(self) -> None:
        """Push an image of new layers and an old one, under a tag of its own and under tags that all clients move."""
        chance, repository = self._chance, self._chance.choice(REPOSITORIES)
        self._pushes += 1
        name = f"{self._name}-{self._pushes}"
        config = json.dumps({"architecture": "amd64", "os": "linux", "name": name}).encode()
        layers = [chance.randbytes(chance.randrange(100, 6000)) for _ in range(chance.choice((1, 2)))]
        layers.append(b"shared layer %d" % chance.randrange(SHARED_LAYERS))
        for each in (config, *layers):
            self._upload(repository, each)
        body = image(config, *layers)
        tags = [name, *chance.sample(MOVING_TAGS, chance.randrange(3))]
        try:
            self._put_manifest(repository, body, tags, f"{sha256(body)}?{'&'.join(f'tag={each}' for each in tags)}")
            moved = chance.choice(MOVING_TAGS)
            self._put_manifest(repository, body, [moved], moved)
            self._ledger.count("pushes")
        except GaveUp:
            self._ledger.count("given up")

    def _put_manifest(self, repository: str, body: bytes, tags: Sequence[str], reference: str) -> None:
        path = f"/v2/{repository}/manifests/{reference}"

        def put() -> Answer | None:
            writes = self._ledger.begin(repository, tags, sha256(body))
            answer = self._line.once("PUT", path, body, {"Content-Type": OCI_MANIFEST})
            if answer is not None and answer.status == 201:
                self._ledger.acknowledge(writes)
            return answer

        answer = put() if self._chance.random() < 0.2 else self._line.stubbornly(f"PUT {path}", put)
        if answer is None:
            raise GaveUp
        expect(answer, 201, f"PUT {path}")
        with self._ledger.lock:
            self._ledger.manifests[repository, sha256(body)] = body

    def _upload(self, repository: str, data: bytes) -> None:
        """Upload a blob in one request or by a session; now and then also leave or resume another upload."""
        if self._chance.random() < 0.25:
            self._leave_or_resume(repository)
        if self._chance.random() < 0.4:
            path = f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}"
            expect(self._line.ask("POST", path, data), 201, f"POST {path}")
        else:
            while not finish(self._line, self._ledger, open_session(self._line, self._ledger, repository, data), 2):
                self._ledger.count("uploads begun anew")
        with self._ledger.lock:
            self._ledger.blobs[repository, sha256(data)] = len(data)

    def _leave_or_resume(self, repository: str) -> None:
        """Leave a new upload, or take one up that was left before."""
        if len(self._left) >= LEFT_MAX:
            session = self._left.pop(self._chance.randrange(len(self._left)))
            if finish(self._line, self._ledger, session, 1):
                with self._ledger.lock:
                    self._ledger.blobs[session.repository, sha256(session.data)] = len(session.data)
            return
        session = open_session(self._line, self._ledger, repository, self._chance.randbytes(3000))
        if chunk(self._line, self._ledger, session, self._chance.randrange(2, 3000)):
            self._left.append(session)

    def read_back(self) -> None:
        """Read a manifest, a blob and a tag, any of those that were acknowledged to some client."""
        with self._ledger.lock:
            manifest, blob, tag = (
                self._chance.choice(list(each)) if each else None
                for each in (self._ledger.manifests, self._ledger.blobs, self._ledger.tags)
            )
        for problem in (
            manifest and wrong_manifest(self._line, self._ledger, manifest),
            blob and wrong_blob(self._line, self._ledger, blob),
            tag and wrong_tag(self._line, self._ledger, tag),
        ):
            if problem:
                self._ledger.complain(problem)


def open_session(line: Line, ledger: Ledger, repository: str, data: bytes) -> Session:
    """Open a session that is to hold `data`."""
    path = f"/v2/{repository}/blobs/uploads/"
    answer = expect(line.ask("POST", path), 202, f"POST {path}")
    session = Session(repository, answer.headers["location"], data)
    with ledger.lock:
        ledger.sessions.append(session)
    return session


def length_of(line: Line, session: Session) -> int | None:
    """The number of bytes that the registry has of a session; None if it knows no such session."""
    answer = line.ask("GET", session.location)
    if answer.status == 404:
        return None
    expect(answer, 204, f"GET {session.location}")
    # 0-0 says one byte or none; no first chunk here is of one byte.
    last = int(answer.headers["range"].partition("-")[2])
    return last + 1 if last else 0


def chunk(line: Line, ledger: Ledger, session: Session, length: int) -> bool:
    """Send the next bytes of a session; False if it is gone. After a broken connection it asks how many arrived."""
    while True:
        first = session.acknowledged
        part = session.data[first : first + length]
        session.sent = max(session.sent, first + len(part))
        headers = {"Content-Range": f"{first}-{first + len(part) - 1}"}
        answer = line.once("PATCH", session.location, part, headers)
        if answer is not None and answer.status == 202:
            session.acknowledged = first + len(part)
            return True
        if answer is not None and answer.status == 404:
            return gone(line, ledger, session, "PATCH")
        if answer is not None:
            # An earlier request of this client may still be at work.
            expect(answer, 416, f"PATCH {session.location}")
        time.sleep(RETRY_PAUSE_S)
        found = length_of(line, session)
        if found is None:
            return gone(line, ledger, session, "GET")
        if not session.acknowledged <= found <= session.sent:
            ledger.complain(f"{session.location} has {found}, not {session.acknowledged}..{session.sent} bytes")
        session.acknowledged = found
        if found > first:
            return True


def finish(line: Line, ledger: Ledger, session: Session, chunks: int) -> bool:
    """Send the rest of a session and close it; False if it is gone and the upload has to begin anew."""
    missing = len(session.data) - session.acknowledged
    while session.acknowledged < len(session.data):
        if not chunk(line, ledger, session, max(2, missing // chunks)):
            return False
    path = f"{session.location}?digest={sha256(session.data)}"
    session.closing = True

    def put() -> Answer | None:
        answer = line.once("PUT", path)
        return None if answer is not None and answer.status == 416 else answer

    answer = line.stubbornly(f"PUT {path}", put)
    if answer.status == 404:
        return gone(line, ledger, session, "PUT")
    expect(answer, 201, f"PUT {path}")
    with ledger.lock:
        ledger.sessions.remove(session)
    return True


def gone(line: Line, ledger: Ledger, session: Session, by: str) -> bool:
    """Note a session that answered 404: its end must have been asked for, and every method must answer 404."""
    found = length_of(line, session)
    if found is not None:
        ledger.complain(f"{session.location}: {by} says 404, GET says that it has {found} bytes")
    elif not session.closing:
        ledger.complain(f"{session.location}: {by} says 404, but nobody has ended it")
    with ledger.lock:
        ledger.sessions.remove(session)
    return False


def wrong_manifest(line: Line, ledger: Ledger, place: tuple[str, str]) -> str | None:
    """The fault of an answer to a GET of an acknowledged manifest."""
    repository, digest = place
    answer = line.ask("GET", f"/v2/{repository}/manifests/{digest}")
    whole = answer.status == 200 and answer.body == ledger.manifests[place]
    return None if whole else f"manifest {repository}@{digest}: {answer.status} {answer.body[:200]!r}"


def wrong_blob(line: Line, ledger: Ledger, place: tuple[str, str]) -> str | None:
    """The fault of an answer to a GET of an acknowledged blob."""
    repository, digest = place
    answer = line.ask("GET", f"/v2/{repository}/blobs/{digest}")
    whole = answer.status == 200 and sha256(answer.body) == digest and len(answer.body) == ledger.blobs[place]
    return None if whole else f"blob {repository}@{digest}: {answer.status} {answer.body[:200]!r}"


def wrong_tag(line: Line, ledger: Ledger, place: tuple[str, str]) -> str | None:
    """The fault of an answer to a GET of a tag."""
    repository, tag = place
    began = time.monotonic()
    answer = line.ask("GET", f"/v2/{repository}/manifests/{tag}")
    found = {200: sha256(answer.body), 404: None}.get(answer.status, str(answer.status))
    possible = ledger.possible(place, began)
    return None if found in possible else f"tag {repository}:{tag} is {found}, not one of {possible}"


def expect(answer: Answer, status: int, what: str) -> Answer:
    """The answer, if it has this status."""
    assert answer.status == status, f"{what}: {answer.status} {answer.body[:300]!r}"
    return answer
