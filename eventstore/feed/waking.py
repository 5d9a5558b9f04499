"""Waking a thread that waits for a socket, from another thread or from a handler of signals."""

import contextlib
import os
import threading
import weakref

_MANY = 4096


class Waker:
    """A file that is readable from a call of `wake` to the next `clear`, so that no call is lost between two waits."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for each in (self._read, self._write):
            os.set_blocking(each, False)
        weakref.finalize(self, _close, self._read, self._write)

    def fileno(self) -> int:
        """The file to wait for."""
        return self._read

    @property
    def wakes(self) -> int:
        """The file to write a byte to, for `signal.set_wakeup_fd`."""
        return self._write

    def wake(self) -> None:
        """Wake whoever waits, or waits next."""
        # A full pipe is readable already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> bool:
        """Forget all calls so far; True if there were any."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, _MANY):
                found = True
        return found


class Stop(threading.Event):
    """An event that also wakes threads which wait for sockets. Once it is set, its file stays readable."""

    def __init__(self) -> None:
        super().__init__()
        self._waker = Waker()

    def set(self) -> None:
        """Set it; handlers of signals may do so."""
        super().set()
        self._waker.wake()

    def fileno(self) -> int:
        """The file to wait for."""
        return self._waker.fileno()


def _close(*files: int) -> None:
    for each in files:
        os.close(each)
