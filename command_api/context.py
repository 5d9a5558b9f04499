"""The parts that every command handler uses: the store, the bytes, the limits, the clock, and the append."""

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blobstore.interface import BlobStore
from command_api.bodies import BodyLimits
from command_api.gates import WorkGate
from command_api.manifests.known import KnownManifests
from command_api.uploads.seal_keys import SealKeys
from command_api.uploads.sessions import Sessions
from domain.decision import Decision, Refusal
from eventstore.store import Store
from eventstore.types import Cause, Command, Condition, Content, Expand, NewEvent, Outcome, Refused
from protocol.gates import AddressGate
from protocol.messages import Request

_ID_BYTES = 20


def new_upload_id() -> str:
    """A random id of 160 bits, for a session that is opened by an event: it names file, stream and session."""
    return secrets.token_hex(_ID_BYTES)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for requests of clients. Sizes are bytes."""

    manifest_bytes_max: int = 10 * 1024 * 1024
    config_bytes_max: int = 4 * 1024 * 1024
    chunk_bytes_min: int = 0
    upload_expiry: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Context:
    """The rooms that a command needs; made once a process."""

    store: Store
    blobs: BlobStore
    clock: Callable[[], datetime]
    limits: Limits
    body_limits: BodyLimits
    body_gate: AddressGate
    work_gate: WorkGate
    seal_keys: SealKeys
    new_upload_id: Callable[[], str] = new_upload_id
    sessions: Sessions = field(default_factory=Sessions)
    known_manifests: KnownManifests = field(default_factory=KnownManifests)
    # Held while a large manifest is parsed and stored: one takes tens of megabytes, and two would not be faster.
    large_manifest: threading.Lock = field(default_factory=threading.Lock)

    def append(
        self,
        request: Request,
        events: Sequence[NewEvent | Expand],
        conditions: Sequence[Condition] = (),
        contents: Sequence[Content] = (),
    ) -> Outcome:
        """Append one command for the request's actor; a fresh idempotency key each time (rule: random command ids)."""
        return self.store.append(
            Command(
                id=secrets.token_hex(16),
                cause=Cause(
                    actor=request.actor,
                    request_id=request.request_id,
                    correlation_id=request.trace_id,
                    address=request.address or None,
                    user_agent=request.user_agent,
                ),
                now=self.clock(),
                events=tuple(events),
                conditions=tuple(conditions),
                contents=tuple(contents),
            )
        )

    def carry_out(self, request: Request, decision: Decision, contents: Sequence[Content] = ()) -> Refusal | None:
        """Append a decision and the contents that it names; answers why it was refused, None if it was appended."""
        outcome = self.append(request, decision.events, decision.conditions, contents)
        return decision.refusal(outcome.failed_conditions) if isinstance(outcome, Refused) else None
