"""Frames between the appender and those who append through it, over a Unix socket of one machine.

Each end first says its HELLO. Then a request is followed by its answer: there is never more than one request under way
on a connection, so answers need no numbers. Whoever finds another version than its own closes: the programs of one
server can be of two releases for a while.
"""

import json
import struct
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from eventstore.calls import Answer

VERSION = 2
HELLO = struct.pack("!8sH", b"tt-apply", VERSION)
# Far above the largest command; see BATCH_BYTES_MAX in eventstore/calls.py.
REQUEST_BYTES_MAX = 8 << 20
# Of a request: the bytes behind this header, the deadline, a bit for each log, the number of cells. Then the cells and
# the text. The deadline counts by the clock of time.monotonic, which all processes of a machine share.
REQUEST = struct.Struct("!IdBI")
# Of an answer: the bytes behind this header, the status, the session of the database (see Calls), and the bytes of the
# reason why the database's disk takes no writes. Then that reason and the body.
ANSWER = struct.Struct("!IBII")
CELL = "H"


class Status(IntEnum):
    """The kind of an answer: that of es_append, or an error with its message."""

    ANSWERED = 0
    UNAVAILABLE = 1
    REJECTED = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came; `body` is the JSON of es_append or a message."""

    status: Status
    session: int
    disk_problem: str
    body: str


class BadFrame(Exception):
    """The other end does not keep to the protocol."""


def encode_request(text: str, deadline: float, cells: Collection[int], logs: Collection[int]) -> bytes:
    """A command as a frame."""
    body = array(CELL, cells).tobytes() + text.encode()
    return REQUEST.pack(len(body), deadline, sum(1 << log for log in set(logs)), len(cells)) + body


def request_bytes(received: bytes | bytearray) -> int | None:
    """The length of the frame that begins with these bytes, None if they do not tell it yet. Raises BadFrame."""
    if len(received) < REQUEST.size:
        return None
    length, _, logs, cells = REQUEST.unpack_from(received)
    if not logs:
        raise BadFrame("a request of no log")
    if length > REQUEST_BYTES_MAX or cells * array(CELL).itemsize > length:
        raise BadFrame(f"a request of {length} bytes and {cells} cells")
    return int(REQUEST.size + length)


def decode_request(frame: bytes | bytearray) -> tuple[str, float, Collection[int], Collection[int]]:
    """Text, deadline, cells and logs of a whole frame. Raises BadFrame."""
    _, deadline, bits, count = REQUEST.unpack_from(frame)
    cells = array(CELL)
    text_at = REQUEST.size + count * cells.itemsize
    cells.frombytes(frame[REQUEST.size : text_at])
    try:
        return str(frame[text_at:], "utf-8"), deadline, cells, [log for log in range(8) if bits & 1 << log]
    except UnicodeDecodeError as problem:
        raise BadFrame("a request that is no text") from problem


def encode_answer(answer: Answer, session: int) -> bytes:
    """The answer of es_append as a frame."""
    return _encode(Status.ANSWERED, session, "", json.dumps(answer, separators=(",", ":")))


def encode_failure(status: Status, message: str, session: int, disk_problem: str | None) -> bytes:
    """An error as a frame."""
    return _encode(status, session, disk_problem or "", message)


def _encode(status: Status, session: int, disk_problem: str, body: str) -> bytes:
    problem, rest = disk_problem.encode(errors="replace"), body.encode(errors="replace")
    return ANSWER.pack(len(problem) + len(rest), status, session, len(problem)) + problem + rest


def decode_reply(received: bytes) -> Reply | None:
    """The answer, None if it has not come whole."""
    if len(received) < ANSWER.size:
        return None
    length, status, session, split = ANSWER.unpack_from(received)
    rest = received[ANSWER.size :]
    if len(rest) < length:
        return None
    return Reply(Status(status), session, rest[:split].decode(), rest[split:].decode())
