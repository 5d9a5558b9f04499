"""Each process has open only the files that it needs, however often it was started and whatever it was sent."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tagtrail.server.lock import LOCK_FILE
from tests.abuse.fuzzing.sockets import Client
from tests.servers import RunningServer, serving
from tests.waiting import eventually

SEED = 20261127
# With these options every connection to the database is open from the first request on, so a larger number is a leak.
OPTIONS = {"TAGTRAIL_WORKERS": "2", "TAGTRAIL_DATABASE_POOL": "1"}
SOCKETS_SPARE = 2
# A process that listens only after a while, and compares the number of its open files before and after.
LATE = """
import os, socket, time
from tagtrail.server.keepalive import keep_alive_when_listening

def files():
    return len(os.listdir("/proc/self/fd"))

other, late = socket.socketpair()[0], socket.socket()
late.bind(("127.0.0.1", 0))
before = files()
keep_alive_when_listening()
time.sleep(1.0)
assert files() == before, (files(), before)
late.listen()
deadline = time.monotonic() + 50
while not late.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
    assert time.monotonic() < deadline, "keep-alive was not set"
    time.sleep(0.01)
assert files() == before, (files(), before)
assert not other.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
"""


def test_a_worker_that_listens_late_is_found_and_no_file_is_opened_meanwhile() -> None:
    """The start may take long, and sockets that do not listen are left alone."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("requests", "restarts"), [(200, 4), pytest.param(1_000, 50, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_broken_requests_and_restarts_leave_no_open_files(requests: int, restarts: int) -> None:
    """The lock of the data folder is open once in each process, and nothing is open more often than at first."""
    with serving(OPTIONS) as server:
        send_broken(server, requests)
        # The first workers lack the pipes of those that were forked after them; their successors have all.
        for _ in range(2 * len(server.workers())):
            replace_worker(server)
        # The keeper connects once it has its lease, which takes some seconds.
        eventually(lambda: all(kept(server).values()), what=lambda: kept(server))
        first = open_files(server)
        for _ in range(restarts):
            replace_worker(server)
        send_broken(server, requests)
        found = open_files(server)
        assert {name: files["lock"] for name, files in found.items()} == dict.fromkeys(found, 1)
        # Compared again until it fits: a connection to the database may be renewed at this moment.
        eventually(lambda: not grown(first, open_files(server)), what=lambda: grown(first, open_files(server)))


def kept(server: RunningServer) -> dict[str, bool]:
    """The keeper's tasks that run soon after the start, and whether each has been done."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    name = "tagtrail_keeper_last_success_timestamp_seconds"
    return {task: f'{name}{{task="{task}"}}' in told for task in ("expire-uploads", "sweep-content", "backfill")}


def grown(before: dict[str, Counter[str]], now: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """The files that each process has open more often than before, connections beyond the few that come and go."""
    spare = Counter({"socket:[N]": SOCKETS_SPARE})
    return {name: more for name, files in now.items() if (more := files - before[name] - spare)}


def open_files(server: RunningServer) -> dict[str, Counter[str]]:
    """The files that each process has open, counted; numbers that only name a process or a pipe are left out."""
    workers = {f"worker {number}": pid for number, pid in enumerate(sorted(server.workers()))}
    ours = {name: pid for name, pid in server.children().items() if name != "postgres"}
    everybody = {"supervisor": server.process.pid} | ours | workers
    return {name: files_of(pid, server.data) for name, pid in everybody.items()}


def files_of(pid: int, data: Path) -> Counter[str]:
    """The files that a process has open, by kind of file, and `lock` for the lock of the data folder."""
    found = Counter[str]()
    for each in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{each}")
        except FileNotFoundError:
            continue  # closed meanwhile
        found["lock" if target == str(data / LOCK_FILE) else re.sub(r"\d+", "N", target)] += 1
    return found


def send_broken(server: RunningServer, count: int) -> None:
    """Requests that are damaged at random, over many connections; all are closed afterwards."""
    host, _, port = server.host.rpartition(":")
    client = Client((host, int(port)), SEED, count)
    client.start()
    client.join()
    assert client.fault is None, client.fault
    eventually(lambda: not connections_of(server), what="connections stay open")


def connections_of(server: RunningServer) -> list[str]:
    """The established connections of the server's address, as the kernel lists them."""
    port = f":{int(server.host.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if row[1].endswith(port) and row[3] == "01"]


def replace_worker(server: RunningServer) -> None:
    """Kill a worker and wait until its successor serves."""
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)

    def replaced() -> bool:
        now = server.workers()
        return len(now) == len(before) and before[0] not in now and all(listens(server, pid) for pid in now)

    eventually(replaced, what="no other worker")


def listens(server: RunningServer, pid: int) -> bool:
    """True if the process has a listening socket of the server's address."""
    port = f":{int(server.host.rpartition(':')[2]):04X}"
    try:
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended, or a file of it was closed meanwhile
        return False
    inodes = {row[9] for row in rows if row[1].endswith(port) and row[3] == "0A"}
    return any(link == f"socket:[{inode}]" for link in links for inode in inodes)
