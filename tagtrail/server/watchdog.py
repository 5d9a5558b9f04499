"""Ends the supervisor's children if the supervisor dies, which closes the pipe that is standard input here.

The lines are: `<pid> <started> <signal>` with the leader of a process group, its start, and the signal that ends it in
order; `forget <pid>`, which takes that back; `dismissed`, when the supervisor has ended everything itself.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tagtrail.server.processes import lives_in_group, started_at

# For each signal that ends a group in order: the time that each of the signals after it is given.
# Postgres ends last, so that requests in flight can be finished, but soon, because the next start waits for it. It gets
# longer than the others, because what it writes out now need not be recovered then.
STAGES: tuple[tuple[int, float, tuple[int, ...]], ...] = (
    (signal.SIGTERM, 1.5, (signal.SIGTERM, signal.SIGKILL)),
    (signal.SIGINT, 5.0, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)),
)


@dataclass(frozen=True, slots=True)
class Group:
    """A process group: its leader, the leader's start, and the signal that ends the group in order."""

    leader: int
    started: int
    number: int

    def send(self, number: int) -> bool:
        """Signal every process of the group; False if there is none.

        A leader with another start is another program under a number that was used again, which happens only once the
        whole group has ended.
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
    """Read until the pipe closes, then end the groups that are left."""
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
