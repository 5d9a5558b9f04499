"""The memory by which each process of a server knows what the others are changing (rule: begun before done).

Every process that appends has a *place*: 65,536 cells, each of two counters that only ever grow, *begun* and *done*,
written by one thread alone. It raises *begun* of the cell of every key in a batch, then appends, then raises *done*
once the outcome is known. A reader notes a *ticket*: the sum of *done* over all places, and after it the sum of
*begun*. If they are equal, it asks the database and keeps the answer with that sum, for as long as the sum of *begun*
is the same.

Why no such answer is stale. Let W be an append to that cell that was acknowledged before the answer is used again.

1.  *begun* was raised for W before it was sent, and never falls. If the reader summed *begun* before that, its sum is
    lower than today's, and the answer is not used. So it summed *begun* after W had begun.
2.  *done* was summed first and no place has more done than begun, so equal sums mean that every place had ended, when
    its *done* was read, all that it had begun by when its *begun* was read, W included. So W's outcome was known, its
    commit visible, before the reader asked the database; the answer holds it.

A process that cannot know an outcome (its connection was lost, or it was killed) leaves *begun* ahead of *done*. Nobody
keeps anything of that cell until the place has a new epoch in the database (rule: places have epochs). The claim of an
epoch takes the append lock, so an append of the epoch before has either committed by then or will be refused. Only then
*done* is raised to *begun*. If an append is sent twice, the second one finds its command done and changes nothing.

A process that does not share this memory must not append while somebody uses it (rule: appends need the board). So the
server holds a lease in the database, which refuses everybody else's appends while the lease runs (`sql/board.sql`). The
server writes the end of the lease here, by CLOCK_BOOTTIME, which goes on while a machine sleeps and which nobody sets,
counted from before it asked. Once the lease has run out, readers keep and use nothing. If the registration
was lost, the next one has a new *term*, which is part of every ticket. The lease is read before the term, so a lease of
a later registration never vouches for a ticket of an earlier one.

The proof needs that loads and stores of aligned 64-bit words are whole, and that each processor sees the stores of
another one in their order. Both hold on x86-64. Other machines get no board.
"""

import mmap
import os
import platform
import time
import uuid
from collections.abc import Iterable
from zlib import crc32

CELLS = 1 << 16
WORD_BYTES = 8
PLACE_BYTES = 2 * CELLS * WORD_BYTES
_HEADER_BYTES = 4096
_MAGIC = 0x74616774_72616904
# Words of the header.
_KIND, _PLACES, _NAME_HIGH, _NAME_LOW, _LEASE_NS, _TERM = range(6)
_FIRST_PLACE = _HEADER_BYTES // WORD_BYTES
_PLACE_WORDS = PLACE_BYTES // WORD_BYTES

Ticket = tuple[int, int]


def available() -> bool:
    """True if this machine can have a board."""
    return platform.machine() in ("x86_64", "AMD64") and hasattr(os, "memfd_create")


def cell_of(key: str) -> int:
    """The cell of a key of events."""
    return crc32(key.encode(errors="surrogatepass")) % CELLS


def now_ns() -> int:
    """The clock of leases, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def make_memory(places: int) -> int:
    """Make memory with so many places and answer its descriptor. It ends with the last process that has it open."""
    descriptor = os.memfd_create("tagtrail-board", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _HEADER_BYTES + places * PLACE_BYTES)
    with mmap.mmap(descriptor, _HEADER_BYTES) as memory, memoryview(memory).cast("Q") as words:
        name = uuid.uuid4().int
        words[_NAME_HIGH], words[_NAME_LOW] = name >> 64, name & (1 << 64) - 1
        words[_PLACES], words[_KIND] = places, _MAGIC
    return descriptor


class Cells:
    """One process's view of the memory; its readers may be any number of threads."""

    def __init__(self, descriptor: int) -> None:
        """Raises ValueError if the descriptor, which the caller may close afterwards, is of no board."""
        self._memory = mmap.mmap(descriptor, 0)
        self._words = memoryview(self._memory).cast("Q")
        if self._words[_KIND] != _MAGIC:
            raise ValueError("this is not the memory of a board")
        self.places = self._words[_PLACES]
        self._starts = [_FIRST_PLACE + place * _PLACE_WORDS for place in range(self.places)]

    @property
    def name(self) -> str:
        """The name of this memory in its present term, as it is registered in the database."""
        name = self._words[_NAME_HIGH] << 64 | self._words[_NAME_LOW]
        return f"{uuid.UUID(int=name)}.{self._words[_TERM]}"

    def ticket(self, cell: int) -> Ticket | None:
        """A ticket to keep an answer with, taken before the database is asked; None if it must not be kept."""
        words = self._words
        if now_ns() >= words[_LEASE_NS]:
            return None
        term = words[_TERM]
        done = begun = 0
        for start in self._starts:
            done += words[start + CELLS + cell]
        for start in self._starts:
            begun += words[start + cell]
        return (term, begun) if done == begun else None

    def holds(self, cell: int, ticket: Ticket) -> bool:
        """True if an answer that was kept with the ticket may be used now."""
        words = self._words
        if now_ns() >= words[_LEASE_NS]:
            return False
        term = words[_TERM]
        begun = 0
        for start in self._starts:
            begun += words[start + cell]
        return ticket == (term, begun)

    def begin(self, place: int, cells: Iterable[int]) -> None:
        """Say that appends to these cells are about to be sent; each cell once."""
        start = self._starts[place]
        for cell in cells:
            self._words[start + cell] += 1

    def end(self, place: int, cells: Iterable[int]) -> None:
        """Say that the outcome of the appends that were begun is known."""
        start = self._starts[place] + CELLS
        for cell in cells:
            self._words[start + cell] += 1

    def settle(self, place: int) -> None:
        """Say that the outcome of all appends that were ever begun at this place is known."""
        words, start = self._words, self._starts[place]
        for first in range(start, start + CELLS, 256):
            if words[first : first + 256] != words[first + CELLS : first + CELLS + 256]:
                for begun in range(first, first + 256):
                    if words[begun + CELLS] != words[begun]:
                        words[begun + CELLS] = words[begun]

    def lend_until(self, moment_ns: int) -> None:
        """Let readers keep and use answers until a moment; 0: no longer."""
        self._words[_LEASE_NS] = moment_ns

    def next_term(self) -> None:
        """Make every ticket worthless, and take a new name. The lease must have ended."""
        self._words[_TERM] += 1

    def close(self) -> None:
        """Give the memory back; others keep theirs."""
        self._words.release()
        self._memory.close()
