"""Ids of upload sessions: each has one spelling, is good for one account in one repository, and cannot be altered."""

import re
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.names import InvalidName, UploadId
from domain.session_id import SessionId, claimed, old_upload_id, proof_of

SECRET = bytes(range(32))
CHARACTERS = string.ascii_letters + string.digits + "_-"
TIMES = st.integers(0, 4_102_444_800_000).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
IDS = st.builds(
    SessionId,
    st.integers(1, 2**31 - 1),
    TIMES,
    st.sampled_from([None, "sha256", "sha512"]),
    st.binary(min_size=16, max_size=16).map(lambda made: UploadId(made.hex())),
)
SAID = SessionId(7, datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), "sha512", UploadId("0123456789abcdef" * 2))
SEALED = SAID.sealed(SECRET, "u/app", "anonymous")


@given(IDS, st.sampled_from(["a", "u/app"]), st.text(max_size=20))
def test_an_id_says_what_went_into_it_and_proves_it(said: SessionId, repository: str, account: str) -> None:
    text = said.sealed(SECRET, repository, account)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,120}", text)
    claim = claimed(text)
    assert claim.claims == said
    assert claim.is_genuine(SECRET, repository, account)


@pytest.mark.parametrize("place", range(len(SEALED)))
def test_an_id_that_was_altered_at_any_place_is_none(place: int) -> None:
    """Any other character makes it a text that is no id, or an id that nobody has given out."""
    for other in CHARACTERS.replace(SEALED[place], ""):
        text = SEALED[:place] + other + SEALED[place + 1 :]
        try:
            claim = claimed(text)
        except InvalidName:
            continue
        assert not claim.is_genuine(SECRET, "u/app", "anonymous"), text


@pytest.mark.parametrize(
    "text",
    ["", "1", SEALED[:-1], SEALED + "A", SEALED + "\n", SEALED.upper(), f" {SEALED}", SEALED.replace("-", "_", 1)],
)
def test_nothing_else_is_an_id(text: str) -> None:
    with pytest.raises(InvalidName):
        claimed(text)


def test_a_time_beyond_all_times_is_no_id() -> None:
    """Anybody may write such a text, so it must not end in an error of the program."""
    with pytest.raises(InvalidName):
        claimed(SEALED.replace(SEALED.split("-")[2], "f" * 12))


@pytest.mark.parametrize(
    ("secret", "repository", "account"),
    [
        (SECRET[::-1], "u/app", "anonymous"),
        (SECRET, "u/ap", "anonymous"),
        (SECRET, "u/app/x", "anonymous"),
        (SECRET, "u/app", "somebody"),
        (SECRET, "u/app", ""),
        (SECRET, "u/app\0anonymous", ""),
    ],
)
def test_an_id_is_good_for_one_account_in_one_repository(secret: bytes, repository: str, account: str) -> None:
    assert claimed(SEALED).is_genuine(SECRET, "u/app", "anonymous")
    assert not claimed(SEALED).is_genuine(secret, repository, account)


def test_an_id_that_was_given_out_once_is_read_for_ever() -> None:
    """The format does not change within a version."""
    said = "1-00000007-019b7ca98f2e-2-0123456789abcdef0123456789abcdef"
    assert f"{said}-rgfx2FmIeaFg-UZKHXnhYdHugHPtvwG-YEKhJrQQSOU" == SEALED
    assert proof_of(SEALED) != proof_of(SEALED[:-1] + "A")
    assert len(proof_of(SEALED)) == 32


def test_ids_of_the_old_kind_are_told_apart() -> None:
    """The random part of a new id alone is no id of the old kind: all who read the log can see it."""
    assert old_upload_id("0123456789" * 4) == "0123456789" * 4
    for text in (SAID.upload, SEALED, "A" * 40, "a" * 41, ""):
        assert old_upload_id(text) is None
