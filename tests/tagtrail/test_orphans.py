"""A worker whose parent was killed ends, even if the signal that tells it so has no effect."""

import subprocess
import sys

from tests.servers import is_alive
from tests.waiting import eventually

# A parent that forks a worker which ignores the signal; a handler that waits for itself has the same effect.
DEAF = """
import multiprocessing, signal, threading
from tagtrail.server.processes import end_with_parent, never_outlive_parent

def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    never_outlive_parent(0.2)
    print(multiprocessing.current_process().pid, flush=True)
    threading.Event().wait()

worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
worker.join()
"""


def test_a_worker_that_is_deaf_to_the_order_to_end_does_not_outlive_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            worker = int(parent.stdout.readline())
            assert is_alive(worker)
        finally:
            parent.kill()
        eventually(lambda: not is_alive(worker))
