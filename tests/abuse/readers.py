"""Clients that ask for a body and read as much of the answer as they like, from any address of this machine."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.servers import RunningServer

WAIT_S = 60.0


@contextmanager
def closed_if_it_fails(made: socket.socket) -> Iterator[socket.socket]:
    """Close the connection if the block fails; otherwise it stays open for whoever gets it."""
    with ExitStack() as stack:
        yield stack.enter_context(made)
        stack.pop_all()


def begin(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """Send a GET and read nothing of its answer; answers the connection."""
    host, _, port = server.host.rpartition(":")
    with closed_if_it_fails(socket.create_connection((host, int(port)), WAIT_S, (address, 0))) as made:
        made.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
    return made


def stalled(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """Send a GET, wait until its answer has begun, and leave it unread; answers the connection."""
    with closed_if_it_fails(begin(server, path, address, *headers)) as made:
        assert made.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
    return made


def ask(server: RunningServer, path: str, address: str, *headers: str) -> int:
    """Send a GET and read its answer to the end; answers the status."""
    with begin(server, path, address, *headers, "Connection: close") as made:
        answer = http.client.HTTPResponse(made)
        answer.begin()
        answer.read()
        return answer.status
