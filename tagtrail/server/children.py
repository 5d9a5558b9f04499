"""The supervisor's children: started in groups of their own, told to the watchdog, restarted with a back-off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tagtrail import logs

BACKOFF_S = 0.25
BACKOFF_MAX_S = 30.0
STABLE_S = 20.0


class Watchdog:
    """The process that ends everything if this one dies."""

    def __init__(self) -> None:
        self._process = self._start()
        self._told: dict[int, int] = {}

    def tell(self, pid: int, number: int) -> None:
        """Say which group to end, by which signal, if this process dies."""
        self._told[pid] = number
        self._write(f"{pid} {number}\n")

    def check(self) -> None:
        """Replace the watchdog if it died."""
        if self._process.poll() is not None:
            logs.get_logger().warning("the watchdog died, starting another one")
            self._process = self._start()
            for pid, number in self._told.items():
                self._write(f"{pid} {number}\n")

    def dismiss(self) -> None:
        """Say that all children have ended."""
        self._write("0 0\n")
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tagtrail.server.watchdog"],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _write(self, line: str) -> None:
        if self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
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
        self._retry_at = 0.0
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it now."""
        self.process = self._start()
        self._started_at = time.monotonic()
        self._watchdog.tell(self.process.pid, self._stop_signal)
        return self.process

    def check(self) -> bool:
        """Restart it if it died and its back-off is over; True if it was started."""
        if self.process is None:
            if time.monotonic() < self._retry_at:
                return False
            self.start()
            return True
        code = self.process.poll()
        if code is None:
            return False
        if time.monotonic() - self._started_at > STABLE_S:
            self._backoff_s = BACKOFF_S
        logs.get_logger().error(
            "a process died and is started again", name=self.name, code=code, wait_s=self._backoff_s
        )
        # What it left of its own group must not live beside its successor.
        self.kill()
        self.process = None
        self._retry_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        return False

    def terminate(self) -> None:
        """Ask it to end well."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self._stop_signal)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """End whatever is left of its group."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()
