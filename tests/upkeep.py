"""Runs the keeper's tasks in the test's own process, each until it has nothing left to do."""

import threading
from datetime import UTC, datetime, timedelta

from eventstore.feed.keeper import Keeper
from eventstore.upkeep import Upkeep
from tagtrail.clock import make_clock
from tagtrail.keeping import tasks
from tagtrail.wiring import Rooms
from tests.postgres import Database


def keep_once(rooms: Rooms) -> dict[str, int]:
    """Run every task to its end; answers how many things each has removed. Fails if a task fails."""
    settings = rooms.settings
    upkeep = Upkeep(settings.database_url, make_clock(settings))
    removed = {}
    try:
        made = tasks(settings, rooms.store, upkeep)
        keeper = Keeper(settings.database_url, made, None)
        for task in made:
            done = keeper.round(task, threading.Event())
            assert done.problem is None, f"{task.name}: {done.problem}"
            assert not done.more, task.name
            removed[task.name] = done.removed
    finally:
        upkeep.close()
    return removed


def sweep_sets(database: Database, after: timedelta = timedelta(hours=1)) -> int:
    """Sweep the sets that are idle now as if they had been for `after`; answers how many went."""
    upkeep = Upkeep(database.app_url, lambda: datetime.now(UTC) + after)
    gone, more = 0, True
    try:
        while more:
            step = upkeep.sweep_sets(timedelta())
            gone, more = gone + step.removed, step.more
        assert upkeep.sets_to_sweep(timedelta()) == 0
    finally:
        upkeep.close()
    return gone
