"""Options of the kernel for connections.

TCP keep-alive ends those whose client vanished without a word, and the kernel buffers little for a client that does not
read. granian has no option for it. But connections inherit options from the listening socket, so they are set on that.
"""

import os
import socket
import sys
import threading
import time

IDLE_S = 60
INTERVAL_S = 15
PROBES = 4
# Without a limit the kernel buffers megabytes for a client that does not read, and lacks them for others. Bytes that
# are on their way to a client that reads do not count.
UNSENT_BYTES_MAX = 128 * 1024
_PAUSE_S = 0.05


def keep_alive_when_listening() -> None:
    """Wait, in a thread of its own, until this process listens, and let it keep its connections alive."""
    if sys.platform == "linux":
        threading.Thread(target=_set_when_listening, name="keepalive", daemon=True).start()


def _set_when_listening() -> None:
    # Waits without limit, since a process that never listens has no connections that could vanish.
    while not any(_set_if_listening(int(each)) for each in os.listdir("/proc/self/fd")):
        time.sleep(_PAUSE_S)


def _set_if_listening(file: int) -> bool:
    try:
        # Borrowed, not duplicated: a duplicate would be seen, and opened again, at the next look.
        borrowed = socket.socket(fileno=file)
    except OSError:
        return False  # no socket, or closed meanwhile
    try:
        if borrowed.type != socket.SOCK_STREAM or not borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        borrowed.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
        borrowed.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
        borrowed.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        borrowed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        return True
    except OSError:
        return False  # no TCP, or closed meanwhile
    finally:
        borrowed.detach()
