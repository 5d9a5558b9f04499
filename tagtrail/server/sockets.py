"""The TCP connections of this process as the kernel sees them. They belong to the server and are only borrowed."""

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Linux gives each socket a number that no other one gets until the next start of the machine.
_SO_COOKIE = 57
_COOKIE_BYTES = 8
# Of struct tcp_info (linux/tcp.h): state, milliseconds since data came, bytes acknowledged, bytes received. Linux 4.1.
_INFO = struct.Struct("=B 51x I 64x QQ")
ESTABLISHED = 1
# FIN_WAIT1 and FIN_WAIT2: the peer may still send.
SHUT_DOWN_BY_US = (4, 5)
_LISTENING = 10
_NUMBER = struct.Struct("=i")
_SLICE = 100
_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class Connection:
    """One look at a connection: `acknowledged` bytes were taken by the peer, `waiting` more are to be; `received` bytes
    came from it, of which the server has left `unread` so far, the last of them `silent_ms` milliseconds ago.
    """

    file: int
    cookie: bytes
    acknowledged: int
    waiting: int
    received: int = 0
    unread: int = 0
    silent_ms: int = 0

    @property
    def sent(self) -> int:
        """The bytes that the server has sent, whether they were taken or not.

        What is taken while the kernel is asked for the two numbers is missing in this look, and there in the next one.
        """
        return self.acknowledged + self.waiting


def files() -> list[int]:
    """All open files of this process."""
    return [int(each) for each in os.listdir("/proc/self/fd")]


def in_slices(files: Iterable[int]) -> Iterator[int]:
    """The same files, with a pause after each slice: looking costs a few microseconds, and there may be thousands.

    So other threads run in between.
    """
    for number, file in enumerate(files):
        if number % _SLICE == _SLICE - 1:
            time.sleep(_PAUSE_S)
        yield file


def look(file: int) -> Connection | None:
    """The connection behind this file; None if there is none, or it was closed or replaced meanwhile."""
    try:
        with _borrowed(file) as held:
            cookie = _cookie(held)
            info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            if len(info) < _INFO.size or info[0] == _LISTENING:
                return None
            # For a connection this is the number of bytes that were not acknowledged, sent or not (SIOCOUTQ in tcp(7)).
            queued = fcntl.ioctl(held, termios.TIOCOUTQ, bytes(_NUMBER.size))
            unread = fcntl.ioctl(held, termios.FIONREAD, bytes(_NUMBER.size))
            if _cookie(held) != cookie:
                return None
    except OSError:
        return None  # no socket, no TCP, or closed meanwhile
    _, silent_ms, acknowledged, received = _INFO.unpack(info)
    waiting, left = _NUMBER.unpack(queued)[0], _NUMBER.unpack(unread)[0]
    return Connection(file, cookie, acknowledged, waiting, received, left, silent_ms)


def local_port(file: int) -> int | None:
    """The port on which a connection arrived."""
    try:
        with _borrowed(file) as held:
            return int(held.getsockname()[1])
    except (OSError, IndexError, ValueError):
        return None  # closed meanwhile, or no address with a port


def peer_address(file: int) -> str | None:
    """The address of the other end, as the server writes it into REMOTE_ADDR."""
    try:
        with _borrowed(file) as held:
            # Without the interface of a link-local address.
            return str(held.getpeername()[0]).partition("%")[0]
    except (OSError, IndexError):
        return None  # closed meanwhile


def cut_off(connection: Connection) -> str | None:
    """End a connection at once; answers its peer's address, None if it has ended by itself.

    The server closes its file as soon as it notices, and bytes that wait for the peer are then thrown away. If nothing
    waits, the connection ends without a reset, because the peer may not have read yet what it took.
    """
    held = duplicate(connection)
    if held is None:
        return None
    with held:
        try:
            peer = str(held.getpeername()[0])
            if connection.waiting:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            held.shutdown(socket.SHUT_RDWR)
        except OSError:
            return None
        return peer


def duplicate(connection: Connection) -> socket.socket | None:
    """A second file of a connection; None if it has ended, or no file is free.

    It stays that connection, whatever becomes of the first file's number.
    """
    try:
        copy = os.dup(connection.file)
    except OSError:
        return None
    try:
        held = socket.socket(fileno=copy)
    except OSError:
        # It is no socket any more.
        os.close(copy)
        return None
    try:
        same = _cookie(held) == connection.cookie
    except OSError:
        same = False
    if not same:
        held.close()
        return None
    return held


def state(held: socket.socket) -> int:
    """The state of a connection, as linux/tcp_states.h numbers them."""
    return held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _cookie(held: socket.socket) -> bytes:
    return held.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)


@contextmanager
def _borrowed(file: int) -> Iterator[socket.socket]:
    """The file as a socket, which is neither duplicated nor closed. Family and type are named to save questions."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=file)
    try:
        yield held
    finally:
        held.detach()
