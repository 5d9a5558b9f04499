"""Live processes and what each of them holds: heartbeats and leases in Postgres, by the database's clock.

Leases spread the work; they are no proof. A process that stood still may believe in a lease that another one has by
now, so its writes are guarded by the positions that it found.

A process serves only while it is registered, for a time that by its own clock ends before others take it for dead. So a
process that puts a feature to use asks all that serve (eventstore/features.py), and a process that comes later and
lacks one is told so.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import psycopg

from eventstore.connection import BoundedConnection, connect
from eventstore.features import LIVES_FOR_S
from eventstore.partition import PARTITIONS
from eventstore.window import REVISION

LEASE_S = 6.0
BEAT_S = 2.0
# A process that lacks a lease which it wants looks for it so often.
WANTING_S = 1.0
STATEMENT_TIMEOUT_S = 3.0
# A failed beat is tried again so soon: a database that is back is asked at once. A beat that renews leases has at least
# 3.5 s of them left. If it runs into the time limit of statements, there is time for another one.
RETRY_S = 0.2
# Registered for so long after a beat began; the rest of LIVES_FOR_S is for requests under way, and clocks that drift.
REGISTERED_S = LIVES_FOR_S - 20.0
_NOT_YET = "this process has not registered with the database yet"
_NO_MORE = "this process could not renew its registration with the database"
# A process that ends asks so often at the most: once more than the connections that a pool has by default.
_SIGN_OFF_TRIES = 9
# Processes that have not beaten for so long are forgotten; looked for that often.
_FORGET_S = 600.0
_FORGET_EVERY_S = 60.0
# By our clock a lease ends earlier than by the database's, by this share of its time, however clocks drift.
_EARLY = 1 / 12

# A lost lease or heartbeat costs nothing but time; it need not wait for the disk.
_BEAT = "SELECT log.es_beat(%s, %s, %s, %s, %s, %s, %s), set_config('synchronous_commit', 'off', true)"
_ALIVE = """
SELECT p.id, p.shapes FROM feed.process AS p
 WHERE p.kind = %s AND p.seen_at > clock_timestamp() - %s * interval '1 second' ORDER BY p.id
"""
_TAKE = """
INSERT INTO feed.lease AS l (name, holder, token, until)
SELECT n, %(me)s, 1, clock_timestamp() + %(ttl)s * interval '1 second' FROM unnest(%(names)s::text[]) AS n ORDER BY n
ON CONFLICT (name) DO UPDATE
   SET holder = excluded.holder, until = excluded.until, token = l.token + (l.holder <> excluded.holder)::integer
 WHERE l.holder = excluded.holder OR l.until < clock_timestamp()
RETURNING name
"""
_GIVE_BACK = "DELETE FROM feed.lease WHERE holder = %s AND NOT name = ANY(%s)"
_LEAVE = "DELETE FROM feed.process WHERE id = %s RETURNING set_config('synchronous_commit', 'off', true)"
_FORGET = "DELETE FROM feed.process WHERE seen_at < clock_timestamp() - %s * interval '1 second'"
_log = logging.getLogger(__name__)

# Names of the leases that a process should have, given the ids of live processes of its kind with their shapes, its own
# id, and the number of the log's partitions.
Wants = Callable[[Sequence[tuple[str, frozenset[str]]], str, int], Iterable[str]]

Lent = Callable[[], AbstractContextManager[BoundedConnection]]


def only(lease: str) -> Wants:
    """The one lease that each process of a kind asks for, so that one of them works and the others stand by."""
    return lambda alive, me, partitions: [lease]


@dataclass(frozen=True, slots=True)
class Member:
    """A process as others see it: read models (`shapes`) that it asks for or feeds, and its features and schema."""

    kind: str
    shapes: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    knows: str = REVISION


class Membership:
    """The heartbeat of one process, and its leases, kept in a thread.

    The thread has a connection of its own, or borrows one for each beat from the pool that `lent` asks.
    """

    def __init__(
        self,
        database_url: str,
        member: Member,
        wants: Wants | None = None,
        *,
        beat_s: float = BEAT_S,
        lease_s: float = LEASE_S,
        lent: Lent | None = None,
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._url = database_url
        self._member = member
        self._wants = wants
        self._beat_s = beat_s
        self._lease_s = lease_s
        self._lent = lent
        self._held: frozenset[str] = frozenset()
        self._shared: list[str] | None = None
        self._partitions = 0
        self._forget_at = 0.0
        self._valid_until = 0.0
        self._registered_until = 0.0
        self._refusal = _NOT_YET
        self._changed: Callable[[], None] = lambda: None
        self._tried = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)

    def start(self) -> "Membership":
        """Begin to beat."""
        self._thread.start()
        return self

    @property
    def held(self) -> frozenset[str]:
        """The leases that nobody else has yet; none if the database was silent for too long."""
        return self._held if time.monotonic() < self._valid_until else frozenset()

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this from now on, by the thread of the heart, when the database has given other leases than before."""
        self._changed = changed

    @property
    def refusal(self) -> str | None:
        """The reason why this process must not serve; None if it is registered and nothing forbids it."""
        return None if time.monotonic() < self._registered_until else self._refusal

    def wait_tried(self, seconds: float) -> None:
        """Wait until the first attempt to register has ended, well or not."""
        self._tried.wait(seconds)

    def close(self, wait_s: float = LEASE_S) -> None:
        """Give everything back and sign off, so that nobody has to wait for it; call it when serving has ended."""
        self._stop.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._beat_until_stopped()
            except psycopg.Error as problem:
                _log.warning("heartbeats fail, trying again: %s", problem)
                self._pause()
            except Exception:  # noqa: BLE001 -- a process whose heart stops without a word would never serve again
                _log.exception("heartbeats fail by a fault of this process, trying again")
                self._pause()

    def _pause(self) -> None:
        self._tried.set()
        self._stop.wait(min(self._beat_s, RETRY_S))

    def _beat_until_stopped(self) -> None:
        with self._connections() as lent:
            self._shared = None
            with lent() as connection:
                (self._partitions,) = connection.execute(PARTITIONS).fetchone() or (0,)
            while not self._stop.is_set():
                with lent() as connection:
                    wanting = not self._beat(connection)
                self._stop.wait(min(WANTING_S, self._beat_s) if wanting else self._beat_s)
            self._sign_off(lent)

    def _sign_off(self, lent: Lent) -> None:
        """Leave at once if the database can be reached.

        A pool may hold as many dead connections as a restarted database has left there. It throws each away once it
        has been tried.
        """
        for _ in range(_SIGN_OFF_TRIES):
            with contextlib.suppress(psycopg.Error), lent() as connection:
                if self._wants is not None:
                    connection.execute(_GIVE_BACK, (self.id, []))
                connection.execute(_LEAVE, (self.id,))
                return

    @contextmanager
    def _connections(self) -> Iterator[Lent]:
        if self._lent is not None:
            yield self._lent
            return
        name = f"tagtrail-{self._member.kind}-heart"
        with connect(self._url, name=name, statement_timeout_s=STATEMENT_TIMEOUT_S) as connection:
            connection.execute("SET synchronous_commit = off")
            yield lambda: nullcontext(connection)

    def _beat(self, connection: psycopg.Connection) -> bool:
        """Register again, and take or renew leases; False if any that is wanted is not ours."""
        began = time.monotonic()
        member = self._member
        forbids, _ = connection.execute(
            _BEAT,
            (
                *(self.id, member.kind, socket.gethostname(), os.getpid()),
                *(sorted(member.shapes), sorted(member.features), member.knows),
            ),
        ).fetchone() or ([], None)
        self._note(began, forbids)
        if began >= self._forget_at:
            self._forget_at = began + _FORGET_EVERY_S
            connection.execute(_FORGET, (_FORGET_S,))
        if forbids:
            self._hold(frozenset(), began)
            self._shared = None
            connection.execute(_GIVE_BACK, (self.id, []))
            return True
        if self._wants is None:
            return True
        alive = [(row[0], frozenset(row[1])) for row in connection.execute(_ALIVE, (member.kind, self._lease_s))]
        names = sorted(self._wants(alive, self.id, self._partitions))
        if names != self._shared:
            connection.execute(_GIVE_BACK, (self.id, names))
            self._shared = names
        wanted = {"me": self.id, "ttl": self._lease_s, "names": names}
        taken = connection.execute(_TAKE, wanted).fetchall() if names else ()
        self._hold(frozenset(row[0] for row in taken), began + self._lease_s * (1 - _EARLY))
        return self._held == frozenset(names)

    def _hold(self, leases: frozenset[str], until: float) -> None:
        before = self.held
        self._held, self._valid_until = leases, until
        if leases != before:
            self._changed()

    def _note(self, began: float, forbids: Sequence[str]) -> None:
        """Keep the answer of a beat that began then; logged when it changes."""
        refusal = "; ".join(forbids)
        if refusal and refusal != self._refusal:
            _log.error("this process must not serve: %s", refusal)
        elif not refusal and self._refusal not in (_NOT_YET, _NO_MORE):
            _log.warning("this process may serve again")
        self._refusal = refusal or _NO_MORE
        self._registered_until = 0.0 if refusal else began + REGISTERED_S
        self._tried.set()
