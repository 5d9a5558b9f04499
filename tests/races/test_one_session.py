"""Several clients share one upload session: one of them goes on, and the others are told the session's offset.

The long form is `make test-long PART=one_session`.
"""

import http.client
import random
import secrets
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from domain.streams import upload_stream
from tests.api import sha256
from tests.clients.wire import Answer
from tests.races.clients import ANSWER_TIMEOUT_S, Connection, put_whole_blob, together
from tests.races.log import events_of_stream, log_of
from tests.servers import RunningServer
from tests.sessions import upload_of
from tests.waiting import eventually

SEED = 20261126
CHUNK_BYTES_MAX = 300_000


def start(host: str, repository: str) -> str:
    """Open a session; answers its location."""
    answer = Connection(host).ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert answer.status == 202
    return answer.headers["location"]


def offset_of(answer: Answer) -> int:
    """The number of bytes that the Range of an answer tells. 0-0 means none or one; no test here sends only one."""
    last = int(answer.headers["range"].partition("-")[2])
    return last + 1 if last else 0


@dataclass
class Session:
    """The acknowledged pieces of one session by their offset, whichever client sent them."""

    location: str
    pieces: dict[int, bytes] = field(default_factory=dict)
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledged(self, at: int, piece: bytes) -> None:
        """Note a chunk that was answered 202, and check that no other one has its place."""
        with self.lock:
            assert at not in self.pieces
            self.pieces[at] = piece

    def data(self) -> bytes:
        """The bytes that were acknowledged, which must follow each other without a gap."""
        whole = b""
        for at, piece in sorted(self.pieces.items()):
            assert at == len(whole)
            whole += piece
        return whole


def write(host: str, session: Session, seed: int, chunks: int, announced: bool) -> None:
    """Send chunks at the offset that this client knows; after a refusal go on at the offset that it tells."""
    chance = random.Random(seed)
    api = Connection(host)
    known = sent = 0
    while sent < chunks:
        piece = chance.randbytes(chance.randrange(2, CHUNK_BYTES_MAX))
        headers = {"Content-Range": f"{known}-{known + len(piece) - 1}"} if announced else {}
        answer = api.ask("PATCH", session.location, piece, headers)
        assert answer.status in (202, 416), answer
        stands = offset_of(answer)
        if answer.status == 202:
            session.acknowledged(stands - len(piece), piece)
            assert not announced or stands == known + len(piece)
            sent += 1
        else:
            assert answer.json()["errors"][0]["code"] == "BLOB_UPLOAD_INVALID"
            session.refused += 1
        assert stands >= known
        known = stands


@contextmanager
def watching(host: str, location: str) -> Iterator[None]:
    """Ask for the session's status again and again during the block, and check that it never goes back."""
    stop = threading.Event()

    def watch() -> None:
        api = Connection(host)
        known = 0
        while not stop.is_set():
            answer = api.ask("GET", location)
            assert answer.status == 204
            assert offset_of(answer) >= known
            known = offset_of(answer)

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            yield
        finally:
            stop.set()
        watched.result()


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("sessions", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_chunks_of_two_clients_never_mix(server: RunningServer, sessions: int, announced: bool) -> None:
    """Each chunk is whole in its place or refused with the offset to go on at; the blob has the acknowledged bytes."""
    print(f"seed {SEED}")
    refused = 0
    for number in range(sessions):
        repository = f"races/{secrets.token_hex(6)}"
        session = Session(start(server.host, repository))
        with watching(server.host, session.location):
            seeds = (SEED + 2 * number, SEED + 2 * number + 1)
            together([partial(write, server.host, session, seed, 6, announced) for seed in seeds])
        data = session.data()
        path = f"{session.location}?digest={sha256(data)}"
        assert Connection(server.host).ask("PUT", path).status == 201
        assert Connection(server.host).ask("GET", f"/v2/{repository}/blobs/{sha256(data)}").body == data
        refused += session.refused
    print(f"{refused} chunks were refused")
    assert refused > 0


def ends(host: str, location: str, first: bytes, one: bytes, other: bytes) -> dict[str, Callable[[], Answer]]:
    """The requests to a session that holds `first`: two ends with other bytes, a chunk, a cancellation, a look."""
    place = {"Content-Range": f"{len(first)}-{len(first) + len(one) - 1}"}

    def ask(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Callable[[], Answer]:
        return lambda: Connection(host).ask(method, path, body, headers)

    return {
        "put one": ask("PUT", f"{location}?digest={sha256(first + one)}", one),
        "put other": ask("PUT", f"{location}?digest={sha256(first + other)}", other),
        "chunk": ask("PATCH", location, one, place),
        "cancel": ask("DELETE", location),
        "look": ask("GET", location),
    }


def assert_as_logged(answers: dict[str, Answer], types: list[str], offsets: list[int]) -> None:
    """Check that exactly the clients that were told of success have an event, and that refusals tell an offset."""
    told = {name: answer.status for name, answer in answers.items()}
    assert types[:2] == ["UploadStarted", "ChunkAppended"]
    assert (told.get("chunk") == 202) == ("ChunkAppended" in types[2:]), (told, types)
    assert (told.get("cancel") == 204) == ("UploadCancelled" in types), (told, types)
    assert (201 in told.values()) == ("UploadCommitted" in types), (told, types)
    assert list(told.values()).count(201) + types.count("UploadCancelled") <= 1
    for name, answer in answers.items():
        # The answer is 400 if a chunk came first: the bytes then have another digest than the PUT said.
        digests_differ = answer.status == 400 and told.get("chunk") == 202
        assert answer.status in ((204, 404) if name == "look" else (201, 202, 204, 404, 416)) or digests_differ, answer
        if answer.status == 416:
            assert offset_of(answer) in offsets


@pytest.mark.parametrize("sessions", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_everything_at_once_in_one_session_mixes_no_bytes(server: RunningServer, sessions: int) -> None:
    """The session ends in one way. A client that is told of success is right; others are refused by 404 or 416."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    ended: Counter[str] = Counter()
    for _ in range(sessions):
        repository = f"races/{secrets.token_hex(6)}"
        first, one, other = (chance.randbytes(chance.randrange(2, 100_000)) for _ in range(3))
        location = start(server.host, repository)
        assert Connection(server.host).ask("PATCH", location, first).status == 202
        calls = ends(server.host, location, first, one, other)
        names = chance.sample(sorted(calls), chance.randrange(2, len(calls) + 1))
        answers = dict(zip(names, together([calls[each] for each in names]), strict=True))
        with log_of(server.database_url) as log:
            types = [each.type for each in events_of_stream(log, upload_stream(upload_of(location)))]
        assert_as_logged(answers, types, [len(first), len(first + one)])
        for name, data in (("put one", first + one), ("put other", first + other)):
            got = Connection(server.host).ask("GET", f"/v2/{repository}/blobs/{sha256(data)}")
            committed = name in answers and answers[name].status == 201
            assert (got.status, got.body == data) == ((200, True) if committed else (404, False))
        ended[types[-1]] += 1
    print(f"sessions ended by {dict(ended)}")
    assert set(ended) == {"UploadCancelled", "UploadCommitted", "ChunkAppended"}


class SlowBody:
    """A request whose body comes in two halves, as slowly as its client likes."""

    def __init__(self, host: str, method: str, path: str, body: bytes) -> None:
        self._http = http.client.HTTPConnection(host, timeout=ANSWER_TIMEOUT_S)
        self._rest = body[len(body) // 2 :]
        self._http.putrequest(method, path)
        self._http.putheader("Content-Length", str(len(body)))
        self._http.endheaders()
        self._http.send(body[: len(body) // 2])

    def is_answered(self) -> bool:
        """True if the answer came before the body was there."""
        return bool(select.select([self._http.sock], [], [], 0)[0])

    def end(self) -> int:
        """Send the rest unless the answer is there already; answers its status."""
        if not self.is_answered():
            self._http.send(self._rest)
        response = self._http.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


@pytest.mark.parametrize("recorded", [0, 100_000], ids=["new", "begun"])
def test_a_cancelled_session_gives_its_place_to_nobody_while_it_is_written(
    server: RunningServer, recorded: int
) -> None:
    """A slow PUT of the right bytes, a DELETE, a slow PATCH of other bytes: what others have linked stays as it is."""
    data, wrong = (random.Random(SEED + each).randbytes(400_000) for each in range(2))
    owner, repository = (f"races/{secrets.token_hex(6)}" for _ in range(2))
    assert put_whole_blob(Connection(server.host), owner, data) == 201
    location = start(server.host, repository)
    if recorded:
        assert Connection(server.host).ask("PATCH", location, data[:recorded]).status == 202
    staging = server.data / "uploads" / upload_of(location)
    put = SlowBody(server.host, "PUT", f"{location}?digest={sha256(data)}", data[recorded:])
    with closing(put):
        eventually(lambda: staging.exists() and staging.stat().st_size > recorded)
        held = staging.stat().st_ino
        assert Connection(server.host).ask("DELETE", location).status == 204
        patch = SlowBody(server.host, "PATCH", location, wrong)
        with closing(patch):
            eventually(lambda: patch.is_answered() or (staging.exists() and staging.stat().st_ino != held))
            assert (put.end(), patch.end()) == (404, 404)
    assert Connection(server.host).ask("GET", f"/v2/{owner}/blobs/{sha256(data)}").body == data
    assert Connection(server.host).ask("GET", f"/v2/{repository}/blobs/{sha256(data)}").status == 404
    assert not staging.exists()
