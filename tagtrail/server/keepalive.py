"""Connections whose client vanished, without a word to the kernel, are found by TCP keep-alive and end.

granian has no option for it. What a listening socket has, its connections inherit; so it is set on that one.
"""

import logging
import os
import socket
import sys
import threading
import time

IDLE_S = 60
INTERVAL_S = 15
PROBES = 4
_TRIES = 200
_PAUSE_S = 0.05

_log = logging.getLogger(__name__)


def keep_alive_when_listening() -> None:
    """Wait, in a thread of its own, until this process listens, and let it keep its connections alive."""
    if sys.platform == "linux":
        threading.Thread(target=_set_when_listening, name="keepalive", daemon=True).start()


def _set_when_listening() -> None:
    for _ in range(_TRIES):
        if any(_set_if_listening(int(each)) for each in os.listdir("/proc/self/fd")):
            return
        time.sleep(_PAUSE_S)
    _log.warning("no listening socket was found: vanished clients may hold their connections for ever")


def _set_if_listening(file: int) -> bool:
    try:
        with socket.fromfd(file, socket.AF_INET, socket.SOCK_STREAM) as held:
            if not held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
            return True
    except OSError:
        return False  # no socket, no TCP, or closed meanwhile
