"""A long answer holds one of the places for downloads and goes out in blocks; a short one does neither."""

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from blobstore.pace import WHOLE_BYTES_MAX, Allowance
from protocol.errors import WireError
from protocol.gates import AddressGate
from protocol.messages import Answer
from tagtrail.downloads import Downloads, close


class Body:
    """Blocks that tell whether they were closed."""

    closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    def close(self) -> None:
        self.closed += 1


def downloads(places: int = 1) -> tuple[Downloads, AddressGate]:
    """The downloads of a process, and their gate."""
    gate = AddressGate(per_address_max=places, total_max=places)
    return Downloads(gate, Allowance()), gate


@pytest.mark.parametrize("body", [b"", bytes(WHOLE_BYTES_MAX), [bytes(WHOLE_BYTES_MAX)]])
def test_an_answer_of_one_piece_goes_out_as_it_is(body: "bytes | list[bytes]") -> None:
    serving, gate = downloads(0)
    answer = Answer(200, [], body)
    assert serving.admit(answer, "a") is answer
    assert gate.total == 0


def test_a_long_answer_from_memory_goes_out_in_blocks() -> None:
    serving, gate = downloads()
    whole = bytes(range(256)) * 4096
    admitted = serving.admit(Answer(200, [("X", "y")], whole), "a")
    assert (admitted.status, admitted.headers, gate.total) == (200, [("X", "y")], 1)
    blocks = list[bytes](admitted.body)  # type: ignore[arg-type]
    assert len(blocks) > 1
    assert b"".join(blocks) == whole


def test_a_place_is_held_until_the_body_is_closed() -> None:
    serving, gate = downloads()
    body = Body()
    admitted = serving.admit(Answer(200, [], body), "a")
    assert list(admitted.body) == [b"a", b"b"]
    assert gate.total == 1
    close(admitted.body)
    close(admitted.body)
    assert (gate.total, body.closed) == (0, 1)


def test_a_body_that_nobody_takes_gives_its_place_back() -> None:
    serving, gate = downloads()
    body = Body()
    serving.admit(Answer(200, [], body), "a")
    assert (gate.total, body.closed) == (0, 1)


def test_one_download_too_many_is_refused_and_its_body_closed() -> None:
    serving, _ = downloads()
    held = serving.admit(Answer(200, [], Body()), "a")
    body = Body()
    with pytest.raises(WireError) as refused:
        serving.admit(Answer(200, [], body), "b")
    assert refused.value.status == 429
    assert b"TOOMANYREQUESTS" in refused.value.body()
    assert "Retry-After" in dict(refused.value.headers)
    assert body.closed == 1
    assert list(held.body) == [b"a", b"b"]


def test_the_last_of_several_downloads_that_end_at_once_sets_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is held up after it has counted the downloads left; the second one counts none."""
    serving, _ = downloads(2)
    first, second = (serving.admit(Answer(200, [], Body()), "a").body for _ in range(2))
    found: list[float] = []
    counted, passed = threading.Event(), threading.Event()

    def held_up(interval: float) -> None:
        if not counted.is_set():
            counted.set()
            passed.wait(0.5)
        found.append(interval)
        passed.set()

    # Bodies of other tests that nobody closed end when they are collected, and would set it too.
    gc.collect()
    monkeypatch.setattr(sys, "setswitchinterval", held_up)
    ending = threading.Thread(target=close, args=(first,))
    ending.start()
    assert counted.wait(10)
    close(second)
    ending.join()
    assert found == [pytest.approx(0.00505), pytest.approx(0.005)]
