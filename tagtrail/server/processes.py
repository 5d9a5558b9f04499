"""Facts about processes from Linux's /proc, and means to end a child with its parent."""

import ctypes
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# The number of the option for mallopt, and our value.
_M_ARENA_MAX = -8
_ARENAS_MAX = 2
PARENT_VARIABLE = "TAGTRAIL_PARENT_PID"
BOARD_VARIABLE = "TAGTRAIL_BOARD"
APPENDER_VARIABLE = "TAGTRAIL_APPENDER_SOCKET"


def started_at(pid: int) -> int | None:
    """The start of the process in ticks since boot. Together with the pid it names one process. None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError):
        return None


def lives_in_group(group: int) -> bool:
    """True if any process of the group runs. Zombies do not count, because some systems leave them for seconds."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, _, number = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue  # it has ended meanwhile
            if int(number) == group and state != "Z":
                return True
    return False


def working_in(folder: Path, program: str) -> list[int]:
    """Pids of processes of this program whose working folder is `folder`, as a Postgres's is its data."""
    found = []
    wanted = str(folder.resolve())
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{entry}/cwd") != wanted:
                continue
            if os.readlink(f"/proc/{entry}/exe").removesuffix(" (deleted)").rpartition("/")[2] == program:
                found.append(int(entry))
        except OSError:
            continue  # it has ended meanwhile, or belongs to somebody else
    return found


def end_with_parent(parent: int | None = None, number: int = signal.SIGTERM) -> None:
    """Ask the kernel to signal this process when its parent dies; with `parent`, end at once if it is dead already.

    This is a second line of defence, for the case that both watchdog and supervisor are killed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        sys.exit(1)


def never_outlive_parent(grace_s: float) -> None:
    """Kill this process, a forked one of multiprocessing, once its parent has been gone for so many seconds.

    The signal of `end_with_parent` comes once for each thread of the parent. granian's handler of it can wait for
    itself when a second one comes before the first is done, and such a worker would keep the port for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or not hasattr(os, "pidfd_open"):
        return
    try:
        file = os.pidfd_open(parent.pid)
    except ProcessLookupError:
        sys.exit(1)
    threading.Thread(target=_kill_after, args=(file, grace_s), name="parent", daemon=True).start()


def _kill_after(parent_file: int, grace_s: float) -> None:
    select.select([parent_file], [], [])
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def share_memory_pools() -> None:
    """Let all threads share few pools of memory.

    glibc makes several for each core, and memory that was freed in one is not used by another. Hundreds of threads that
    each need megabytes for a moment would keep the sum of all of them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS_MAX)


def supervisor_pid() -> int | None:
    """The pid of the supervisor that started this process, from PARENT_VARIABLE."""
    given = os.environ.get(PARENT_VARIABLE)
    return None if given is None else int(given)


def board_path() -> Path | None:
    """The path of the supervisor's change board, from BOARD_VARIABLE; None without one."""
    return _path_in(BOARD_VARIABLE)


def appender_path() -> Path | None:
    """The path of the socket of the server's appender, from APPENDER_VARIABLE; None without one."""
    return _path_in(APPENDER_VARIABLE)


def _path_in(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return None if given is None else Path(given)
