"""The upkeep of uploads: ends idle sessions (rule: expiry by inactivity), and sweeps files that crashes left."""

import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from blobstore.interface import BlobStore, BlobStoreError
from domain.decision import Decision, Refusal
from domain.names import UploadId
from domain.streams import OPEN, UPLOAD_PREFIX, upload_stream
from domain.upload import ExpireUpload, decide_expiry, recorded_session
from eventstore.store import Store
from eventstore.types import Appended, Cause, Clock, Command, StreamState
from eventstore.upkeep import Step

UPKEEP_ACTOR = "tagtrail"
ORPHANS_KEPT = timedelta(hours=24)
# Finding the idle ones looks at every open session, so many are taken at a time.
SESSIONS_SLICE = 1000
_STATES_AT_A_TIME = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UploadUpkeep:
    """The sessions of a log and the folder of its staged bytes."""

    store: Store
    blobs: BlobStore
    clock: Clock
    expiry: timedelta

    def expire(self) -> Step:
        """Expire sessions in which nothing happened for the upload expiry, longest idle first."""
        idle = self._idle()
        ended = sum(self._expire(each) for each in idle)
        return Step(ended, more=ended > 0 and len(idle) == SESSIONS_SLICE)

    def to_expire(self) -> int:
        """The number of sessions that wait for it, counted up to a slice."""
        return len(self._idle())

    def discard_orphans(self) -> Step:
        """Discard staging files that no open session has: a crash left them."""
        before = self.clock() - ORPHANS_KEPT
        return Step(sum(self._discard_stale(each, before) for each in list(self._orphans(before))))

    def orphans(self) -> int:
        """The number of such files."""
        return sum(1 for _ in self._orphans(self.clock() - ORPHANS_KEPT))

    def _idle(self) -> list[StreamState]:
        before = self.clock() - self.expiry
        return self.store.idle_streams(OPEN, before, SESSIONS_SLICE)

    def _expire(self, idle: StreamState) -> bool:
        """Expire one session; False if it moved on meanwhile. Its bytes are removed after the event, never before."""
        session = recorded_session(idle) if idle.stream.startswith(UPLOAD_PREFIX) else None
        if session is None:
            return False
        now = self.clock()
        decision = decide_expiry(session, ExpireUpload(self.expiry), now)
        if isinstance(decision, Refusal) or not isinstance(self.store.append(_command(decision, now)), Appended):
            return False
        # A file that stays is an orphan from now on.
        self._discard(UploadId(session.upload.id))
        return True

    def _discard(self, upload: UploadId) -> None:
        try:
            self.blobs.discard(upload)
        except BlobStoreError as problem:
            _log.warning("the staged bytes of %s cannot be removed yet: %s", upload, problem)

    def _discard_stale(self, upload: UploadId, before: datetime) -> bool:
        """A session without an event may be getting its first bytes at this moment, however slowly they come."""
        try:
            return self.blobs.discard_stale(upload, before)
        except BlobStoreError as problem:
            _log.warning("the staged bytes of %s cannot be removed yet: %s", upload, problem)
            return False

    def _orphans(self, before: datetime) -> Iterator[UploadId]:
        stale = iter(self.blobs.stale(before))
        while some := list(islice(stale, _STATES_AT_A_TIME)):
            states = self.store.session_states([upload_stream(each) for each in some])
            yield from (each for each in some if states[upload_stream(each)].ref != OPEN)


def _command(decision: Decision, now: datetime) -> Command:
    cause = Cause(actor=UPKEEP_ACTOR, request_id="upload-expiry")
    return Command(id=secrets.token_hex(16), cause=cause, now=now, events=decision.events)
