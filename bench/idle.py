"""Measures the processor time of an idle server: `python bench/idle.py [SECONDS] [--kafka [HOST:PORT]]`.

Starts `tagtrail serve`, appends some events, and waits until the read models are level and the processes have come to
rest. Then it adds up the processor time that each process takes within SECONDS (default 60), processes that begin and
end meanwhile included. With `--kafka` but no address it starts a broker of its own, whose time does not count. The goal
is less than 0.5 % of a core for all processes together.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.kafka import running_broker
from tests.servers import RunningServer, command_of, serving, warm_up

CALM_S = 12.0
GOAL_PERCENT = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
# Of /proc/<pid>/stat behind the name of the program: own time in user and kernel mode, then that of ended children.
_TIMES = slice(11, 15)


def taken(server: RunningServer) -> dict[str, float]:
    """Processor seconds so far, by pid and name of each process of the server."""
    seconds: dict[str, float] = {}
    for pid in (server.process.pid, *server.descendants()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds[f"{pid:7} {name_of(pid)}"] = sum(int(each) for each in fields[_TIMES]) / _TICKS
    return seconds


def name_of(pid: int) -> str:
    """A short name for a process: its module, or for a backend of Postgres the title that says what it does."""
    words = command_of(pid).split()
    if words[:1] == ["postgres:"]:
        return " ".join(words)
    modules = [each for each in words if each.startswith("tagtrail")]
    return modules[-1] if modules else " ".join(words)[:60]


def changes(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, float]]:
    """The processor seconds that each process took between two calls of `taken`, the largest first."""
    found = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    return sorted(((name, seconds) for name, seconds in found.items() if seconds > 0), key=lambda each: -each[1])


@contextmanager
def broker_at(given: str | None) -> Iterator[str | None]:
    """The address of Kafka: None without it, the one that was given, or that of a broker which runs during the block.

    `given` is what stood behind `--kafka`: None without the flag, empty if no address was named.
    """
    if given != "":
        yield given
        return
    with running_broker() as broker:
        yield broker.bootstrap


def options(kafka: str | None) -> tuple[str, ...]:
    """The flags of `tagtrail serve` for this address of Kafka; none without one."""
    return () if kafka is None else ("--kafka", kafka, "--kafka-topic-prefix", f"idle-{os.getpid()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--kafka", nargs="?", const="", default=None)
    given = parser.parse_args()
    with broker_at(given.kafka) as kafka, serving(None, *options(kafka)) as server:
        warm_up(server.host)
        time.sleep(CALM_S)
        before, began = taken(server), time.monotonic()
        time.sleep(given.seconds)
        passed = time.monotonic() - began
        found = changes(before, taken(server))
    total = 100 * sum(seconds for _, seconds in found) / passed
    for name, seconds in found:
        print(f"{100 * seconds / passed:6.2f} %  {name}")
    judged = "reached" if total < GOAL_PERCENT else "MISSED"
    print(f"{total:6.2f} %  all processes; the goal is below {GOAL_PERCENT:g} %: {judged}")


if __name__ == "__main__":
    main()
