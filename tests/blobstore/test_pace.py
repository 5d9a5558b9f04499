"""The sizes of the blocks that a reader of a blob gets: large ones need a token, and there are few tokens."""

import itertools
from collections.abc import Iterator

import pytest

from blobstore.pace import FAST_BYTES, HALF_BYTES, SMALL_BYTES, STARTING_BYTES, WHOLE_BYTES_MAX, Allowance, Pace

MIB = 1024 * 1024
EMPTY_BLOCKS = 5
# What the server takes ahead of a reader: sixteen blocks in the connection, four before it. See docs/decisions/0007.
SMALL_BLOCKS = 20


class Reader:
    """A reader that takes blocks of a blob, with a pause before each."""

    def __init__(self, allowance: Allowance, size: int) -> None:
        self.now = 1000.0
        self.left = size
        self.pace = Pace(allowance, lambda: self.now)

    def take(self, count: int, pause_s: float = 0.001) -> list[int]:
        """Take so many blocks, fewer if the blob ends; answers their sizes."""
        return list(itertools.islice(self._sizes(pause_s), count))

    def _sizes(self, pause_s: float) -> Iterator[int]:
        while self.left:
            self.now += pause_s
            size = self.pace.next_size(self.left)
            self.left -= size
            yield size


def free(allowance: Allowance) -> tuple[int, int]:
    """The number of free tokens of either kind."""
    counts = []
    for tokens in (allowance.starting, allowance.fast):
        taken = sum(1 for _ in iter(tokens.take, False))
        for _ in range(taken):
            tokens.give_back()
        counts.append(taken)
    return counts[0], counts[1]


@pytest.mark.parametrize(
    ("size", "blocks"),
    [
        (FAST_BYTES + 1, [STARTING_BYTES] * 4 + [1]),
        (FAST_BYTES, [HALF_BYTES] * 2),
        (200 * 1024, [200 * 1024]),
    ],
)
def test_a_reader_gets_large_blocks_and_then_empty_ones_that_show_that_these_went_out(
    size: int, blocks: list[int]
) -> None:
    allowance = Allowance(1, 1)
    reader = Reader(allowance, size)
    assert reader.take(100) == blocks
    for _ in range(EMPTY_BLOCKS):
        assert reader.pace.must_wait()
        assert free(allowance) == (0, 1)
    assert not reader.pace.must_wait()
    assert free(allowance) == (1, 1)
    reader.pace.end()
    reader.pace.end()
    assert free(allowance) == (1, 1)


def test_a_reader_that_takes_two_mib_fast_gets_larger_blocks_and_leaves_its_first_token_to_others() -> None:
    allowance = Allowance(1, 1)
    reader = Reader(allowance, 100 * MIB)
    assert reader.take(10) == [STARTING_BYTES] * 8 + [FAST_BYTES] * 2
    assert free(allowance) == (1, 0)


def test_without_a_token_blocks_are_small_until_a_token_of_the_fast_is_free() -> None:
    allowance = Allowance(0, 0)
    reader = Reader(allowance, 100 * MIB)
    assert reader.take(1) == [WHOLE_BYTES_MAX]
    assert set(reader.take(1000, 0.0001)) == {SMALL_BYTES}
    allowance.fast.give_back()
    assert reader.take(1, 0.0001) == [FAST_BYTES]


def test_a_reader_that_is_not_that_fast_gets_no_larger_blocks() -> None:
    reader = Reader(Allowance(1, 1), 100 * MIB)
    assert set(reader.take(50, 0.1)) == {STARTING_BYTES}


@pytest.mark.parametrize("fast", [False, True])
def test_a_reader_that_slows_down_gives_its_token_back_once_its_large_blocks_have_gone_out(fast: bool) -> None:
    allowance = Allowance(1, 1)
    reader = Reader(allowance, 100 * MIB)
    reader.take(9 if fast else 1)
    held = free(allowance)
    assert held != (1, 1)
    assert reader.take(SMALL_BLOCKS, 1.0) == [SMALL_BYTES] * SMALL_BLOCKS
    assert free(allowance) == held
    assert reader.take(1, 1.0) == [SMALL_BYTES]
    assert free(allowance) == (1, 1)


def test_a_reader_that_stalled_may_become_fast_again() -> None:
    reader = Reader(Allowance(1, 1), 100 * MIB)
    reader.take(9)
    reader.take(SMALL_BLOCKS + 1, 1.0)
    assert FAST_BYTES in reader.take(1000, 0.0001)
