"""The answer of a decision: what to append and what must stand while it is, or why the command is refused.

A command is a frozen data class, and a decision a pure function beside it, in the file of its aggregate. It is given
the command and the state that was asked for beforehand, of the log and of the bytes. If the time matters, it is given
that as `now`, because it asks no clock. The code that carries a command out only asks, decides, appends and answers.

A fact that may change between the question and the append is no state of a decision: it is a requirement of the result.
The store judges it under the append's lock, and the requirement brings along the reason that is given if it fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.changes import Condition, Expand, JudgedSet, Member, NewEvent, SetHolds


class Reason:
    """Base of the reasons why a command is refused: frozen data classes, each in the file of what it is about."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The command is refused, for reasons that are all of one kind.

    Without any reason it was overtaken: something has changed since the question, so ask and decide again.
    """

    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition of the append, and the reason to give if it fails; None if the command is then decided again."""

    condition: Condition
    otherwise: Reason | None


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """The streams that an event refers to, where they are too many to be judged under the append's lock.

    `digest` tells sets apart, `key` is the key of its streams. `otherwise` has the reason for each need of the members,
    by its number. The set is stored before the append and judged without the lock.
    """

    digest: str
    key: str
    members: tuple[Member, ...]
    otherwise: tuple[Reason, ...]

    def decide(self, judged: JudgedSet) -> Requirement | Refusal:
        """Decide on the set as it was judged. If it fails under the lock all the same, it must be judged again."""
        if judged.failed:
            return _refusal([self.otherwise[each] for each in judged.failed])
        return Requirement(SetHolds(self.digest, self.key, judged.seen, judged.log), None)


@dataclass(frozen=True, slots=True)
class Decision:
    """The events of one append, in order, and what must stand under its lock.

    Of requirements that fail together, the first one tells the kind of the refusal. `references` is the set that the
    events refer to, where there is one; what it requires comes on top once it was judged.
    """

    events: tuple[NewEvent | Expand, ...]
    requires: tuple[Requirement, ...] = ()
    references: ReferenceSet | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of the append; `refusal` is told which of them failed."""
        return tuple(each.condition for each in self.requires)

    def refusal(self, failed: Sequence[int]) -> Refusal:
        """Decide on an append that was refused because these conditions, in order, did not hold."""
        return _refusal([self.requires[each].otherwise for each in failed])


def _refusal(reasons: Sequence[Reason | None]) -> Refusal:
    given = [each for each in reasons if each is not None]
    return Refusal(tuple(each for each in given if type(each) is type(given[0])))
