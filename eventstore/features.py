"""Features in use: no event of a new type, and nothing else that older processes get wrong, before all can take it.

`log.es_feature` lists what is in use. Nothing is ever taken from it, so a process remembers what it saw there; it asks
again only for what it did not see, and looks again whenever it connects anew, because a restore may take the log back.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from eventstore.types import Command, FeatureNotInUse
from eventstore.window import FIRST_WITH_FEATURES

# Kinds of processes that decode events; the relay carries them as they are.
READERS = frozenset({"api", "projector"})
# A process that said nothing for so long does not serve; see Membership, which stops earlier by its own clock.
LIVES_FOR_S = 60.0
# Who was told that others lack a feature need not ask again at once.
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Feature:
    """A name, the kinds of processes that must have it, and the oldest revision that a program must know beside it."""

    name: str
    kinds: frozenset[str]
    serves_from: str = FIRST_WITH_FEATURES


class _Seen:
    """The features that were seen on one database. For another one this begins anew, so that no old answer is taken."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used: frozenset[str] | None = None
        self.events: frozenset[tuple[str, int]] = frozenset()
        self.refused: dict[str, tuple[float, list[str]]] = {}


class Features:
    """The knowledge that one process has of the features in use; for any number of threads.

    `listed` names those in use; `use` puts one to use, or answers which processes do not have it.
    """

    def __init__(self, listed: Callable[[], Collection[str]], use: Callable[[Feature], list[str]]) -> None:
        self._listed = listed
        self._use = use
        self._seen = _Seen()

    def forget(self) -> None:
        """Look again at what is in use: the database may be another one."""
        self._seen = _Seen()

    def admit(self, command: Command) -> None:
        """Raises FeatureNotInUse if the command has an event that not all readers of events can take yet."""
        seen = self._seen
        for each in command.events:
            if (each.type, each.schema_version) not in seen.events:
                self.need(Feature(f"{each.type}.{each.schema_version}", READERS))
                with seen.lock:
                    seen.events |= {(each.type, each.schema_version)}

    def need(self, feature: Feature) -> None:
        """Raises FeatureNotInUse if the feature is not in use and cannot be put to use now."""
        lacking = self.lacking(feature)
        if lacking:
            raise FeatureNotInUse(feature.name, lacking)

    def lacking(self, feature: Feature) -> list[str]:
        """The live processes that keep the feature from being used; empty if it is in use from now on, for good."""
        # The database is asked without the lock: while it says nothing, each caller waits for its own answer alone, and
        # not for those of all before it.
        seen = self._seen
        if seen.used is None:
            used = frozenset(self._listed())
            with seen.lock:
                seen.used = used | (seen.used or frozenset())
        if feature.name in seen.used:
            return []
        asked_at, lacking = seen.refused.get(feature.name, (0.0, []))
        if lacking and time.monotonic() < asked_at + ASK_AGAIN_S:
            return lacking
        lacking = self._use(feature)
        with seen.lock:
            if lacking:
                seen.refused[feature.name] = (time.monotonic(), lacking)
            else:
                seen.used |= {feature.name}
        return lacking
