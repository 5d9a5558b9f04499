"""Ends the supervisor's children if it dies: holds the other end of a pipe which closes with the supervisor.

Each line on standard input is `<pid> <signal>`: the leader of a process group and the signal that ends it well.
`0 0` means that the supervisor has ended everything itself.
"""

import os
import signal
import sys
import time

GRACE_S = 5.0


def main() -> None:
    """Read until the pipe closes, then end what is left."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        pid, number = (int(each) for each in line.split())
        if pid == 0:
            return
        groups[pid] = number
    _end(groups)


def _end(groups: dict[int, int]) -> None:
    for pid, number in groups.items():
        _send(pid, number)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(_alive(pid) for pid in groups):
        time.sleep(0.05)
    for pid in groups:
        _send(pid, signal.SIGKILL)


def _alive(group: int) -> bool:
    return _send(group, 0)


def _send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
