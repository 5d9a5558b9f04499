"""Clients that ask and read what they like, from any address of this machine."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.servers import RunningServer

WAIT_S = 60.0


@contextmanager
def closed_if_it_fails(made: socket.socket) -> Iterator[socket.socket]:
    """The connection, which its caller hands on unless what is done with it first fails."""
    with ExitStack() as stack:
        yield stack.enter_context(made)
        stack.pop_all()


def begin(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """A connection on which a GET was sent and of whose answer nothing was read."""
    host, _, port = server.host.rpartition(":")
    with closed_if_it_fails(socket.create_connection((host, int(port)), WAIT_S, (address, 0))) as made:
        made.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
    return made


def stalled(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """The same, once its answer has begun, which it then leaves unread."""
    with closed_if_it_fails(begin(server, path, address, *headers)) as made:
        assert made.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
    return made


def ask(server: RunningServer, path: str, address: str, *headers: str) -> int:
    """The status of a GET whose answer is read to its end."""
    with begin(server, path, address, *headers, "Connection: close") as made:
        answer = http.client.HTTPResponse(made)
        answer.begin()
        answer.read()
        return answer.status
