"""An answer of several parts: its length is known before, its bytes are those asked for, and little is held at once."""

import tracemalloc
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.multipart import GATHERED_BYTES, Framing, MultipartBody
from protocol.ranges import RANGES_MAX, ByteRange
from tests import multipart

KIND = "application/octet-stream"


class Source:
    """A blob that is given in blocks, and that counts how often it is open."""

    def __init__(self, data: bytes, block: int = 7) -> None:
        self.data = data
        self.block = block
        self.open = 0
        self.most_open = 0

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Blocks from `start` on."""
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return Blocks(self, start, start + length)


class Blocks(Iterator[bytes]):
    """The blocks that `read` gives; closed at their end, or earlier by the reader."""

    def __init__(self, source: Source, position: int, end: int) -> None:
        self.source, self.position, self.end = source, position, end
        self.closed = False

    def __next__(self) -> bytes:
        block = self.source.data[self.position : min(self.end, self.position + self.source.block)]
        self.position += len(block)
        if not block:
            self.close()
            raise StopIteration
        return block

    def close(self) -> None:
        """May be called twice."""
        self.source.open -= not self.closed
        self.closed = True


@st.composite
def parts(draw: st.DrawFn) -> tuple[ByteRange, ...]:
    """Two or more parts with bytes between them."""
    made, position = [], 0
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40)), min_size=2, max_size=6)):
        made.append(ByteRange(position + gap, length))
        position = made[-1].last + 1
    return tuple(made)


@given(asked=parts(), chance=st.randoms(use_true_random=False), block=st.integers(1, 50))
def test_the_body_has_the_announced_length_and_the_parts(
    asked: tuple[ByteRange, ...], chance: Random, block: int
) -> None:
    source = Source(chance.randbytes(asked[-1].last + 5), block)
    framing = Framing(len(source.data), KIND)
    body = b"".join(MultipartBody(framing, asked, source.read))
    assert len(body) == framing.length(asked)
    assert multipart.split(framing.content_type, body) == [
        (
            {"Content-Type": KIND, "Content-Range": f"bytes {each.start}-{each.last}/{len(source.data)}"},
            source.data[each.start : each.last + 1],
        )
        for each in asked
    ]
    assert (source.open, source.most_open) == (0, 1)


def test_each_answer_has_a_boundary_of_its_own() -> None:
    """So a client that pushes a blob cannot put the boundary into it."""
    boundaries = {Framing(10, KIND).boundary for _ in range(100)}
    assert len(boundaries) == 100
    assert all(len(each) == 32 and each.isalnum() and each.isascii() for each in boundaries)


def test_small_pieces_go_out_together_and_large_ones_are_not_gathered() -> None:
    small = Source(bytes(100_000), block=100)
    asked = tuple(ByteRange(each * 100, 50) for each in range(1000))
    blocks = list(MultipartBody(Framing(100_000, KIND), asked, small.read))
    assert len(blocks) == sum(map(len, blocks)) // GATHERED_BYTES + 1
    large = Source(bytes(10_000_000), block=1_000_000)
    asked = (ByteRange(0, 4_000_000), ByteRange(5_000_000, 4_000_000))
    assert max(map(len, MultipartBody(Framing(10_000_000, KIND), asked, large.read))) < 1_000_000 + 1000


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_reader_that_gives_up_leaves_nothing_open(taken: int) -> None:
    """Nothing is left open even if no block was taken."""
    source = Source(bytes(1_000_000), block=GATHERED_BYTES)
    asked = (ByteRange(0, 10), ByteRange(1000, 500_000))
    body = MultipartBody(Framing(1_000_000, KIND), asked, source.read)
    for _ in range(taken):
        next(body)
    assert source.open == 1
    body.close()
    body.close()
    assert source.open == 0


def test_a_blob_that_is_gone_is_told_before_the_answer_begins() -> None:
    def gone(start: int, length: int) -> Iterator[bytes]:
        raise LookupError

    with pytest.raises(LookupError):
        MultipartBody(Framing(10, KIND), (ByteRange(0, 1), ByteRange(5, 1)), gone)


def test_the_most_parts_take_little_while_nobody_reads_on() -> None:
    """A quarter of a megabyte for each of thousands of readers who stall would be too much."""
    source = Source(bytes(10), block=1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        many = tuple(ByteRange(10**9 + each * 1000, 500) for each in range(RANGES_MAX))
        body = MultipartBody(Framing(10**10, KIND), many, source.read)
        del many
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert next(body)
    assert held - before < 64 * 1024
