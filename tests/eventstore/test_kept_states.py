"""States of streams that a process knows without a question to the database."""

from collections.abc import Sequence

import pytest

from eventstore.kept_states import ASKED_MAX, KeptStates
from eventstore.statement import Parameters, Row, Statement
from eventstore.store import Store
from eventstore.types import StreamState
from tests.eventstore.boards import append, kept_by, member
from tests.eventstore.making import command, event
from tests.postgres import Database


def count_questions(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The streams of each question about states that the store asks from now on."""
    asked: list[object] = []
    reader = store.reader()
    rows = reader.rows

    def noted(query: str | Statement, parameters: Parameters = ()) -> list[Row]:
        if isinstance(parameters, tuple) and parameters and isinstance(parameters[0], list):
            asked.append(parameters[0])
        return rows(query, parameters)

    monkeypatch.setattr(reader, "rows", noted)
    return asked


def versions(found: dict[str, StreamState]) -> dict[str, int]:
    """The versions of some states."""
    return {name: each.version for name, each in found.items()}


def test_a_state_is_asked_for_once_until_another_process_changes_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of a stream that has no event yet; events of other streams change nothing."""
    with (
        kept_by(database) as server,
        member(database, server.path) as (writer, _),
        member(database, server.path) as (store, _),
    ):
        asked = count_questions(store, monkeypatch)
        append(writer, "link-1")
        names = ["link-1", "link-2"]
        for _ in range(3):
            assert versions(store.stream_states(names)) == {"link-1": 1, "link-2": 0}
        append(writer, "link-3")
        append(writer, "tag-1")
        assert versions(store.stream_states(names)) == {"link-1": 1, "link-2": 0}
        assert len(asked) == 1
        for version in (1, 2):
            append(writer, "link-2")
            assert versions(store.stream_states(names)) == {"link-1": 1, "link-2": version}
        assert len(asked) == 3


def test_streams_that_the_board_does_not_watch_are_asked_for_each_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of their key would end what is kept of them, or nothing would."""
    with kept_by(database) as server, member(database, server.path) as (store, _):
        asked = count_questions(store, monkeypatch)
        for version in (1, 2):
            append(store, "blob-1")
            append(store, "tag-1")
            assert versions(store.stream_states(["link-1", "blob-1"])) == {"link-1": 0, "blob-1": version}
            assert versions(store.stream_states(["tag-1"])) == {"tag-1": version}
        assert len(asked) == 4


def test_nothing_is_kept_while_an_append_may_be_under_way(database: Database) -> None:
    """Its outcome is unknown, so the state may change at any moment."""
    with (
        kept_by(database) as server,
        member(database, server.path) as (writer, board),
        member(database, server.path) as (store, _),
    ):
        append(writer, "other")
        cells = board.cells_changed(command(event("link-1", key="you/app")))
        board.writer.begin(cells)
        assert versions(store.stream_states(["link-1"])) == {"link-1": 0}
        board.writer.end(cells)
        append(writer, "link-1")
        assert versions(store.stream_states(["link-1"])) == {"link-1": 1}


def test_the_oldest_states_are_forgotten_and_long_questions_keep_nothing(database: Database) -> None:
    """So memory is bounded, and one large manifest does not drive out all others."""
    questions: list[int] = []

    def ask(streams: Sequence[str]) -> dict[str, StreamState]:
        questions.append(len(streams))
        return {each: StreamState(each, 0, None, None) for each in streams}

    with kept_by(database) as server, member(database, server.path) as (_, board):
        kept = KeptStates(board, ask, states_max=2)
        for names in (["link-1"], ["link-2"], ["link-3"], ["link-3", "link-2"], ["link-1"]):
            kept.states(names)
        assert questions == [1, 1, 1, 1]
        many = [f"link-{number}" for number in range(ASKED_MAX + 1)]
        kept.states(many)
        kept.states(["link-3", "link-1"])
        assert questions == [1, 1, 1, 1, len(many)]
