"""The keeper's tasks in a test's own process: all of them, or one, to its end."""

import threading
from datetime import UTC, datetime, timedelta

from eventstore.feed.keeper import Keeper
from eventstore.upkeep import Upkeep
from tagtrail.clock import make_clock
from tagtrail.keeping import tasks
from tagtrail.wiring import Rooms
from tests.postgres import Database


def keep_once(rooms: Rooms) -> dict[str, int]:
    """The number of things that each task removed; fails if one of them does."""
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
    """The number of sets that are swept once those that are idle now are old enough."""
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
