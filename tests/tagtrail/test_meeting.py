"""The socket of the appender is found by its own path, however long the path of the data folder is."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tagtrail.server.meeting import SOCKET_FILE, MeetingPlace

# The longest name of a socket.
NAME_BYTES_MAX = 107


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="tt-meet-", dir="/tmp") as made:
        yield Path(made)


@pytest.mark.parametrize("bytes_more", [0, 1])
def test_its_path_is_the_real_one_unless_that_is_too_long(folder: Path, bytes_more: int) -> None:
    """The other one needs /proc, and the supervisor's process in it."""
    missing = NAME_BYTES_MAX + bytes_more - len(os.fsencode(folder / "d" / SOCKET_FILE))
    data = folder / ("d" + missing * "x")
    data.mkdir()
    with closing(MeetingPlace(data)) as place:
        assert (place.path == data / SOCKET_FILE) == (bytes_more == 0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(str(place.path))
    assert list(data.iterdir()) == []
