"""Clients that ask and read what they like, from any address of this machine."""

import http.client
import socket

from tests.servers import RunningServer

WAIT_S = 15.0


def begin(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """A connection on which a GET was sent and of whose answer nothing was read."""
    host, _, port = server.host.rpartition(":")
    made = socket.create_connection((host, int(port)), timeout=WAIT_S, source_address=(address, 0))
    made.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
    return made


def stalled(server: RunningServer, path: str, address: str = "127.0.0.1", *headers: str) -> socket.socket:
    """The same, once its answer has begun, which it then leaves unread."""
    made = begin(server, path, address, *headers)
    assert made.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
    return made


def ask(server: RunningServer, path: str, address: str, *headers: str) -> int:
    """The status of a GET whose answer is read to its end."""
    with begin(server, path, address, *headers, "Connection: close") as made:
        answer = http.client.HTTPResponse(made)
        answer.begin()
        answer.read()
        return answer.status
