"""The TCP connections of this process as the kernel sees them. The server owns them: they are borrowed for a look."""

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Linux: a number that no other socket has or will have until the next start of the machine.
_SO_COOKIE = 57
_COOKIE_BYTES = 8
# Of struct tcp_info (linux/tcp.h): state and bytes acknowledged. Linux 4.1.
_INFO = struct.Struct("=B 119x Q")
_LISTENING = 10
_NUMBER = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Connection:
    """One look at a connection: `acknowledged` bytes were taken by the peer, `waiting` more are to be."""

    file: int
    cookie: bytes
    acknowledged: int
    waiting: int


def files() -> list[int]:
    """All open files of this process."""
    return [int(each) for each in os.listdir("/proc/self/fd")]


def look(file: int) -> Connection | None:
    """The connection that this file is; None if it is none, or was closed or replaced meanwhile."""
    try:
        with _borrowed(file) as held:
            cookie = _cookie(held)
            info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            if len(info) < _INFO.size or info[0] == _LISTENING:
                return None
            # Of a connection it is the number of bytes that were not acknowledged, sent or not (SIOCOUTQ in tcp(7)).
            queued = fcntl.ioctl(held, termios.TIOCOUTQ, bytes(_NUMBER.size))
            if _cookie(held) != cookie:
                return None
    except OSError:
        return None  # no socket, no TCP, or closed meanwhile
    _, acknowledged = _INFO.unpack(info)
    return Connection(file, cookie, acknowledged, *_NUMBER.unpack(queued))


def local_port(file: int) -> int | None:
    """The port on which a connection arrived."""
    try:
        with _borrowed(file) as held:
            return int(held.getsockname()[1])
    except (OSError, IndexError, ValueError):
        return None  # closed meanwhile, or no address with a port


def cut_off(connection: Connection) -> str | None:
    """End a connection at once; answers its peer's address, None if it has ended by itself.

    What waits for the peer is thrown away when the server closes its file, which it does as soon as it notices.
    """
    try:
        # From here on this is one connection whatever becomes of the file's number.
        with _duplicate(connection.file) as held:
            if _cookie(held) != connection.cookie:
                return None
            peer = str(held.getpeername()[0])
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            held.shutdown(socket.SHUT_RDWR)
            return peer
    except OSError:
        return None


def _duplicate(file: int) -> socket.socket:
    duplicate = os.dup(file)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        # It is no socket any more.
        os.close(duplicate)
        raise


def _cookie(held: socket.socket) -> bytes:
    return held.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)


@contextmanager
def _borrowed(file: int) -> Iterator[socket.socket]:
    """The file as a socket, which is neither duplicated nor closed. Naming family and type saves asking for them."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=file)
    try:
        yield held
    finally:
        held.detach()
