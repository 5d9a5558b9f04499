"""What a registry does by itself: expire idle sessions, sweep what crashes left, forget old idempotency keys."""

import logging
import secrets
import threading
from dataclasses import dataclass
from datetime import timedelta

from blobstore.interface import BlobStoreError
from command_api.context import Context, new_event
from domain import upload as uploads
from domain.names import UploadId
from domain.streams import OPEN, upload_stream
from eventstore.types import Appended, Cause, Command, Exact, StoreError, StreamState

UPKEEP_ACTOR = "tagtrail"
COMMANDS_KEPT = timedelta(hours=72)
ORPHANS_KEPT = timedelta(hours=24)
INTERVAL_S = 60.0
_BATCH = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round of upkeep did."""

    uploads_expired: int
    files_discarded: int
    content_swept: int
    sets_swept: int
    commands_forgotten: int


def expire_uploads(context: Context) -> int:
    """Expire every session in which nothing happened for the upload expiry (U10); answers how many."""
    before = context.clock() - context.limits.upload_expiry
    expired = 0
    while idle := context.store.idle_streams(OPEN, before, _BATCH):
        ended = sum(_expire(context, each) for each in idle)
        expired += ended
        if not ended:
            break
    return expired


def _expire(context: Context, idle: StreamState) -> bool:
    """Expire one session; False if it moved on meanwhile. Staged bytes are removed after the event, never before."""
    if idle.state is None or not idle.stream.startswith(upload_stream("")):
        return False
    upload = uploads.from_state(idle.state)
    happened = uploads.expire(upload)
    outcome = context.store.append(
        Command(
            id=secrets.token_hex(16),
            cause=Cause(actor=UPKEEP_ACTOR, request_id="upload-expiry"),
            now=context.clock(),
            events=(
                new_event(
                    idle.stream,
                    upload.repository,
                    happened,
                    mode=Exact(idle.version),
                    ref=None,
                    state=uploads.to_state(uploads.evolve(upload, happened)),
                ),
            ),
        )
    )
    if not isinstance(outcome, Appended):
        return False
    context.blobs.discard(UploadId(upload.id))
    return True


def discard_orphans(context: Context) -> int:
    """Discard staging files that no open session has: a crash left them; answers how many."""
    discarded = 0
    for upload_id in list(context.blobs.stale(context.clock() - ORPHANS_KEPT)):
        if context.store.stream_state(upload_stream(upload_id)).ref != OPEN:
            context.blobs.discard(upload_id)
            discarded += 1
    return discarded


def sweep(context: Context) -> Swept:
    """One round of all upkeep."""
    now = context.clock()
    return Swept(
        uploads_expired=expire_uploads(context),
        files_discarded=discard_orphans(context),
        content_swept=context.store.sweep_content(now - ORPHANS_KEPT),
        sets_swept=context.store.sweep_sets(now - ORPHANS_KEPT),
        commands_forgotten=context.store.forget_commands(now - COMMANDS_KEPT),
    )


def run(context: Context, stop: threading.Event, interval_s: float = INTERVAL_S) -> None:
    """Sweep every `interval_s` until stopped. Several processes may run it: each step is safe twice."""
    while not stop.wait(interval_s):
        try:
            swept = sweep(context)
        except (StoreError, BlobStoreError, OSError):
            _log.exception("upkeep failed, it is tried again")
        else:
            if swept != Swept(0, 0, 0, 0, 0):
                _log.info("upkeep: %s", swept)
