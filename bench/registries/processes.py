"""Reads from /proc how much processor time and memory all processes of a registry use together."""

import os
import time
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")
# A registry is quiet when it uses less than this share of one processor.
QUIET_SHARE = 0.05
QUIET_SAMPLE_S = 0.4
QUIET_TIMEOUT_S = 60.0


def tree(pid: int) -> list[int]:
    """The pids of a process and of all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                waiting += [int(each) for each in task.read_text().split()]
            except OSError:
                continue
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all its descendants, those that have ended included."""
    ticks = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(one) for one in fields[11:15])
    return ticks / _TICKS_S


def pss_bytes(pid: int) -> int:
    """Bytes of memory of a process and all its descendants; what they share counts once."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def wait_quiet(pids: list[int]) -> None:
    """Wait until these processes and their descendants are quiet. Raises TimeoutError after QUIET_TIMEOUT_S."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while time.monotonic() < deadline:
        before = sum(map(cpu_s, pids))
        time.sleep(QUIET_SAMPLE_S)
        if sum(map(cpu_s, pids)) - before <= QUIET_SHARE * QUIET_SAMPLE_S * max(1, len(pids)):
            return
    raise TimeoutError(f"the registries did not come to rest within {QUIET_TIMEOUT_S:.0f} s")
