"""The upload session as a state machine, against a model in plain numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import upload as uploads
from domain.event import Event
from domain.upload import OutOfOrder, Upload, UploadClosed, UploadStarted

STARTED = uploads.start(UploadStarted("u" * 32, "a/b"), "anonymous")
Step = tuple[str] | tuple[str, int, int]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(0, 40), st.integers(1, 20)),
        st.just(("commit",)),
        st.just(("cancel",)),
        st.just(("expire",)),
    ),
    max_size=12,
)


def _decide(upload: Upload, step: Step) -> Event:
    match step:
        case ("chunk", offset, size):
            return uploads.append_chunk(upload, offset, size)
        case ("commit",):
            return uploads.commit(upload, "sha256:" + "a" * 64, upload.offset)
        case ("cancel",):
            return uploads.cancel(upload)
        case _:
            return uploads.expire(upload)


@given(STEPS)
def test_a_session_takes_chunks_in_order_until_it_ends(steps: list[Step]) -> None:
    """Refused steps change nothing; an ended session takes nothing; the state survives its text."""
    upload, stored, ended = STARTED, 0, False
    for step in steps:
        if ended:
            with pytest.raises(UploadClosed):
                _decide(upload, step)
            continue
        offset, size = (step[1], step[2]) if len(step) == 3 else (stored, 0)
        if offset != stored:
            with pytest.raises(OutOfOrder):
                _decide(upload, step)
            continue
        upload = uploads.evolve(upload, _decide(upload, step))
        stored += size
        ended = step[0] != "chunk"
        assert upload.offset == stored
        assert upload.is_open is not ended
        assert uploads.from_state(uploads.to_state(upload)) == upload
