"""Preconditions of a client on the thing that it changes: If-Match and If-None-Match (RFC 9110 section 13.1)."""

from collections.abc import Callable
from dataclasses import dataclass

from domain.changes import Condition, RefIs, RefIsNot
from domain.decision import Reason, Requirement

EXISTS = "*"


@dataclass(frozen=True, slots=True)
class PreconditionFailed(Reason):
    """The thing is not as the client required it to be."""


@dataclass(frozen=True, slots=True)
class Match:
    """The entity tags of which the thing must have one, where there are any, and those that it must not have.

    They are judged under the append's lock (rule: conditional pushes).
    They are digests as the client wrote them; EXISTS stands for any digest.
    """

    one_of: frozenset[str] = frozenset()
    none_of: frozenset[str] = frozenset()

    def requirements(self, stream: str, ref_of: Callable[[str], str]) -> tuple[Requirement, ...]:
        """The same of the thing's stream; `ref_of` gives the ref that it has while it has an entity tag."""
        conditions: list[Condition] = []
        if EXISTS in self.one_of:
            conditions.append(RefIsNot(stream, None))
        elif self.one_of:
            conditions.append(RefIs(tuple((stream, ref_of(each)) for each in sorted(self.one_of))))
        if EXISTS in self.none_of:
            conditions.append(RefIs(((stream, None),)))
        else:
            conditions.extend(RefIsNot(stream, ref_of(each)) for each in sorted(self.none_of))
        return tuple(Requirement(each, PreconditionFailed()) for each in conditions)


NO_MATCH = Match()
