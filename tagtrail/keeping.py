"""The keeper of a log, made from settings: its tasks, their periods, and the thread or process that runs it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from blobstore.disk import DiskBlobStore
from command_api.uploads.upkeep import ORPHANS_KEPT, UploadUpkeep
from eventstore.feed.keeper import Keeper, Task
from eventstore.store import Store
from eventstore.upkeep import Step, Upkeep
from tagtrail.clock import make_clock
from tagtrail.config import Settings
from tagtrail.storing import make_store, open_board

MINUTE_S = 60.0
HOUR_S = 3600.0
COMMANDS_KEPT = timedelta(hours=72)
SEAL_KEY_PERIOD = timedelta(days=1)
# A process seals with the key before for some more seconds; clocks differ by minutes at most.
SEAL_KEY_MARGIN = timedelta(minutes=10)
JOIN_S = 2.0


def tasks(settings: Settings, store: Store, upkeep: Upkeep) -> tuple[Task, ...]:
    """All tasks that a registry does by itself. Periods are seconds."""
    clock = make_clock(settings)
    expiry = timedelta(seconds=settings.upload_expiry_s)
    uploads = UploadUpkeep(store, DiskBlobStore(settings.data), clock, expiry)
    log = _UploadLog(uploads, upkeep, timedelta(days=settings.upload_log_days) if settings.upload_log_days else None)
    addresses = timedelta(days=settings.client_address_days)
    return (
        Task("expire-uploads", MINUTE_S, log.expire, uploads.to_expire),
        Task("drop-upload-log", 10 * MINUTE_S, log.drop, log.over),
        Task("discard-staging", 10 * MINUTE_S, uploads.discard_orphans, uploads.orphans),
        Task(
            "sweep-content",
            MINUTE_S,
            lambda: upkeep.sweep_content(ORPHANS_KEPT),
            lambda: upkeep.content_to_sweep(ORPHANS_KEPT),
        ),
        Task(
            "sweep-sets",
            HOUR_S,
            lambda: upkeep.sweep_sets(ORPHANS_KEPT),
            lambda: upkeep.sets_to_sweep(ORPHANS_KEPT),
        ),
        Task(
            "forget-commands",
            HOUR_S,
            lambda: upkeep.forget_commands(COMMANDS_KEPT),
            lambda: upkeep.commands_to_forget(COMMANDS_KEPT),
        ),
        Task(
            "erase-addresses",
            HOUR_S,
            lambda: upkeep.erase_clients(clock() - addresses),
            lambda: upkeep.clients_to_erase(clock() - addresses),
        ),
        Task(
            "rotate-keys",
            10 * MINUTE_S,
            lambda: upkeep.rotate_seal_keys(SEAL_KEY_PERIOD, expiry + SEAL_KEY_MARGIN),
            lambda: upkeep.seal_keys_over(expiry + SEAL_KEY_MARGIN),
        ),
        Task("backfill", MINUTE_S, upkeep.backfill, upkeep.backfills_left),
    )


@dataclass(frozen=True, slots=True)
class _UploadLog:
    """The log of uploads, kept for a time; None keeps it for ever."""

    uploads: UploadUpkeep
    upkeep: Upkeep
    kept: timedelta | None

    def expire(self) -> Step:
        """End idle sessions. Their ends stand in a new part, so that an old one does not become newer by them."""
        if self.kept is not None:
            self.upkeep.begin_upload_part(self.kept)
        return self.uploads.expire()

    def drop(self) -> Step:
        """Drop a part that is old enough, after the sessions that are over were ended."""
        if self.kept is None:
            return Step(0)
        if self.expire().more:
            return Step(0, more=True)
        return self.upkeep.drop_upload_part(self.kept, self.uploads.expiry)

    def over(self) -> int:
        """1 if a part could be dropped."""
        return 0 if self.kept is None else self.upkeep.upload_parts_over(self.kept, self.uploads.expiry)


def keep(
    settings: Settings, stop: threading.Event, board_path: Path | None = None, appender: Path | None = None
) -> None:
    """Keep the log and the data folder until stopped.

    `board_path` is the change board of the server, and `appender` the socket of its appender, if it has them.
    """
    board = open_board(board_path)
    store = make_store(settings, board, appender)
    clock = make_clock(settings)
    upkeep = Upkeep(settings.database_url, clock)
    judged_by = clock if settings.test_clock is None else None
    try:
        Keeper(settings.database_url, tasks(settings, store, upkeep), judged_by).run(stop)
    finally:
        upkeep.close()
        store.close()
        if board is not None:
            board.close()


@contextmanager
def keeping(
    settings: Settings, stop: threading.Event, board_path: Path | None = None, appender: Path | None = None
) -> Iterator[None]:
    """Keep in a thread beside the other work of the process. If it ends by a fault, it sets `stop`."""

    def run() -> None:
        try:
            keep(settings, stop, board_path, appender)
        finally:
            stop.set()

    thread = threading.Thread(target=run, name="keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(JOIN_S)
