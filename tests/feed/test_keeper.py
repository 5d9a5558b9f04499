"""One keeper works at a time, a task that fails keeps no other waiting, and the state of each task can be seen."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import pytest

from eventstore.feed import keeper
from eventstore.feed.keeper import Keeper, Task
from eventstore.types import Clock
from eventstore.upkeep import Step
from tagtrail.clock import utc_now
from tests.postgres import Database
from tests.waiting import eventually


@dataclass
class Work:
    """A task that counts its steps and answers them in turn, the last one again and again."""

    steps: list[Step | Exception] = field(default_factory=lambda: [Step(0)])
    done: int = 0

    def step(self) -> Step:
        """Count this step and give its answer."""
        answer = self.steps[min(self.done, len(self.steps) - 1)]
        self.done += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait_for_more(self) -> None:
        """Wait until another step was taken."""
        done = self.done
        eventually(lambda: self.done > done)

    def task(self, name: str, period_s: float = 0.05, backlog: Callable[[], int] = lambda: 0) -> Task:
        """The work as a task of the keeper."""
        return Task(name, period_s, self.step, backlog)


@contextmanager
def running(url: str, *tasks: Task, clock: Clock = utc_now) -> Iterator[None]:
    """Run a keeper with these tasks in a thread during the block."""
    stop = threading.Event()
    thread = threading.Thread(target=Keeper(url, tasks, clock).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60.0)
        assert not thread.is_alive()


def standings(url: str) -> dict[str, tuple[int, int, bool, str | None]]:
    """The noted state of each task: things removed, backlog, True if it ever went well, its problem."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT name, removed, backlog, succeeded_at IS NOT NULL, problem FROM feed.task")
        return {row[0]: row[1:] for row in rows}


def test_a_task_that_fails_keeps_none_waiting(database: Database) -> None:
    """The others run at their pace. The one that fails is noted with its problem and its backlog."""
    bad, good = Work([RuntimeError("broken")]), Work([Step(2), Step(0)])
    with running(database.app_url, bad.task("bad", backlog=lambda: 7), good.task("good")):
        eventually(lambda: bad.done > 3 and good.done > 3 and len(standings(database.app_url)) == 2)
    assert standings(database.app_url) == {
        "bad": (0, 7, False, "RuntimeError: broken"),
        "good": (2, 0, True, None),
    }


def test_a_round_that_begins_while_the_keeper_stops_is_noted_as_it_went(database: Database) -> None:
    """A task that was not even tried has not gone well."""
    bad, stop = Work([RuntimeError("broken")]), threading.Event()
    stop.set()
    assert Keeper(database.app_url, [], utc_now).round(bad.task("bad"), stop).problem == "RuntimeError: broken"
    assert standings(database.app_url) == {"bad": (0, 0, False, "RuntimeError: broken")}


def test_a_task_goes_well_again(database: Database) -> None:
    """After a failure and a success no problem is noted."""
    work = Work([RuntimeError("broken"), Step(1), Step(0)])
    with running(database.app_url, work.task("once")):
        eventually(lambda: work.done > 3)
    assert standings(database.app_url) == {"once": (1, 0, True, None)}


def test_a_backlog_that_cannot_be_asked_stays_noted_as_it_was(database: Database) -> None:
    """The task itself counts as done."""
    backlogs = iter([5])
    work = Work()
    with running(database.app_url, work.task("odd", backlog=lambda: next(backlogs))):
        eventually(lambda: work.done > 3)
    assert standings(database.app_url) == {"odd": (0, 5, True, None)}


def test_a_long_task_gives_the_others_their_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is broken off after a while and goes on soon, so the others are late by no more than that while."""
    monkeypatch.setattr(keeper, "ROUND_S", 0.05)
    long, short = Work([Step(1, more=True)]), Work()
    with running(database.app_url, long.task("long", period_s=3600.0), short.task("short")):
        eventually(lambda: short.done > 5 and long.done > 100)


def test_one_keeper_works_and_another_takes_over(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second keeper waits as long as the first one lives, and begins when that ends."""
    monkeypatch.setattr(keeper, "STANDBY_S", 0.05)
    monkeypatch.setattr(keeper, "BEAT_S", 0.1)
    first, second = Work(), Work()
    with ExitStack() as later:
        with running(database.app_url, first.task("task")):
            eventually(lambda: first.done > 3)
            later.enter_context(running(database.app_url, second.task("task")))
            more = first.done + 20
            eventually(lambda: first.done > more)
            assert second.done == 0
        eventually(lambda: second.done > 0)
        ended = first.done
        eventually(lambda: second.done > 5)
        assert first.done == ended


@pytest.mark.parametrize(("days", "told"), [(2, "ahead of the database"), (-2, "behind the database")])
def test_a_keeper_whose_clock_is_far_from_the_database_removes_nothing(
    database: Database, days: int, told: str
) -> None:
    """By such a clock new things look a day old, or times that the keeper notes look old to the next keeper."""
    ahead, work = timedelta(days=days), Work([Step(1), Step(0)])
    with running(database.app_url, work.task("task"), clock=lambda: utc_now() + ahead):
        problem = eventually(lambda: standings(database.app_url).get("task", (0, 0, False, None))[3])
        assert problem is not None
        assert told in problem
        assert work.done == 0
        ahead = timedelta(minutes=-1)
        work.wait_for_more()
        eventually(lambda: standings(database.app_url)["task"] == (1, 0, True, None))


def test_a_keeper_outlives_a_database_that_is_away(database: Database) -> None:
    """Its connections are cut again and again; it goes on, and notes the state of its tasks afterwards."""
    work = Work()
    with running(database.app_url, work.task("task")), psycopg.connect(database.admin_url, autocommit=True) as admin:
        for _ in range(5):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'tagtrail-keeper%' AND datname = current_database()"
            )
            work.wait_for_more()
        admin.execute("DELETE FROM feed.task")
        eventually(lambda: "task" in standings(database.app_url))
