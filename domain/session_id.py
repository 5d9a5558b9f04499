"""The id of an upload session, which proves by itself that it was given out, when, and to whom.

    1-<key>-<time>-<hint>-<random>-<mac>

Key, time (milliseconds since 1970) and random part are hex of fixed width, the hint is one digit. The MAC is over the
text before it, the repository and the account; the request supplies these two. Texts are compared, never what they
decode to, so each id has one spelling (rule: sealed ids).
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from domain.names import InvalidName, UploadId

RANDOM_BYTES = 16
# The hints by their digit. A digit is never given to another algorithm.
_HINTS: dict[str, str | None] = {"0": None, "1": "sha256", "2": "sha512"}
_DIGITS = {algorithm: digit for digit, algorithm in _HINTS.items()}
_ID = re.compile(
    r"(?P<said>1-(?P<key>[0-9a-f]{8})-(?P<time>[0-9a-f]{12})-(?P<hint>[0-2])-(?P<random>[0-9a-f]{32}))"
    r"-(?P<mac>[A-Za-z0-9_-]{43})"
)
_SEAL = re.compile(r"(1-[0-9a-f]{8}-[0-9a-f]{12}-[0-2]-[0-9a-f]{32}-)[A-Za-z0-9_-]{43}")
_OLD_ID = re.compile(r"[0-9a-f]{40}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class SessionId:
    """The content of an id: the key that sealed it, the time when it was made, the digest that the client hinted at.

    `upload` is the random part, the only one that names a stream or a file.
    """

    key: int
    started_at: datetime
    algorithm: str | None
    upload: UploadId

    def sealed(self, secret: bytes, repository: str, account: str) -> str:
        """The id as text, for a session of this account in this repository."""
        said = f"1-{self.key:08x}-{self._milliseconds:012x}-{_DIGITS[self.algorithm]}-{self.upload}"
        return f"{said}-{_mac(said, secret, repository, account)}"

    @property
    def _milliseconds(self) -> int:
        return (self.started_at - _EPOCH) // _MILLISECOND


@dataclass(frozen=True, slots=True)
class ClaimedId:
    """An id as a client sent it. Its claims count for nothing until the seal is found to be genuine."""

    claims: SessionId
    text: str

    def is_genuine(self, secret: bytes, repository: str, account: str) -> bool:
        """True if this secret sealed this text for this account in this repository."""
        said, mac = self.text[:-44], self.text[-43:]
        return hmac.compare_digest(_mac(said, secret, repository, account), mac)


def claimed(text: str) -> ClaimedId:
    """The id that `text` spells. Raises InvalidName."""
    found = _ID.fullmatch(text)
    if found is None:
        raise InvalidName("not an upload id")
    try:
        started_at = _EPOCH + int(found["time"], 16) * _MILLISECOND
    except OverflowError as problem:
        raise InvalidName("not an upload id") from problem
    said = SessionId(int(found["key"], 16), started_at, _HINTS[found["hint"]], UploadId(found["random"]))
    return ClaimedId(said, text)


def old_upload_id(text: str) -> UploadId | None:
    """The id, if it is of the old kind, which is only random; its session was opened by an event."""
    return UploadId(text) if _OLD_ID.fullmatch(text) else None


def without_seals(text: str) -> str:
    """The text with the seal of each id in it left out, so that nobody who reads it can use the id."""
    return _SEAL.sub(r"\1...", text)


def proof_of(text: str) -> str:
    """A hash by which an id is known again when its key is gone; nobody can make the id of it."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _mac(said: str, secret: bytes, repository: str, account: str) -> str:
    # Neither the text of an id nor the name of a repository has a NUL, so no two requests give the same message.
    message = f"{said}\0{repository}\0{account}".encode()
    return urlsafe_b64encode(hmac.digest(secret, message, "sha256")).decode().rstrip("=")
