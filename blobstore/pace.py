"""The sizes of an answer's blocks: readers who stall take little memory, and readers who are fast lose little speed.

The server takes up to 21 small blocks ahead of a reader, most of them for the connection. So blocks are small unless
one of a few tokens of this process is held, and a token is held until its large blocks have gone out.
"""

import time
from collections import deque
from collections.abc import Callable

# The most that goes out in one piece, and the size of every first block: the kernel takes as much in any case (see
# UNSENT_BYTES_MAX in tagtrail/server/keepalive.py).
WHOLE_BYTES_MAX = 128 * 1024
SMALL_BYTES = 6 * 1024
STARTING_BYTES = 256 * 1024
# Blocks of an answer of up to `FAST_BYTES`, which holds no more than that however large they are.
HALF_BYTES = 512 * 1024
FAST_BYTES = 1024 * 1024
# The readers of a process that hold large blocks. Each holds seven of the first kind at most and six of the other,
# because a connection takes no more while 256 KiB wait in it: 28 and 48 MiB together.
STARTING_TOKENS = 16
FAST_TOKENS = 8
# A reader is fast if it takes this much, which no connection buffers, at a rate where the size of blocks matters.
_PROOF_BYTES = 2 * 1024 * 1024
_PROOF_BYTES_PER_S = 32 * 1024 * 1024
_SLOW_S = 0.25
# As many blocks as wait between the thread and the connection, with the one that the thread holds. A connection takes
# an empty one only when less than 256 KiB wait in it.
_EMPTY_BEHIND = 5
# Sixteen blocks wait in a connection and four before it: once so many small ones were taken, all before have been sent.
_SMALL_BEHIND = 20


class Tokens:
    """A bounded number of rights to blocks of one size."""

    def __init__(self, block_bytes: int, count: int) -> None:
        self.block_bytes = block_bytes
        self._free = deque([None] * count)

    def take(self) -> bool:
        """Take one; False if none is free."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        """Give one back that was taken."""
        self._free.append(None)


class Allowance:
    """The tokens of one process: for readers who begin, and for readers who have been fast."""

    def __init__(
        self, starting: int = STARTING_TOKENS, fast: int = FAST_TOKENS, first_bytes: int = WHOLE_BYTES_MAX
    ) -> None:
        self.first_bytes = first_bytes
        self.starting = Tokens(STARTING_BYTES, starting)
        self.fast = Tokens(FAST_BYTES, fast)


NO_LARGE_BLOCKS = Allowance(0, 0, SMALL_BYTES)


class Pace:
    """The sizes of one reader's blocks; `end` must be called when no more are wanted."""

    __slots__ = (
        "_allowance",
        "_asked_at",
        "_clock",
        "_empty_left",
        "_held",
        "_least",
        "_proof_at",
        "_proved",
        "_size",
        "_small_left",
    )

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._held: Tokens | None = None
        self._size = SMALL_BYTES
        self._empty_left = _EMPTY_BEHIND
        self._small_left = _SMALL_BEHIND
        self._least = allowance.first_bytes
        self._asked_at = self._proof_at = clock()
        self._proved = 0
        self._hold(allowance.starting)

    def next_size(self, left: int) -> int:
        """The size of the next block, of the bytes that are left."""
        now = self._clock()
        waited, self._asked_at = now - self._asked_at, now
        if waited > _SLOW_S:
            self._slow_down(now)
        elif self._held is not self._allowance.fast and self._is_fast(now):
            self._hold(self._allowance.fast)
        if self._size == SMALL_BYTES and self._held is not None:
            if self._small_left == 0:
                self.end()
            self._small_left -= 1
        if self._least and self._held is not None and left <= FAST_BYTES:
            self._size = HALF_BYTES
        size = min(max(self._size, self._least), left)
        self._least = 0
        self._proved += size
        return size

    def must_wait(self) -> bool:
        """True if large blocks may not have gone out yet. Then an empty one is to be given, although no bytes are left.

        The server has room for four behind a block that waits. It takes the fifth when less than 256 KiB of that block
        wait, or drops it with the whole answer.
        """
        if self._empty_left == 0:
            self.end()
        self._empty_left -= 1
        return self._held is not None

    def end(self) -> None:
        """Give back what is held; may be called any number of times."""
        held, self._held = self._held, None
        if held is not None:
            held.give_back()

    def _hold(self, tokens: Tokens) -> None:
        if tokens.take():
            self.end()
            self._held, self._size, self._small_left = tokens, tokens.block_bytes, _SMALL_BEHIND

    def _slow_down(self, now: float) -> None:
        self._size = SMALL_BYTES
        self._proof_at, self._proved = now, 0

    def _is_fast(self, now: float) -> bool:
        return self._proved >= _PROOF_BYTES and self._proved >= _PROOF_BYTES_PER_S * (now - self._proof_at)
