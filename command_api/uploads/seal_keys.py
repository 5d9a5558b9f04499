"""The secrets that seal ids of upload sessions, as this process read them last.

They are read anew each minute, because keys are replaced and removed, and at once if an id names a key that is not
known here, which may have been made since. Keys of an earlier reading are not kept, because a restore may have put
others in their place.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eventstore.types import SealKey, StoreUnavailable

READ_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Read:
    at: float
    keys: Mapping[int, SealKey] = field(default_factory=dict)
    newest: SealKey | None = None


class SealKeys:
    """The keys of one process; `read` answers all of them, the newest last."""

    def __init__(self, read: Callable[[], Sequence[SealKey]]) -> None:
        self._read = read
        self._last = _Read(float("-inf"))

    def current(self) -> SealKey:
        """The key to seal with. Raises StoreUnavailable if there is none."""
        newest = self._of_this_minute().newest
        if newest is None:
            raise StoreUnavailable("the log has no key to seal ids with; the keeper makes one")
        return newest

    def find(self, key: int) -> SealKey | None:
        """The key of this number, None if it is not kept any more or never was."""
        return self._of_this_minute().keys.get(key) or self._read_again().keys.get(key)

    def _of_this_minute(self) -> _Read:
        last = self._last
        return self._read_again() if time.monotonic() - last.at > READ_AGAIN_S else last

    def _read_again(self) -> _Read:
        at = time.monotonic()
        keys = self._read()
        self._last = _Read(at, {each.id: each for each in keys}, keys[-1] if keys else None)
        return self._last
