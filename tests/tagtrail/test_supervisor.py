"""`tagtrail serve`: it starts, restarts what dies, ends in time and leaves nothing, whoever is killed."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import requests

from tagtrail.config import resolve
from tagtrail.server.lock import settings_file
from tagtrail.server.supervisor import STOP_S, CannotServe, reserve
from tests.api import sha256
from tests.servers import RunningServer, is_alive, is_ready, serving, started

pytestmark = pytest.mark.xdist_group("supervisor")
WAIT_MAX_S = 60.0
# The server waits for a body much longer than any of these tests takes, unless something else ends the wait.
PATIENT = {"TAGTRAIL_UPLOAD_GRACE_S": "1h"}
TASKS = {
    *("expire-uploads", "discard-staging", "sweep-content", "sweep-sets", "forget-commands", "erase-addresses"),
    *("rotate-keys", "backfill"),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path for data that several runs use."""
    made = Path(tempfile.mkdtemp(prefix="tt-super-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def victim() -> Iterator[RunningServer]:
    """A server whose children the tests kill."""
    with serving() as running:
        yield running


def eventually(what: str, holds: Callable[[], bool], seconds: float = WAIT_MAX_S) -> None:
    """Wait until `holds` is true; fails with `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def kept(server: RunningServer) -> set[str]:
    """The tasks of upkeep that went well, by /metrics; fails if one did not."""
    found = server.metrics()
    name = "tagtrail_keeper_last_success_timestamp_seconds"
    assert [each for each, value in found.items() if each.startswith("tagtrail_keeper_failing") and value] == []
    return {task for task in TASKS if found.get(f'{name}{{task="{task}"}}', 0) > 0}


def ready(server: RunningServer) -> bool:
    """True if /readyz answers 200."""
    return is_ready(server.host)


def registered(server: RunningServer) -> set[int]:
    """The pids of the processes that the database counts as alive."""
    with psycopg.connect(server.database_url) as connection:
        return {row[0] for row in connection.execute("SELECT pid FROM feed.process")}


def start_upload(server: RunningServer, repository: str) -> str:
    """Open an upload; answers the address at which it goes on."""
    answer = requests.post(f"{server.url}/v2/{repository}/blobs/uploads/", timeout=30)
    assert answer.status_code == 202
    return str(answer.headers["Location"])


def end_by(server: RunningServer, number: int) -> float:
    """Send the server a signal; answers how many seconds it took to end. Fails if it does not end in order."""
    began = time.monotonic()
    server.process.send_signal(number)
    assert server.process.wait(WAIT_MAX_S) == 0
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_time_and_nothing_is_left(folder: Path, number: int) -> None:
    with started(folder / "data") as server:
        server.wait_ready()
        below = server.descendants()
        assert set(server.children()) == {"postgres", "appender", "api", "projector", "watchdog"}
        end_by(server, number)
        assert [pid for pid in below if is_alive(pid)] == []
        assert not settings_file(folder / "data").exists()


def test_a_signal_during_the_start_ends_it_too(folder: Path) -> None:
    with started(folder / "data") as server:
        eventually("postgres is started", lambda: "postgres" in server.children())
        below = server.descendants()
        end_by(server, signal.SIGTERM)
        assert [pid for pid in below if is_alive(pid)] == []
    with started(folder / "data") as again:
        again.wait_ready()


def test_a_request_in_flight_is_finished_and_a_kept_connection_closed() -> None:
    with serving() as server:
        location = start_upload(server, "inflight")
        began, statuses = threading.Event(), []

        def body() -> Iterator[bytes]:
            yield b"x" * 4096
            began.set()
            for _ in range(10):
                time.sleep(0.1)
                yield b"x" * 4096

        def patch() -> None:
            answer = requests.patch(_url(server, location), body(), timeout=WAIT_MAX_S)
            statuses.append((answer.status_code, answer.headers["Range"]))

        with closing(http.client.HTTPConnection(server.host, timeout=WAIT_MAX_S)) as idle:
            idle.request("GET", "/v2/")
            idle.getresponse().read()
            thread = threading.Thread(target=patch)
            thread.start()
            try:
                assert began.wait(WAIT_MAX_S)
                end_by(server, signal.SIGTERM)
            finally:
                thread.join()
        assert statuses == [(202, f"0-{11 * 4096 - 1}")]


def test_an_upload_that_is_cut_off_by_the_end_can_be_resumed(folder: Path) -> None:
    with started(folder / "data") as server:
        server.wait_ready()
        first = requests.patch(_url(server, start_upload(server, "resumed")), b"x" * 1000, timeout=30)
        assert first.status_code == 202
        assert server.stop() == 0
    with started(folder / "data") as again:
        again.wait_ready()
        status = requests.get(_url(again, first.headers["Location"]), timeout=30)
        assert (status.status_code, status.headers["Range"]) == (204, "0-999")


def _url(server: RunningServer, location: str) -> str:
    path = location if location.startswith("/") else "/" + location.split("/", 3)[3]
    return f"{server.url}{path}"


def test_an_endless_request_does_not_hold_up_the_end() -> None:
    with serving(PATIENT) as server:
        location = start_upload(server, "endless")
        host, port = server.host.split(":")
        with socket.create_connection((host, int(port))) as connection:
            path = _url(server, location).removeprefix(server.url)
            head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 5000)
            below = server.descendants()
            end_by(server, signal.SIGTERM)
            assert [pid for pid in below if is_alive(pid)] == []


def test_a_second_signal_makes_it_quick() -> None:
    """The server then ends sooner than the first signal lets a request under way go on."""
    with serving(PATIENT | {"TAGTRAIL_APPENDER": "false"}) as server:
        assert "appender" not in server.children()
        location = start_upload(server, "quick")
        host, port = server.host.split(":")
        with socket.create_connection((host, int(port))) as connection:
            path = _url(server, location).removeprefix(server.url)
            connection.sendall(f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".encode())
            server.process.send_signal(signal.SIGINT)
            eventually("it says that it stops", lambda: "stopping" in server.log.read_text())
            assert end_by(server, signal.SIGINT) < STOP_S - 1


def test_a_second_start_on_the_same_data_is_refused_by_name(victim: RunningServer) -> None:
    with started(victim.data) as second:
        assert second.process.wait(WAIT_MAX_S) == 1
    said = victim.log.read_text()
    assert f"is already served by process {victim.process.pid}" in said
    assert "Traceback" not in said
    assert ready(victim)


def test_a_second_server_on_the_same_port_is_refused(victim: RunningServer, folder: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "tagtrail", "serve", "--listen", victim.host, "--data", str(folder / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert f"cannot listen on {victim.host}: Address already in use" in second.stderr


def test_an_address_is_held_before_anybody_listens_and_free_afterwards() -> None:
    settings = resolve({"listen": "127.0.0.1:0"}, {}).settings
    with reserve(settings) as held:
        port = held.getsockname()[1]
        same = resolve({"listen": f"127.0.0.1:{port}"}, {}).settings
        with pytest.raises(CannotServe, match="Address already in use"), reserve(same):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            with socket.create_connection(("127.0.0.1", port)):
                pass
    with reserve(same):
        pass


@pytest.mark.parametrize("name", ["postgres", "projector", "api", "appender", "watchdog"])
def test_a_child_that_is_killed_is_started_again(victim: RunningServer, name: str) -> None:
    before = victim.children()
    os.kill(before[name], signal.SIGKILL)
    eventually(f"{name} is replaced", lambda: victim.children().get(name, before[name]) != before[name])
    eventually("it serves again", lambda: ready(victim) and len(victim.children()) == 5)
    after = victim.children()
    assert {each for each in after if after[each] != before[each]} == {name}


def test_a_worker_that_is_killed_is_started_again(victim: RunningServer) -> None:
    before = victim.workers()
    assert len(before) == victim.settings.workers
    os.kill(before[0], signal.SIGKILL)
    eventually("the worker is replaced", lambda: len(set(victim.workers()) - {before[0]}) == len(before))
    eventually("it serves", lambda: ready(victim))
    assert before[1] in victim.workers()


@pytest.mark.parametrize("name", ["api", "projector"])
def test_a_process_that_ends_in_order_signs_off(victim: RunningServer, name: str) -> None:
    """A feature that it does not know can then be used at once, and not only when it counts as dead."""
    child = victim.children()[name]
    ending = set(victim.workers()) if name == "api" else {child}
    eventually("all are registered", lambda: ending <= registered(victim))
    os.kill(child, signal.SIGTERM)
    eventually("it has ended", lambda: not any(is_alive(each) for each in (child, *ending)))
    assert ending & registered(victim) == set()
    eventually("it serves again", lambda: ready(victim) and len(victim.children()) == 5)


def test_pushed_images_survive_a_killed_database(victim: RunningServer) -> None:
    location = start_upload(victim, "survives")
    killed = victim.children()["postgres"]
    os.kill(killed, signal.SIGKILL)
    eventually("another one runs", lambda: victim.children().get("postgres", killed) != killed)
    eventually("it serves again", lambda: ready(victim))
    assert requests.get(_url(victim, location), timeout=30).status_code == 204


def test_when_the_supervisor_is_killed_nothing_is_left_and_the_next_start_works(folder: Path) -> None:
    with started(folder / "data") as server:
        server.wait_ready()
        below = server.descendants()
        assert len(below) >= 4 + server.settings.workers
        session = start_upload(server, "killed")
        server.process.kill()
        server.process.wait()
    # The next start comes at once, and must cope with processes that are still ending.
    with started(folder / "data") as again:
        again.wait_ready()
        assert [pid for pid in below if is_alive(pid)] == []
        # Nothing was written for the session: its id proves that it was given out.
        assert requests.patch(_url(again, session), b"x" * 1000, timeout=30).headers["Range"] == "0-999"
        closed = requests.put(f"{_url(again, session)}?digest={sha256(b'x' * 1000)}", timeout=30)
        assert closed.status_code == 201
        assert again.stop() == 0


def test_when_the_supervisor_is_killed_an_upload_that_goes_on_does_not_hold_up_the_next_start() -> None:
    with serving(PATIENT) as server:
        path = _url(server, start_upload(server, "held")).removeprefix(server.url)
        host, port = server.host.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx".encode())
            below = server.descendants()
            server.process.kill()
            server.process.wait()
            eventually("what it started has ended", lambda: not [pid for pid in below if is_alive(pid)])


@pytest.mark.parametrize("spared", [(), ("postgres",), ("postgres", "api", "projector")])
def test_when_the_watchdog_is_killed_as_well_the_next_start_still_works(folder: Path, spared: tuple[str, ...]) -> None:
    with started(folder / "data") as server:
        server.wait_ready()
        below, children = server.descendants(), server.children()
        doomed = [pid for name, pid in children.items() if name not in spared]
        os.kill(server.process.pid, signal.SIGKILL)
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
    with started(folder / "data") as again:
        again.wait_ready()
        assert [pid for pid in below if is_alive(pid)] == []
        assert again.stop() == 0


def test_a_projector_that_is_held_does_not_outlive_it(folder: Path) -> None:
    with started(folder / "data") as server:
        server.wait_ready()
        projector = server.children()["projector"]
        os.kill(projector, signal.SIGSTOP)
        end_by(server, signal.SIGTERM)
        assert not is_alive(projector)


def test_children_learn_the_database_from_a_private_file_and_not_from_their_variables(victim: RunningServer) -> None:
    handed = settings_file(victim.data)
    assert handed.stat().st_mode & 0o777 == 0o600
    with psycopg.connect(victim.database_url) as connection:
        assert connection.info.user == "tagtrail_app"
    for pid in (victim.children()["api"], *victim.workers()):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert not [each for each in variables if b"postgresql://" in each]
        assert str(handed).encode() in b" ".join(variables)


def test_health_answers_without_a_database_and_readiness_says_what_is_missing(victim: RunningServer) -> None:
    # While the supervisor is stopped, nobody starts the database again.
    victim.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(victim.children()["postgres"], signal.SIGKILL)
        eventually("it is not ready", lambda: not ready(victim))
        assert requests.get(f"{victim.url}/healthz", timeout=30).status_code == 200
        answer = requests.get(f"{victim.url}/readyz", timeout=30)
        assert answer.status_code == 503
        assert any("database" in problem for problem in answer.json()["problems"])
    finally:
        victim.process.send_signal(signal.SIGCONT)
    eventually("it is ready again", lambda: ready(victim))


def test_without_a_projector_none_runs_and_the_log_is_kept_all_the_same() -> None:
    with serving(None, "--no-projector") as server:
        assert set(server.children()) == {"postgres", "appender", "api", "keeper", "watchdog"}
        eventually("all tasks were run", lambda: kept(server) == TASKS)
        killed = server.children()["keeper"]
        os.kill(killed, signal.SIGKILL)
        eventually("another keeper is started", lambda: server.children().get("keeper", killed) != killed)


@pytest.mark.parametrize("more", [(), ("--no-projector",)])
def test_an_upload_that_is_idle_for_a_day_expires(folder: Path, more: tuple[str, ...]) -> None:
    """The keeper ends it, as a process with a place on the server's change board; its bytes are gone."""
    clock = folder / "clock"
    with started(folder / "data", {"TAGTRAIL_TEST_CLOCK": str(clock)}, *more) as server:
        server.wait_ready()
        location = start_upload(server, "idle")
        assert requests.patch(_url(server, location), b"begun", timeout=30).status_code == 202
        assert server.stop() == 0
    clock.write_text(str(25 * 3600))
    with started(folder / "data", {"TAGTRAIL_TEST_CLOCK": str(clock)}, *more) as again:
        again.wait_ready()
        path = urllib.parse.urlsplit(location).path
        eventually("it has expired", lambda: requests.get(f"{again.url}{path}", timeout=30).status_code == 404)
        eventually("its bytes are gone", lambda: list((folder / "data" / "uploads").iterdir()) == [])
        eventually("all tasks were run", lambda: kept(again) == TASKS)
        found = again.metrics()
        assert found["tagtrail_keeper_up"] == 1
        assert found['tagtrail_keeper_removed_total{task="expire-uploads"}'] == 1
        assert again.stop() == 0


def test_serve_says_where_it_listens_and_how_to_push(victim: RunningServer) -> None:
    said = victim.log.read_text()
    port = victim.host.rpartition(":")[2]
    assert f"tagtrail listens on {victim.host}" in said
    assert f"docker push localhost:{port}/you/IMAGE:1" in said
    assert str(victim.data) in said
