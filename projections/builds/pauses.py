"""Pauses after work that failed: each failure in a row makes the next pause twice as long."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pause:
    length_s: float
    until: float


class Pauses:
    """Work that has failed, by name, with the time until which it is left alone."""

    def __init__(self, first_s: float, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}

    def over(self, name: str) -> bool:
        """True if the work may be tried now."""
        pause = self._pauses.get(name)
        return pause is None or self._clock() >= pause.until

    def failed(self, name: str) -> float:
        """Note a failure; answers how many seconds the work is left alone now."""
        before = self._pauses.get(name)
        length_s = self._first_s if before is None else min(2 * before.length_s, self._longest_s)
        self._pauses[name] = _Pause(length_s, self._clock() + length_s)
        return length_s

    def succeeded(self, name: str) -> None:
        """Forget its failures."""
        self._pauses.pop(name, None)
