"""The keeper's tasks in a test's own process: all of them, each to its end, once."""

import threading

from eventstore.feed.keeper import Keeper
from eventstore.upkeep import Upkeep
from tagtrail.clock import make_clock
from tagtrail.keeping import tasks
from tagtrail.wiring import Rooms


def keep_once(rooms: Rooms) -> dict[str, int]:
    """How much each task removed; fails if one of them does."""
    settings = rooms.settings
    upkeep = Upkeep(settings.database_url, make_clock(settings))
    removed = {}
    try:
        made = tasks(settings, rooms.store, upkeep)
        keeper = Keeper(settings.database_url, made)
        for task in made:
            done = keeper.round(task, threading.Event())
            assert done.problem is None, f"{task.name}: {done.problem}"
            assert not done.more, task.name
            removed[task.name] = done.removed
    finally:
        upkeep.close()
    return removed
