"""Answers that are kept in memory and used again only while somebody vouches for them.

That is the change board (rule: begun before done), or else one question to the log for many requests at once
(rule: join only unsent questions).
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from protocol.messages import Answer, Environ

# What an entry costs besides the bytes that it names: its objects, its place in the table.
ENTRY_BYTES = 1024


Ticket = tuple[int, int]


class Voucher(Protocol):
    """Who knows whether something has happened to a key."""

    def ticket(self, key: str) -> Ticket | None:
        """To be taken before the database is asked; None if what it says must not be kept. Raises StoreUnavailable."""

    def holds(self, key: str, ticket: Ticket) -> bool:
        """Whether what was asked for after that still stands. Raises StoreUnavailable."""


class Standing(Protocol):
    """What was found at a path, from which every GET and HEAD of it can be answered."""

    def answer(self, environ: Environ) -> Answer:
        """The answer to this request. Raises WireError."""


@dataclass(frozen=True, slots=True)
class Opening:
    """That an answer about a key may be kept which is looked for from now on."""

    key: str
    ticket: Ticket


@dataclass(slots=True)
class _Kept:
    opening: Opening
    standing: Standing
    size: int
    used: bool = False


class AnswerCache:
    """What was found, by path, up to a number of bytes; keeps nothing where nobody vouches for it.

    What was not used since it was last looked at goes first (second chance): to be used costs no lock.
    """

    def __init__(self, voucher: Voucher | None, bytes_max: int) -> None:
        self._voucher = voucher if bytes_max else None
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._changing = threading.Lock()

    def find(self, path: str) -> Standing | None:
        """What stands at the path now, if that is known."""
        kept = self._kept.get(path)
        if kept is None or self._voucher is None or not self._voucher.holds(kept.opening.key, kept.opening.ticket):
            return None
        kept.used = True
        return kept.standing

    def open(self, repository: str) -> Opening | None:
        """To be asked for before the database is asked; None if what it says must not be kept."""
        if self._voucher is None:
            return None
        ticket = self._voucher.ticket(repository)
        return None if ticket is None else Opening(repository, ticket)

    def keep(self, path: str, opening: Opening, standing: Standing, size: int) -> None:
        """Keep what the database said of a path after `opening` was given; `size` is that of its bytes."""
        cost = size + ENTRY_BYTES + len(path)
        if cost > self._bytes_max:
            return
        with self._changing:
            replaced = self._kept.pop(path, None)
            if replaced is not None:
                self._bytes -= replaced.size
            self._kept[path] = _Kept(opening, standing, cost)
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
