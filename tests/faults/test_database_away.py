"""Postgres is away while clients push over HTTP: it is stopped, ended and started again, its connections are cut.

Clients send each request again until it succeeds. Then it was done once, and the stream of the tag has no other event.

The long form is `make test-long PART=database_away`.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests

from eventstore import verify
from projections.builds.verify import verify as verify_read_models
from tests.faults.retrying import Pusher, assert_each_once, done, pushing, told
from tests.folded import wait_folded
from tests.postgres import Database, Server, launch, make_template, new_database, start_server, stop_server
from tests.races.log import log_of
from tests.servers import RunningServer, serving
from tests.waiting import eventually

CLIENTS = 8
SEED = 20261126
LIMIT_S = 2.0
# A server that does not answer is given up so many seconds after its own time limit.
MARGIN_S = 1.0
# A busy machine may add this much to a request that reached its limit.
SLACK_S = 2.0
RECOVERY_S = 15.0


@dataclass
class OwnPostgres:
    """A Postgres that a test may end, and the registry over it."""

    server: Server
    process: "subprocess.Popen[bytes]"
    database: Database

    def processes(self) -> list[int]:
        """The pids of the server and of all its backends."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text()
        return [self.server.pid, *map(int, children.split())]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server during the block: it takes what is sent, and says nothing."""
        pids = self.processes()
        for each in pids:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in pids:
                os.kill(each, signal.SIGCONT)

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End the server in immediate mode, and start it again at the same address after the block."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)
        try:
            yield
        finally:
            self.server, self.process = launch(self.server.folder)


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A Postgres for this module alone."""
    server, process = start_server()
    own = OwnPostgres(server, process, Database("", "", "", ""))
    try:
        make_template(server)
        own.database = new_database(server)
        yield own
    finally:
        stop_server(own.server, own.process)


@pytest.fixture(scope="module")
def registry(postgres: OwnPostgres) -> Iterator[RunningServer]:
    """`tagtrail serve` over it."""
    environment = {
        "TAGTRAIL_DATABASE": postgres.database.app_url,
        "TAGTRAIL_APPEND_TIMEOUT_S": f"{LIMIT_S}s",
        "TAGTRAIL_READ_TIMEOUT_S": f"{LIMIT_S}s",
        "TAGTRAIL_WORKERS": "2",
    }
    with serving(environment, "--no-access-log") as running:
        yield running


def assert_away(registry: RunningServer, seconds: float) -> None:
    """Check for so many seconds that reads, writes and readiness are 503 in time, and that the process itself lives."""
    until = time.monotonic() + seconds
    asked = [
        ("GET", "/v2/faults/away/manifests/latest"),
        ("POST", "/v2/faults/away/blobs/uploads/"),
        ("GET", "/readyz"),
    ]

    def ask(method: str, path: str) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            answer = requests.request(method, registry.url + path, timeout=30)
            took = time.monotonic() - began
            # A request sent just before the end may be answered after it.
            if began + took < until:
                assert answer.status_code == 503, (path, answer.status_code, answer.text)
                if path == "/readyz":
                    assert answer.json()["problems"][0].startswith("database: "), answer.text
            assert took < LIMIT_S + MARGIN_S + SLACK_S
            assert requests.get(f"{registry.url}/healthz", timeout=5).status_code == 200

    failures: list[BaseException] = []

    def run(method: str, path: str) -> None:
        try:
            ask(method, path)
        except BaseException as problem:  # noqa: BLE001 - raised below
            failures.append(problem)

    threads = [threading.Thread(target=run, args=each) for each in asked]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]


def assert_whole(registry: RunningServer, pushers: list[Pusher]) -> None:
    """Check that nothing was lost or done twice, that the log has no hole, and that read models agree with it."""
    assert_each_once(registry.database_url, pushers)
    assert verify.verify(registry.database_url) == []
    with log_of(registry.database_url) as store:
        wait_folded(registry.database_url, store.head())
    assert [each for each in verify_read_models(registry.database_url) if not each.equal] == []


def goes_on(pushers: list[Pusher]) -> None:
    """Wait until each client has one more acknowledged push."""
    before = done(pushers)
    eventually(
        lambda: all(now > then for now, then in zip(done(pushers), before, strict=True)),
        RECOVERY_S,
        lambda: [before, done(pushers)],
    )


@pytest.mark.parametrize("away", [OwnPostgres.stopped, OwnPostgres.ended], ids=["stopped", "ended"])
@pytest.mark.parametrize("seconds", [3.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_database_that_is_away_for_a_while_loses_nothing(
    postgres: OwnPostgres,
    registry: RunningServer,
    away: Callable[[OwnPostgres], AbstractContextManager[None]],
    seconds: float,
) -> None:
    name = getattr(away, "__name__", "away")
    with pushing(registry.host, CLIENTS, f"{name}{seconds:.0f}s") as pushers:
        eventually(lambda: min(done(pushers)) >= 2, RECOVERY_S, lambda: done(pushers))
        with away(postgres):
            assert_away(registry, seconds)
        back = time.monotonic()
        goes_on(pushers)
        every_one_s = time.monotonic() - back
        eventually(lambda: requests.get(f"{registry.url}/readyz", timeout=5).status_code == 200, RECOVERY_S)
        goes_on(pushers)
    print(f"{name} for {seconds:g} s: every client went on {every_one_s:.2f} s after; {told(pushers)}")
    assert sum(each.statuses[503] for each in pushers) > 0
    assert max(each.longest_s for each in pushers) < LIMIT_S + MARGIN_S + SLACK_S
    assert_whole(registry, pushers)


@pytest.mark.parametrize(("clients", "seconds"), [(8, 5.0), pytest.param(16, 300.0, marks=pytest.mark.slow)])
def test_connections_that_are_cut_at_random_lose_nothing(
    postgres: OwnPostgres, registry: RunningServer, clients: int, seconds: float
) -> None:
    """All backends of the registry are ended, again and again, whatever they are doing."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    cut = 0
    with pushing(registry.host, clients, f"cut{seconds:.0f}s") as pushers:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.01, 0.4))
            with psycopg.connect(postgres.database.admin_url, autocommit=True) as connection:
                cut += connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).rowcount
        goes_on(pushers)
    print(f"{cut} connections cut in {seconds:g} s, {told(pushers)}")
    assert cut > 0
    # A question that is asked again on another connection may take its whole time limit and then succeed. A request
    # has at most two such questions: a read and an append.
    assert max(each.longest_s for each in pushers) < 2 * LIMIT_S + MARGIN_S + SLACK_S
    assert_whole(registry, pushers)
