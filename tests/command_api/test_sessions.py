"""A process remembers upload sessions, and is right even if another process has changed them meanwhile."""

import io
from collections.abc import Callable

import pytest
from werkzeug.wrappers import Response

from command_api.uploads.sessions import Sessions
from domain.upload import Session, Upload
from eventstore.store import Store
from eventstore.types import Command, Outcome, StoreUnavailable
from tests.api import Registry, sha256

UPLOADS = "/v2/u/app/blobs/uploads/"


def opened(registry: Registry) -> str:
    answer = registry.post(UPLOADS)
    assert answer.status_code == 202
    return answer.headers["Location"]


def test_processes_take_turns_in_a_session(first: Registry, second: Registry) -> None:
    session = opened(first)
    for number, process in enumerate((first, second, second, first, second, first)):
        answer = process.patch(session, data=b"12345", headers={"Content-Range": f"{5 * number}-{5 * number + 4}"})
        assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{5 * number + 4}")
    data = b"12345" * 6 + b"end"
    assert second.put(f"{session}?digest={sha256(data)}", data=b"end").status_code == 201
    assert first.get(f"/v2/u/app/blobs/{sha256(data)}").data == data
    assert first.put(f"{session}?digest={sha256(data)}").status_code == 201, "the same PUT again"


def test_a_chunk_behind_what_another_process_took_is_refused(first: Registry, second: Registry) -> None:
    session = opened(first)
    assert second.patch(session, data=b"12345").status_code == 202
    answer = first.patch(session, data=b"other", headers={"Content-Range": "0-4"})
    assert (answer.status_code, answer.headers["Range"]) == (416, "0-4")
    assert first.put(f"{session}?digest={sha256(b'12345')}").status_code == 201


def test_what_ended_in_another_process_has_ended(first: Registry, second: Registry) -> None:
    cancelled, committed = opened(first), opened(first)
    assert second.delete(cancelled).status_code == 204
    assert second.put(f"{committed}?digest={sha256(b'all')}", data=b"all").status_code == 201
    for session in (cancelled, committed):
        assert first.patch(session, data=b"more").status_code == 404
        assert first.get(session).status_code == 404
        assert first.put(f"{session}?digest={sha256(b'more')}", data=b"more").status_code == 404


def test_a_session_that_ended_while_its_bytes_still_lie_there_takes_no_more(
    first: Registry, second: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the event and the removal of the file leaves them; the other process takes it for open."""
    session = opened(first)
    assert first.patch(session, data=b"12345").status_code == 202
    monkeypatch.setattr(second.rooms.commands.blobs, "discard", lambda _: None)
    assert second.delete(session).status_code == 204
    assert first.patch(session, data=b"more").status_code == 404
    assert first.put(f"{session}?digest={sha256(b'12345')}").status_code == 404
    assert first.get(f"/v2/u/app/blobs/{sha256(b'12345')}").status_code == 404


class BodyThatEndsItsSession(io.BytesIO):
    """A body during which somebody else cancels the session."""

    def __init__(self, data: bytes, cancel: Callable[[], Response]) -> None:
        super().__init__(data)
        self._cancel = cancel
        self.cancelled: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, once the session has ended."""
        if self.cancelled is None:
            self.cancelled = self._cancel().status_code
        return super().read(size)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_session_that_is_cancelled_while_bytes_arrive_takes_none_and_leaves_no_file(
    first: Registry, second: Registry, method: str, begun: bool
) -> None:
    location = opened(first)
    if begun:
        assert first.patch(location, data=b"12345").status_code == 202
    digest = sha256(b"12345more" if begun else b"more")
    body = BodyThatEndsItsSession(b"more", lambda: second.delete(location))
    path = f"{location}?digest={digest}" if method == "PUT" else location
    answer = first.open(path, method=method, input_stream=body, headers={"Content-Length": "4"})
    assert (body.cancelled, answer.status_code) == (204, 404)
    assert first.get(location).status_code == 404
    assert first.get(f"/v2/u/app/blobs/{digest}").status_code == 404
    assert list((first.rooms.settings.data / "uploads").iterdir()) == []


def test_after_an_unknown_outcome_the_log_is_asked(first: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk was recorded, and nobody was told: what is remembered is older than the log."""
    session = opened(first)
    real = Store.append

    def append(store: Store, command: Command) -> Outcome:
        real(store, command)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", append)
        assert first.patch(session, data=b"12345").status_code == 503
    status = first.get(session)
    assert (status.status_code, status.headers["Range"]) == (204, "0-4")
    assert first.patch(session, data=b"678", headers={"Content-Range": "5-7"}).status_code == 202
    assert first.put(f"{session}?digest={sha256(b'12345678')}").status_code == 201


def test_a_session_in_use_is_gone_on_with_without_asking(first: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(first)
    asked: list[str] = []
    real = Store.session_state

    def session_state(store: Store, stream: str) -> object:
        asked.append(stream)
        return real(store, stream)

    monkeypatch.setattr(Store, "session_state", session_state)
    assert first.patch(session, data=b"12345").status_code == 202
    assert first.put(f"{session}?digest={sha256(b'12345')}").status_code == 201
    assert [each for each in asked if session.rpartition("/")[2] in each] == []


def test_the_sessions_used_last_are_remembered() -> None:
    sessions = Sessions(sessions_max=2)
    for each in ("a", "b", "a", "c"):
        sessions.learn(Session(1, Upload(each, "u/app", "anonymous")))
    assert [sessions.find(each) is not None for each in "abc"] == [True, False, True]
    sessions.learn(Session(2, Upload("a", "u/app", "anonymous", status="committed")))
    assert sessions.find("a") is None
