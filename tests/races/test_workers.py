"""All API workers answer at once, in every kind of GET, what any one of them has acknowledged.

The long form is `make test-long PART=test_workers`.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest

from eventstore.feed.settings import KafkaSettings
from projections.projector import project
from tests.feed.fleet import Fleet, running_fleet
from tests.feed.running import assert_right, thread
from tests.folded import wait_folded
from tests.postgres import Database
from tests.races.clients import Api, Connection
from tests.races.workers import Played, WorkerConnection, play
from tests.servers import RunningServer, serving

SEED = 20261128
WORKERS = 3
WRITERS = 2
# Without a projector each read across repositories folds the whole log, so the costs grow with the square.
PLAYS = [
    *((projector, 60) for projector in ("on", "off", "restarting")),
    *(
        pytest.param(projector, commands, marks=pytest.mark.slow)
        for projector, commands in (("on", 5000), ("off", 800), ("restarting", 5000))
    ),
]
SETTLE_S = 120.0


def workers_of(server: RunningServer) -> Sequence[Api]:
    """A connection to each worker of a server."""
    return [WorkerConnection(server, each) for each in server.workers()]


@contextmanager
def at_random(action: Callable[[], None], seed: int) -> Iterator[None]:
    """Call the action at random moments during the block."""
    chance = random.Random(seed)
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(chance.uniform(0.3, 2.5)):
            action()

    made = threading.Thread(target=run)
    made.start()
    try:
        yield
    finally:
        ended.set()
        made.join()


class Projector:
    """`tagtrail projector`, which is killed and started again."""

    def __init__(self, database_url: str) -> None:
        self._command = [sys.executable, "-m", "tagtrail", "projector", "--database", database_url]
        self._process: subprocess.Popen[bytes] | None = None

    def restart(self) -> None:
        """Kill the one that runs, if one does, and start the next."""
        self.kill()
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def restarting(server: RunningServer) -> Iterator[None]:
    """A projector that is killed and restarted at random, beside a server that has none."""
    projector = Projector(server.database_url)
    projector.restart()
    try:
        with at_random(projector.restart, SEED):
            yield
    finally:
        projector.kill()


def assert_settled(database_url: str) -> None:
    """Wait until the read models are level, with a projector of our own if there is no other, and verify them."""
    with thread(partial(project, database_url)):
        wait_folded(database_url, timeout_s=SETTLE_S)
    assert_right(database_url)


def assert_well_played(played: Played, commands: int) -> None:
    """Check that no answer was wrong."""
    print(f"seed {SEED}: {commands} commands, {played.reads} reads, {len(played.wrong)} wrong")
    assert played.wrong == []
    assert played.reads > commands


@pytest.mark.parametrize(("projector", "commands"), PLAYS)
def test_all_workers_answer_what_one_of_them_acknowledged(projector: str, commands: int) -> None:
    """They are workers of one server whose read models the store feeds; each is asked by connections of its own."""
    environment = {"TAGTRAIL_WORKERS": str(WORKERS), "TAGTRAIL_PROJECTOR": str(projector == "on").lower()}
    with serving(environment, "--no-access-log") as server:
        beside: Any = restarting(server) if projector == "restarting" else nullcontext()
        with beside:
            played = play(partial(workers_of, server), WRITERS, commands, SEED)
        assert_well_played(played, commands)
        assert_settled(server.database_url)


@pytest.mark.xdist_group("kafka")
@pytest.mark.parametrize("commands", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_all_apis_answer_what_one_of_them_acknowledged_over_kafka(
    database: Database, kafka: KafkaSettings, commands: int
) -> None:
    """The APIs run by their own command; relay and projectors are killed and restarted at random meanwhile."""
    with running_fleet(database, kafka) as fleet:
        hosts = [fleet.api() for _ in range(WORKERS)]
        names = ["relay0", "projector0", "projector1"]
        fleet.relay(names[0])
        for each in names[1:]:
            fleet.projector(each)
        chance = random.Random(SEED)
        with at_random(lambda: kill_and_restart(fleet, chance.choice(names)), SEED):
            played = play(lambda: [Connection(each) for each in hosts], WRITERS, commands, SEED)
        assert_well_played(played, commands)
        wait_folded(database.app_url, timeout_s=SETTLE_S)
        assert_right(database.app_url)


def kill_and_restart(fleet: Fleet, name: str) -> None:
    """End a process by SIGKILL and start it again."""
    fleet.kill(name)
    fleet.restart(name)
