"""Decisions about an upload session, compared with plain numbers, on the present state and on an outdated one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.decision import Decision, Refusal
from domain.digests import digest_of
from domain.names import RepositoryName, UploadId
from domain.session_id import SessionId
from domain.streams import OPEN, upload_stream
from domain.upload import (
    AppendChunk,
    CancelUpload,
    ChunkAppended,
    ExpireUpload,
    FinishUpload,
    OpenUpload,
    OutOfOrder,
    Session,
    StillUsed,
    UploadEnded,
    UploadStarted,
    decide_cancellation,
    decide_chunk,
    decide_expiry,
    decide_finish,
    decide_opening,
    has_lapsed,
    proved_session,
    recorded_session,
    with_chunk,
)
from tests.domain.streams import Streams

UPLOAD = UploadId("a" * 32)
REPOSITORY = RepositoryName("a/b")
DIGEST = digest_of("sha256", b"")
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRY = timedelta(hours=1)
SAID = SessionId(1, STARTED_AT, None, UPLOAD)
EXPIRE = ExpireUpload(EXPIRY)

Command = AppendChunk | FinishUpload | CancelUpload | ExpireUpload
chunks = st.builds(AppendChunk, st.integers(0, 40), st.integers(1, 20))
commands: st.SearchStrategy[Command] = st.one_of(
    chunks, st.just(FinishUpload(DIGEST, 5)), st.just(CancelUpload()), st.just(EXPIRE)
)


def decide(session: Session, command: Command) -> Decision | Refusal:
    match command:
        case AppendChunk():
            return decide_chunk(session, command)
        case FinishUpload():
            return decide_finish(session, command)
        case CancelUpload():
            return decide_cancellation(session, command)
        case ExpireUpload():
            idle = replace(session, recorded_at=STARTED_AT)
            return decide_expiry(idle, command, STARTED_AT + 2 * EXPIRY)


def proved() -> Session:
    return proved_session(SAID, REPOSITORY, "anonymous", "proof")


def found_in(streams: Streams) -> Session:
    return recorded_session(streams.state(upload_stream(UPLOAD))) or proved()


def opened(by_event: bool) -> Streams:
    """A log with the event that opened the session, or with no event of it."""
    streams = Streams()
    if by_event:
        assert streams.append(decide_opening(OpenUpload(UPLOAD, REPOSITORY, "anonymous"))) is None
    return streams


@given(st.booleans(), st.lists(commands, max_size=12))
def test_a_session_takes_chunks_in_order_until_it_ends(by_event: bool, steps: list[Command]) -> None:
    """Refused steps change nothing; an ended session takes nothing; its start is recorded once, and first."""
    streams, stored, ended = opened(by_event), 0, False
    for command in steps:
        decision = decide(found_in(streams), command)
        if ended:
            assert decision == Refusal((UploadEnded(),))
        elif isinstance(command, AppendChunk) and command.offset != stored:
            assert decision == Refusal((OutOfOrder(stored),))
        else:
            assert isinstance(decision, Decision)
            assert streams.append(decision) is None
            stored = stored + command.size if isinstance(command, AppendChunk) else stored
            ended = not isinstance(command, AppendChunk)
    session = found_in(streams)
    assert session.upload.is_open is not ended
    if not ended:
        assert session.upload.offset == stored
    assert streams.live() == ({upload_stream(UPLOAD): OPEN} if streams.events and not ended else {})
    starts = [number for number, each in enumerate(streams.events) if isinstance(each, UploadStarted)]
    assert starts == [0][: len(streams.events)]


@given(st.booleans(), st.booleans(), commands, commands)
def test_only_the_first_of_two_steps_decided_on_one_state_is_appended(
    by_event: bool, moved_on: bool, first: Command, second: Command
) -> None:
    """The second one is told that it was overtaken, and is decided again."""
    streams = opened(by_event)
    if moved_on:
        chunk = decide(found_in(streams), AppendChunk(0, 5))
        assert isinstance(chunk, Decision)
        assert streams.append(chunk) is None
    decided = [decide(found_in(streams), each) for each in (first, second)]
    taken = [each for each in decided if isinstance(each, Decision)]
    outcomes = [streams.append(each) for each in taken]
    assert outcomes == [None, Refusal()][: len(taken)]


@given(st.booleans(), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_a_session_that_is_remembered_is_the_one_that_the_log_has(by_event: bool, sizes: list[int]) -> None:
    """A process goes on with what it appended, without asking the log."""
    streams = opened(by_event)
    session = found_in(streams)
    for size in sizes:
        command = AppendChunk(session.upload.offset, size)
        decision = decide_chunk(session, command)
        assert isinstance(decision, Decision)
        assert streams.append(decision) is None
        assert isinstance(streams.events[-1], ChunkAppended)
        session = with_chunk(session, command)
        assert session == found_in(streams)


@given(st.timedeltas(timedelta(0), 3 * EXPIRY))
def test_a_session_expires_once_nothing_has_happened_in_it_for_longer_than_the_expiry(idle: timedelta) -> None:
    """Its last event decides, or without any the time in its id."""
    streams = opened(by_event=True)
    session = replace(found_in(streams), recorded_at=STARTED_AT)
    decision = decide_expiry(session, EXPIRE, STARTED_AT + idle)
    if idle > EXPIRY:
        assert isinstance(decision, Decision)
    else:
        assert decision == Refusal((StillUsed(),))
    assert has_lapsed(SAID, EXPIRY, STARTED_AT + idle) is (idle > EXPIRY)


def test_the_start_that_an_id_proves_has_the_time_that_the_id_says() -> None:
    started = proved().started
    assert started is not None
    assert started.started_at == "2026-01-01T00:00:00.000+00:00"
