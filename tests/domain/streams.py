"""An event store in memory that has all that decisions need of one: streams, conditions, modes, sets."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from domain.changes import (
    AtMost,
    Condition,
    Ensure,
    Exact,
    Expand,
    JudgedSet,
    Keep,
    Member,
    NewEvent,
    NoneYet,
    NowhereYet,
    RefIs,
    RefIsNot,
    SetHolds,
    StreamState,
    Unreferenced,
)
from domain.decision import Decision, Refusal
from domain.event import Event, decode


@dataclass
class Streams:
    """The state beside each stream, the streams that refer to others, and the events so far."""

    states: dict[str, StreamState] = field(default_factory=dict)
    refers: dict[str, frozenset[str]] = field(default_factory=dict)
    sets: dict[str, tuple[Member, ...]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def state(self, stream: str) -> StreamState:
        """The state beside a stream."""
        return self.states.get(stream) or StreamState(stream, 0, None, None)

    def ask(self, streams: Iterable[str]) -> dict[str, StreamState]:
        """The state beside each of these streams."""
        return {each: self.state(each) for each in streams}

    def live(self) -> dict[str, str]:
        """The streams that have a ref, with it."""
        return {stream: state.ref for stream, state in self.states.items() if state.ref is not None}

    def carry_out(self, decision: Decision) -> Refusal | None:
        """Judge the set of references if there is one, and append; None if appended, otherwise the refusal."""
        if decision.references is not None:
            self.sets[decision.references.digest] = decision.references.members
            failed = self._failed(decision.references.members)
            decided = decision.references.decide(JudgedSet(len(self.events), "this log", failed))
            if isinstance(decided, Refusal):
                return decided
            decision = replace(decision, requires=(*decision.requires, decided))
        return self.append(decision)

    def append(self, decision: Decision) -> Refusal | None:
        """Append the decision; None if appended, otherwise the refusal."""
        failed = [number for number, each in enumerate(decision.conditions) if not self._holds(each)]
        if failed or not all(self._fits(each) for each in decision.events if isinstance(each, NewEvent)):
            return decision.refusal(failed)
        for each in decision.events:
            if isinstance(each, Expand):
                self._expand(each)
            else:
                self._write(each)
        return None

    def _ref(self, stream: str) -> str | None:
        return self.state(stream).ref

    def _holds(self, condition: Condition) -> bool:
        match condition:
            case RefIs(alternatives):
                return any(self._ref(stream) == ref for stream, ref in alternatives)
            case RefIsNot(stream, ref):
                return self._ref(stream) != ref
            case AtMost(ref, prefix, count):
                return len(self._named(ref, prefix)) <= count
            case SetHolds(digest):
                return not self._failed(self.sets[digest])
            case Unreferenced(target):
                return all(target not in each for each in self.refers.values())

    def _failed(self, members: Iterable[Member]) -> tuple[int, ...]:
        """The numbers of the needs that do not hold."""
        needs = [each for each in members if each.need is not None]
        held = {
            each.need
            for each in needs
            if self._ref(each.target) == each.ref
            or (each.or_target is not None and self._ref(each.or_target) == each.or_ref)
        }
        return tuple(sorted({each.need for each in needs if each.need is not None and each.need not in held}))

    def _named(self, ref: str, prefix: str) -> list[str]:
        return sorted(each for each, state in self.states.items() if state.ref == ref and each.startswith(prefix))

    def _fits(self, event: NewEvent) -> bool:
        match event.mode:
            case NoneYet() | NowhereYet():
                return self.state(event.stream).version == 0
            case Exact(version):
                return self.state(event.stream).version == version
        return True

    def _write(self, event: NewEvent) -> None:
        before = self.state(event.stream)
        if isinstance(event.mode, Ensure) and before.ref == event.ref:
            return
        self.states[event.stream] = replace(
            before,
            version=before.version + 1,
            ref=before.ref if isinstance(event.ref, Keep) else event.ref,
            state=before.state if isinstance(event.state, Keep) else event.state,
        )
        if not isinstance(event.refers_to, Keep):
            self.refers[event.stream] = frozenset(event.refers_to)
        self.events.append(decode(event.type, event.schema_version, event.data))

    def _expand(self, expand: Expand) -> None:
        for stream in self._named(expand.target, expand.prefix)[: expand.most]:
            given = {expand.field: stream.removeprefix(expand.prefix)}
            self.states[stream] = replace(self.states[stream], version=self.states[stream].version + 1, ref=expand.ref)
            self.events.append(decode(expand.type, expand.schema_version, joined(expand.data, given)))


def joined(data: str, more: dict[str, str]) -> str:
    """A JSON object with more members."""
    return json.dumps(json.loads(data) | more)
