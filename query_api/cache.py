"""Answers that are kept in memory and used again only while somebody vouches for them.

The change board vouches (rule: begun before done), or else one question to the log for many requests at once
(rule: join only unsent questions).
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from protocol.messages import Answer, Environ

# The cost of an entry besides the bytes that it names: its objects, its place in the table.
ENTRY_BYTES = 1024


Ticket = tuple[int, int]


class Voucher(Protocol):
    """Tells whether something has happened to a key."""

    @property
    def at_once(self) -> bool:
        """True if it knows without waiting for anybody."""

    def ticket(self, key: str) -> Ticket | None:
        """A ticket, to be taken before the database is asked; None if its answer must not be kept."""

    def holds(self, key: str, ticket: Ticket) -> bool:
        """True if an answer that was asked for after the ticket still holds. Raises StoreUnavailable."""


class Served(Protocol):
    """The thing that is served at a path; it answers every GET and HEAD of that path."""

    def answer(self, environ: Environ) -> Answer:
        """The answer to this request. Raises WireError."""

    def answer_at_once(self, environ: Environ) -> Answer | None:
        """The same answer if nothing but memory is needed to make it. Raises WireError."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The right to keep an answer about a key that is looked for from now on."""

    key: str
    ticket: Ticket


@dataclass(slots=True)
class _Kept:
    opening: Opening
    served: Served
    size: int
    used: bool = False


class AnswerCache:
    """Keeps what is served, by path, up to a number of bytes, and nothing if nobody vouches for it.

    An entry that was not used since it was last looked at goes first (second chance), so that a use costs no lock.
    """

    def __init__(self, voucher: Voucher | None, bytes_max: int) -> None:
        self._voucher = voucher if bytes_max else None
        self._knows_at_once = self._voucher is not None and self._voucher.at_once
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._changing = threading.Lock()

    def find(self, path: str) -> Served | None:
        """The thing that is served at the path now, if that is known."""
        kept = self._kept.get(path)
        if kept is None or self._voucher is None or not self._voucher.holds(kept.opening.key, kept.opening.ticket):
            return None
        kept.used = True
        return kept.served

    def find_at_once(self, path: str) -> Served | None:
        """The thing that is served at the path now, if that is known without waiting for anybody."""
        return self.find(path) if self._knows_at_once else None

    def open(self, key: str) -> Opening | None:
        """The right to keep an answer, to be taken before the database is asked; None if the answer must not be kept.

        `key` is the repository, or the stream of a blob's link.
        """
        if self._voucher is None:
            return None
        ticket = self._voucher.ticket(key)
        return None if ticket is None else Opening(key, ticket)

    def keep(self, path: str, opening: Opening, served: Served, size: int) -> None:
        """Keep the database's answer about a path, asked for after `opening` was given; `size` is that of its bytes."""
        cost = size + ENTRY_BYTES + len(path)
        if cost > self._bytes_max:
            return
        with self._changing:
            replaced = self._kept.pop(path, None)
            if replaced is not None:
                self._bytes -= replaced.size
            self._kept[path] = _Kept(opening, served, cost)
            self._bytes += cost
            while self._bytes > self._bytes_max:
                self._drop_one()

    def _drop_one(self) -> None:
        path, oldest = self._kept.popitem(last=False)
        if oldest.used:
            oldest.used = False
            self._kept[path] = oldest
        else:
            self._bytes -= oldest.size
