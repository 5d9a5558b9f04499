"""The acknowledged and the open writes of clients, by which every answer after a fault is judged."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

Place = tuple[str, str]


@dataclass(eq=False)
class Write:
    """A value sent to a register; `over` is the time at which it had taken effect or no longer could."""

    value: str
    began: float
    acknowledged: bool = False
    over: float = math.inf


@dataclass
class Register:
    """A tag, with all values that any client has written to it."""

    writes: list[Write] = field(default_factory=list)

    def possible(self, began: float, ended: float) -> set[str | None]:
        """The values that a read between these moments may give: those that no acknowledged write has replaced."""
        done = [each.began for each in self.writes if each.acknowledged and each.over <= began]
        last = max(done, default=-math.inf)
        found: set[str | None] = {each.value for each in self.writes if each.began <= ended and each.over >= last}
        return found if done else found | {None}


@dataclass
class Session:
    """An open upload: the bytes that it is to hold, how many were acknowledged, and if its end was asked for."""

    repository: str
    location: str
    data: bytes
    acknowledged: int = 0
    sent: int = 0
    closing: bool = False


@dataclass
class Ledger:
    """All that the clients know of their writes; threads may share it."""

    manifests: dict[Place, bytes] = field(default_factory=dict)
    blobs: dict[Place, int] = field(default_factory=dict)
    tags: dict[Place, Register] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest: tuple[float, str] = (0.0, "")
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more of something."""
        with self.lock:
            self.counts[what] += 1

    def complain(self, what: str) -> None:
        """Note an answer that no client may get."""
        with self.lock:
            self.wrong.append(what)

    def took(self, what: str, seconds: float) -> None:
        """Note how long a request took, answered or not."""
        with self.lock:
            self.counts["requests"] += 1
            self.longest = max(self.longest, (seconds, what))

    def begin(self, repository: str, tags: Iterable[str], value: str) -> list[Write]:
        """Note that tags are about to be moved."""
        with self.lock:
            made = []
            for tag in tags:
                made.append(Write(value, time.monotonic()))
                self.tags.setdefault((repository, tag), Register()).writes.append(made[-1])
            return made

    def acknowledge(self, writes: Iterable[Write]) -> None:
        """Note that these writes were answered with success."""
        with self.lock:
            for each in writes:
                each.acknowledged, each.over = True, time.monotonic()

    def settle(self, ended: float, now: float) -> None:
        """Note that no process lives that could carry out writes sent before `ended`, so open ones never happen."""
        with self.lock:
            for register in self.tags.values():
                for each in register.writes:
                    if each.began < ended and not each.acknowledged:
                        each.over = min(each.over, now)

    def possible(self, place: Place, began: float) -> set[str | None]:
        """The values that a read of a tag may have given if it began then and has just ended."""
        with self.lock:
            return self.tags[place].possible(began, time.monotonic())

    def open_sessions(self) -> list[Session]:
        """Uploads that nobody has ended."""
        with self.lock:
            return list(self.sessions)
