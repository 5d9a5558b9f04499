"""es_append against a model of its rules in plain Python, on random batches of commands."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.store import Store
from eventstore.types import (
    ANY,
    ENSURE,
    KEEP,
    NONE_YET,
    Appended,
    Cause,
    Command,
    Condition,
    Exact,
    Expand,
    Keep,
    NewEvent,
    RefIs,
    RefIsNot,
    Refused,
    Unreferenced,
)
from tests.eventstore.making import append_batch
from tests.postgres import Database

STREAMS = ["t:a", "t:b", "u:c"]
REFS = [None, "x", "y"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)

refs = st.one_of(st.just(KEEP), st.sampled_from(REFS))
targets = st.one_of(st.just(KEEP), st.lists(st.sampled_from(["r1", "r2"]), max_size=2, unique=True).map(tuple))
modes = st.one_of(st.just(ANY), st.just(ENSURE), st.just(NONE_YET), st.integers(0, 3).map(Exact))
events = st.builds(
    lambda stream, mode, ref, refers_to: NewEvent(
        stream, "k", "Happened", 1, "{}", mode, ref if mode is not ENSURE or ref is not KEEP else "x", KEEP, refers_to
    ),
    st.sampled_from(STREAMS),
    modes,
    refs,
    targets,
)
expands = st.builds(lambda target: Expand(target, "t:", "k", "Gone", 1, "{}", "name"), st.sampled_from(["x", "y"]))
pairs = st.tuples(st.sampled_from(STREAMS), st.sampled_from(REFS))
conditions = st.one_of(
    st.builds(lambda found: RefIs(tuple(found)), st.lists(pairs, min_size=1, max_size=2)),
    st.builds(lambda pair: RefIsNot(*pair), pairs),
    st.builds(Unreferenced, st.sampled_from(["r1", "r2"])),
)
commands = st.tuples(
    st.lists(st.one_of(events, events, events, expands), min_size=1, max_size=3).map(tuple),
    st.lists(conditions, max_size=2).map(tuple),
)


@dataclass
class Model:
    """The content that the store should have: versions and refs, references, the log as (stream, prev_ref)."""

    versions: dict[str, int] = field(default_factory=dict)
    refs: dict[str, str | None] = field(default_factory=dict)
    referring: dict[str, tuple[str, ...]] = field(default_factory=dict)
    log: list[tuple[str, str | None]] = field(default_factory=list)

    def holds(self, condition: Condition) -> bool:
        """True if a condition holds."""
        match condition:
            case RefIs(alternatives):
                return any(self.refs.get(stream) == ref for stream, ref in alternatives)
            case RefIsNot(stream, ref):
                return self.refs.get(stream) != ref
            case Unreferenced(target):
                return all(target not in each for each in self.referring.values())
        raise AssertionError(f"this model makes no {condition}")

    def append(self, given: tuple[Any, ...], needs: tuple[Condition, ...]) -> bool:
        """Append all of a command or nothing."""
        if not all(self.holds(each) for each in needs):
            return False
        for each in given:
            if isinstance(each, NewEvent):
                expected = 0 if each.mode is NONE_YET else getattr(each.mode, "version", None)
                if expected is not None and self.versions.get(each.stream, 0) != expected:
                    return False
        for each in given:
            if isinstance(each, Expand):
                reached = sorted(s for s in STREAMS if self.refs.get(s) == each.target and s.startswith(each.prefix))
                for stream in reached:
                    self._write(stream, None, KEEP)
            elif not (each.mode is ENSURE and self.refs.get(each.stream) == each.ref):
                self._write(each.stream, each.ref, each.refers_to)
        return True

    def _write(self, stream: str, ref: str | Keep | None, refers_to: tuple[str, ...] | Keep) -> None:
        self.log.append((stream, self.refs.get(stream)))
        self.versions[stream] = self.versions.get(stream, 0) + 1
        if not isinstance(ref, Keep):
            self.refs[stream] = ref
        if not isinstance(refers_to, Keep):
            self.referring[stream] = refers_to


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store over a fresh database."""
    made = Store(database.app_url, allow_clock_skew=True)
    yield made
    made.close()


_numbers = itertools.count()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(commands, min_size=1, max_size=8), together=st.booleans())
def test_the_function_does_what_the_model_does(
    database: Database, store: Store, batch: list[tuple[Any, Any]], together: bool
) -> None:
    """One by one and in one call. Each example plays in streams of its own: names carry its number."""
    number = next(_numbers)
    model = Model()
    before = store.head()
    given_commands = [
        Command(
            f"{number}-{next(_numbers)}",
            Cause("m", "r"),
            NOW,
            tuple(_renamed(each, number) for each in given_events),
            tuple(_renamed(each, number) for each in needs),
        )
        for given_events, needs in batch
    ]
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        calls = [given_commands] if together else [[each] for each in given_commands]
        outcomes = [outcome for call in calls for outcome in append_batch(connection, call)]
    for (given_events, needs), outcome in zip(batch, outcomes, strict=True):
        assert isinstance(outcome, Appended) is model.append(given_events, needs)
        if isinstance(outcome, Refused):
            assert outcome.failed_conditions == tuple(n for n, each in enumerate(needs) if not model.holds(each))
    found = [
        (each.stream.removesuffix(f"#{number}"), each.prev_ref and each.prev_ref.removesuffix(f"#{number}"))
        for each in store.read_log(before, 1000)
    ]
    assert found == model.log
    for stream in STREAMS:
        state = store.stream_state(f"{stream}#{number}")
        assert state.version == model.versions.get(stream, 0)
        ref = model.refs.get(stream)
        assert state.ref == (None if ref is None else f"{ref}#{number}")
    for target in ("r1", "r2"):
        referring = sorted(stream for stream, targets in model.referring.items() if target in targets)
        assert store.referring_streams(f"{target}#{number}", 10) == [f"{stream}#{number}" for stream in referring]


def _renamed(value: Any, number: int) -> Any:
    """The same event or condition, in the streams and with the refs of one example."""

    def own(text: str | None) -> str | None:
        return None if text is None else f"{text}#{number}"

    match value:
        case NewEvent():
            ref = value.ref if isinstance(value.ref, Keep) else own(value.ref)
            targets = (
                value.refers_to
                if isinstance(value.refers_to, Keep)
                else tuple(f"{t}#{number}" for t in value.refers_to)
            )
            return NewEvent(
                f"{value.stream}#{number}", "k", value.type, 1, json.dumps({}), value.mode, ref, KEEP, targets
            )
        case Expand():
            return Expand(f"{value.target}#{number}", value.prefix, "k", value.type, 1, "{}", value.field)
        case RefIs():
            return RefIs(tuple((f"{stream}#{number}", own(ref)) for stream, ref in value.alternatives))
        case RefIsNot():
            return RefIsNot(f"{value.stream}#{number}", own(value.ref))
        case _:
            return Unreferenced(f"{value.target}#{number}")
