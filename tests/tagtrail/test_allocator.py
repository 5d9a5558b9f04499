"""Memory that many connections held is given back to the system, and workers share all that was loaded before them."""

import subprocess
import sys

# Blocks that are too small to be mapped one by one, and a last one behind them that keeps the heap from shrinking.
HELD = """
import ctypes, resource
from tagtrail.server.allocator import give_back

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE, COUNT = 64 * 1024, 2000

def resident():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

blocks = [library.malloc(SIZE) for _ in range(COUNT)]
for each in blocks:
    library.memset(each, 1, SIZE)
held = resident()
for each in blocks[:-1]:
    library.free(each)
freed = resident()
give_back()
print(held - freed, freed - resident())
"""
BYTES = 64 * 1024 * 2000
# Prints the kilobytes that a forked process copies when it collects garbage.
FORKED = """
import gc, os, re
import tagtrail.wsgi
from tagtrail.server.allocator import freeze_for_workers

def copied():
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
        return int(re.search(r"Private_Dirty: +([0-9]+) kB", rollup.read())[1])

freeze_for_workers()
if os.fork() == 0:
    before = copied()
    gc.collect()
    print(copied() - before, flush=True)
    os._exit(0)
os.wait()
"""
COPIED_MAX_KIB = 1024


def test_free_memory_goes_back_to_the_system_only_when_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    before, after = (int(each) for each in done.stdout.split())
    assert before < BYTES / 10
    assert after > BYTES * 9 / 10


def test_a_worker_that_collects_garbage_copies_nothing_that_was_loaded_before_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < COPIED_MAX_KIB
