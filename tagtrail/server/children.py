"""The supervisor's children. Each has a process group of its own and is restarted with a back-off."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tagtrail import logs
from tagtrail.server.processes import started_at

BACKOFF_S = 0.25
# Short enough that a process that is killed again and again is ready 5 s later.
BACKOFF_MAX_S = 3.0
# A child that lived so long did not die of its start.
STABLE_S = 5.0
_QUICK_S = 2.0


class Watchdog:
    """The process that ends all children if this one dies. It holds the files `keep` open as long as it lives."""

    def __init__(self, keep: Sequence[int] = ()) -> None:
        self._keep = keep
        self._told: dict[int, str] = {}
        self._process = self._start()

    def tell(self, pid: int, number: int) -> None:
        """Tell the watchdog which group to end, by which signal, if this process dies."""
        began = started_at(pid)
        if began is not None:
            self._told[pid] = f"{pid} {began} {number}\n"
            self._write(self._told[pid])

    def forget(self, pid: int) -> None:
        """Tell the watchdog that a group has ended, because its number may soon belong to another."""
        if self._told.pop(pid, None) is not None:
            self._write(f"forget {pid}\n")

    def check(self) -> None:
        """Replace the watchdog if it died."""
        if self._process.poll() is not None:
            logs.get_logger().warning("the watchdog died, starting another one")
            self._process = self._start()
            for line in self._told.values():
                self._write(line)

    def dismiss(self) -> None:
        """Tell the watchdog that all children have ended."""
        self._write("dismissed\n")
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        # Unbuffered, so that a line has reached the watchdog when the call returns, and none is left for a dead one.
        return subprocess.Popen(
            [sys.executable, "-m", "tagtrail.server.watchdog"],
            stdin=subprocess.PIPE,
            bufsize=0,
            pass_fds=self._keep,
            start_new_session=True,
        )

    def _write(self, line: str) -> None:
        if self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            logs.get_logger().warning("the watchdog does not listen; it is replaced")


class Child:
    """One supervised process."""

    def __init__(
        self, name: str, start: "Callable[[], subprocess.Popen[bytes]]", stop_signal: int, watchdog: Watchdog
    ) -> None:
        self.name = name
        self._start = start
        self._stop_signal = stop_signal
        self._watchdog = watchdog
        self._backoff_s = BACKOFF_S
        self._retry_at: float | None = None
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it now."""
        self.process, self._retry_at = self._start(), None
        self._started_at = time.monotonic()
        self._watchdog.tell(self.process.pid, self._stop_signal)
        return self.process

    def check(self) -> bool:
        """Restart it if it died and its back-off is over; True if it was started.

        Until then the rest of its group may end in order, as workers do that sign off from the database.
        """
        if self._retry_at is None:
            if self.ended():
                self._note_death()
            return False
        if time.monotonic() < self._retry_at:
            return False
        # The rest of its group must not live beside its successor.
        self.kill()
        self.start()
        return True

    def _note_death(self) -> None:
        if time.monotonic() - self._started_at > STABLE_S:
            self._backoff_s = BACKOFF_S
        logs.get_logger().error(
            "a process died and is started again", name=self.name, code=self._code(), wait_s=self._backoff_s
        )
        self._retry_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    def due_s(self) -> float:
        """The seconds until `check` has something to do even if no process ends."""
        return math.inf if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def terminate(self) -> None:
        """Ask it to end in order, even if somebody has stopped it by a signal."""
        if self.process is not None and not self.ended():
            # Not Popen.send_signal, which takes notice of an end and so sets the number free.
            os.kill(self.process.pid, self._stop_signal)
            os.kill(self.process.pid, signal.SIGCONT)

    def ended(self) -> bool:
        """True if it has ended. It stays a zombie until `kill`, so that its number still names its group."""
        return self._code() is not None

    def _code(self) -> int | None:
        """The exit status, less than zero for the signal that ended it; None while it runs."""
        if self.process is None:
            return 0
        if self.process.returncode is not None:
            return self.process.returncode
        done = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if done is None:
            return None
        return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status

    def kill(self) -> None:
        """End it and the rest of its group. Postgres gets a moment to end by itself."""
        process, self.process = self.process, None
        if process is None:
            return
        if self._stop_signal == signal.SIGINT and process.returncode is None:
            os.kill(process.pid, signal.SIGQUIT)
            _wait(process, _QUICK_S)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        self._watchdog.forget(process.pid)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        logs.get_logger().warning("a process does not end; it is killed", pid=process.pid)
