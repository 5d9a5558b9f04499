"""Ends the supervisor's children if it dies: holds the other end of a pipe which closes with the supervisor.

Lines on standard input: `<pid> <started> <signal>` names the leader of a process group, when it began, and the signal
that ends it well; `forget <pid>` takes it back; `dismissed` means that the supervisor has ended everything itself.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tagtrail.server.processes import lives_in_group, started_at

# By the signal that ends a group well: how long each of the signals that follow is given.
# Postgres last, so that requests in flight can still be finished; not for long, because the next start waits for it.
# Postgres gets longer: what it writes out now need not be recovered then.
STAGES: tuple[tuple[int, float, tuple[int, ...]], ...] = (
    (signal.SIGTERM, 1.5, (signal.SIGTERM, signal.SIGKILL)),
    (signal.SIGINT, 5.0, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)),
)


@dataclass(frozen=True, slots=True)
class Group:
    """A process group: its leader, when that began, and the signal that ends it well."""

    leader: int
    started: int
    number: int

    def send(self, number: int) -> bool:
        """Signal every process of the group; False if there is none.

        A leader that began at another time is another program under a used number, which only happens once the group
        has wholly ended.
        """
        now = started_at(self.leader)
        if now is not None and now != self.started:
            return False
        try:
            os.killpg(self.leader, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def main() -> None:
    """Read until the pipe closes, then end what is left."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    groups: dict[int, Group] = {}
    for line in sys.stdin:
        words = line.split()
        if words == ["dismissed"]:
            return
        if words[0] == "forget":
            groups.pop(int(words[1]), None)
        else:
            leader, started, number = (int(each) for each in words)
            groups[leader] = Group(leader, started, number)
    end(groups)


def end(groups: Mapping[int, Group]) -> None:
    """End all groups, gently at first."""
    for ends_by, grace_s, numbers in STAGES:
        left = [group for group in groups.values() if group.number == ends_by]
        for number in numbers:
            left = [group for group in left if group.send(number)]
            for group in left:
                group.send(signal.SIGCONT)
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline and (left := [group for group in left if lives_in_group(group.leader)]):
                time.sleep(0.05)


if __name__ == "__main__":
    main()
