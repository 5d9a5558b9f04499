"""Features in use. An event of a new type, or anything else that older processes get wrong, waits until all handle it.

`log.es_feature` lists the features in use. None is ever removed, so a process remembers those that it saw there and
asks only for others. It reads the list again when it connects anew, because a restore may take the log back.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta

from eventstore.reader import Reader
from eventstore.types import Command, FeatureNotInUse
from eventstore.window import FIRST_WITH_FEATURES

# Kinds of processes that decode events; the relay carries them as they are.
READERS = frozenset({"api", "projector"})
# A process without a heartbeat for so long does not serve; see Membership, which stops earlier by its own clock.
LIVES_FOR_S = 60.0
# After the answer that others lack a feature, a process asks again only after this time.
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: its name, the kinds of processes that must handle it, and the oldest revision they must know."""

    name: str
    kinds: frozenset[str]
    serves_from: str = FIRST_WITH_FEATURES


class _Seen:
    """The features that were seen on one database. Another database begins with an empty list."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used: frozenset[str] | None = None
        self.events: frozenset[tuple[str, int]] = frozenset()
        self.refused: dict[str, tuple[float, list[str]]] = {}


class Features:
    """The features in use, as one process knows them; for any number of threads.

    `listed` names those in use. `use` puts one to use, or answers which processes do not handle it.
    """

    def __init__(self, listed: Callable[[], Collection[str]], use: Callable[[Feature], list[str]]) -> None:
        self._listed = listed
        self._use = use
        self._seen = _Seen()

    def forget(self) -> None:
        """Read the list again, because the database may be another one."""
        self._seen = _Seen()

    def admit(self, command: Command) -> None:
        """Raises FeatureNotInUse if the command has an event that not all readers of events know yet."""
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
        # The database is asked without the lock. If it does not answer, each caller waits for its own answer alone, and
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


def in_use(reader: Reader) -> list[str]:
    """The names of the features in use."""
    return [row[0] for row in reader.rows("SELECT f.name FROM log.es_feature AS f")]


def put_to_use(reader: Reader, feature: Feature) -> list[str]:
    """Put the feature to use, unless live processes of the kinds concerned lack it: answers those."""
    parameters = (feature.name, sorted(feature.kinds), feature.serves_from, timedelta(seconds=LIVES_FOR_S))
    return list(reader.row("SELECT log.es_use_feature(%s, %s, %s, %s)", parameters)[0])
