"""The rest of a body after its answer is read up to a size, for a time, and of so many clients at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from command_api.bodies import BodyLimits
from protocol.gates import AddressGate
from tagtrail.draining import BYTES_MAX, KEPT_BYTES_MAX, SECONDS_MAX, Drain, RequestBody, take_body
from tagtrail.waits import BodyWaits

ADDRESS = "192.0.2.1"
RATE = 1024
GRACE_S = 10.0


class Client:
    """Sends a body of so many bytes at so many bytes a second, on a clock of its own."""

    def __init__(self, size: int, rate: float = 1e9) -> None:
        self.left = size
        self.now = 0.0
        self.lingering: list[str] = []
        self._rate = rate

    def read(self, size: int) -> bytes:
        """Read as wsgi.input does: it gives less than was asked for only at the end."""
        sent = min(size, self.left)
        self.left -= sent
        self.now += sent / self._rate
        return bytes(sent)

    def clock(self) -> float:
        """The time that has passed for the client."""
        return self.now


class Answer:
    """An answer of one block, whose end may fail."""

    def __init__(self, problem: Exception | None = None) -> None:
        self._problem = problem

    def __iter__(self) -> Iterator[bytes]:
        yield b"answer"

    def close(self) -> None:
        """Called at the end."""
        if self._problem is not None:
            raise self._problem


def environ(client: Client, length: int | None, **more: str) -> dict[str, Any]:
    """The environment that the server gives of a request; without a length the body comes in chunks."""
    announced = {"HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {"CONTENT_LENGTH": str(length)}
    return {"wsgi.input": client, "REMOTE_ADDR": ADDRESS, **announced, **more}


def body_of(client: Client, length: int | None, **more: str) -> RequestBody:
    """The body of such a request."""
    found = take_body(environ(client, length, **more), BodyWaits())
    assert found is not None
    return found


def drain(client: Client, places: int = 1) -> Drain:
    """A drain with a gate of its own."""
    gate = AddressGate(per_address_max=places, total_max=places)
    return Drain(BodyLimits(RATE, GRACE_S), gate, client.lingering.append, client.clock)


def finish(answer: Any) -> list[bytes]:
    """Take an answer as the server does."""
    blocks = list(answer)
    answer.close()
    return blocks


def test_a_request_without_a_body_is_left_alone() -> None:
    given = {"wsgi.input": object(), "CONTENT_LENGTH": "0"}
    before = dict(given)
    assert take_body(given, BodyWaits()) is None
    assert given == before


@pytest.mark.parametrize(
    ("size", "length", "kept"),
    [
        (10, 10, True),
        (KEPT_BYTES_MAX, KEPT_BYTES_MAX, True),
        (KEPT_BYTES_MAX + 1, KEPT_BYTES_MAX + 1, False),
        (10, None, False),
    ],
)
def test_the_rest_is_read_and_a_small_one_keeps_the_connection(size: int, length: int | None, kept: bool) -> None:
    client = Client(size)
    answer, keeps = drain(client).after(Answer(), body_of(client, length), ADDRESS)
    assert (keeps, client.left) == (kept, size)
    assert finish(answer) == [b"answer"]
    assert client.left == 0


def test_bytes_that_were_read_already_are_not_waited_for() -> None:
    client = Client(100)
    body = body_of(client, 100)
    given = Answer()
    body.read(100)
    assert drain(client).after(given, body, ADDRESS) == (given, True)
    partly = Client(KEPT_BYTES_MAX + 100)
    rest = body_of(partly, KEPT_BYTES_MAX + 100)
    rest.read(100)
    answer, keeps = drain(partly).after(given, rest, ADDRESS)
    assert keeps
    finish(answer)
    assert partly.left == 0


def test_the_end_of_a_body_in_chunks_is_known_only_by_reading_to_it() -> None:
    client = Client(100)
    body = body_of(client, None)
    body.read(100)
    assert not body.ended
    body.read(16)
    assert body.ended


def test_a_client_that_asks_is_answered_before_the_server_reads() -> None:
    """The answer has more blocks than the server takes before it sends, and the connection is closed."""
    client = Client(10)
    answer, keeps = drain(client).after(Answer(), body_of(client, 10, HTTP_EXPECT="100-Continue"), ADDRESS)
    assert not keeps
    blocks = finish(answer)
    assert (blocks[0], set(blocks[1:])) == (b"answer", {b""})
    assert len(blocks) > 5
    assert client.left == 0


@pytest.mark.parametrize(
    ("client", "read_least", "read_most"),
    [
        (Client(4 * BYTES_MAX), BYTES_MAX, BYTES_MAX + (1 << 20)),
        (Client(BYTES_MAX, rate=2048), SECONDS_MAX * 2048, (SECONDS_MAX + 10) * 2048),
        (Client(BYTES_MAX, rate=1), 1, 20 * RATE),
    ],
    ids=["too much", "too long", "too slow"],
)
def test_the_rest_of_a_body_is_read_up_to_a_limit(client: Client, read_least: float, read_most: float) -> None:
    size = client.left
    answer, _ = drain(client).after(Answer(), body_of(client, size), ADDRESS)
    finish(answer)
    assert read_least <= size - client.left <= read_most


def test_the_rest_of_one_body_too_many_is_not_read() -> None:
    """Its answer says that the connection closes. Each end frees a place, also that of an answer that failed."""
    client = Client(100)
    only = drain(client)
    given = Answer()
    held, _ = only.after(Answer(RuntimeError("broken")), body_of(client, 100), ADDRESS)
    assert only.after(given, body_of(client, 100), ADDRESS) == (given, False)
    assert client.lingering == [ADDRESS]
    with pytest.raises(RuntimeError, match="broken"):
        finish(held)
    assert client.left == 0
    again, _ = only.after(given, body_of(Client(100), 100), ADDRESS)
    assert again is not given


def test_an_answer_that_nobody_sends_gives_its_place_back() -> None:
    client = Client(100)
    only = drain(client)
    given = Answer()
    only.after(given, body_of(client, 100), ADDRESS)
    again, _ = only.after(given, body_of(client, 100), ADDRESS)
    assert again is not given
    assert client.left == 100
