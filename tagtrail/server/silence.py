"""Finds the connections whose client falls silent, or nearly so, within a body for which a read waits.

Nothing that the server gives to the application names a request's connection. A waiting read knows its client's
address only, and the same address may have other connections: those that are kept open between requests must live on.
But we know when each of them last sent an answer, and how many bytes it received. A read that waits too long belongs
to a connection that has sent no answer for as long. If its address has no more such connections than such reads, it is
certain which they are. Otherwise it is certain once they are older than connections between requests may become.

Bytes that wait to be acknowledged are no answer, also not once they are acknowledged: they may be the answer of before,
or the "100 Continue" that asked for the body. Only what the server sends anew is an answer.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tagtrail.config import Settings
from tagtrail.server.sockets import Connection
from tagtrail.waits import BodyWaits

SILENT = "silent"
TRICKLING = "trickling"
# The server's own timer of connections between requests may come a little late.
_IDLE_MORE_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """A client may send fewer than `least_bytes` of a body for `stall_s`; between requests it may send nothing for
    `idle_s`, after which the server itself has closed its connection.
    """

    stall_s: float
    least_bytes: float
    idle_s: float

    @classmethod
    def of(cls, settings: Settings) -> "Patience":
        """The limits that the options set. A client may be behind the least rate by its grace."""
        counted_s = max(0.0, settings.upload_stall_s - settings.upload_grace_s)
        least = max(1.0, counted_s * settings.upload_rate_min_bytes)
        return cls(settings.upload_stall_s, least, settings.idle_timeout_s + _IDLE_MORE_S)


@dataclass(slots=True)
class _Quiet:
    """A connection that sends no answer, with the time since when, and since when it has received too little."""

    connection: Connection
    peer: str
    unanswered_since: float
    slow_since: float
    received: int
    seen: float


class BodyWatch:
    """Remembers how much came from clients for whose bodies reads wait. `period_s` is the time between two looks."""

    def __init__(self, patience: Patience, waits: BodyWaits, period_s: float) -> None:
        self._patience = patience
        self._waits = waits
        # A connection is known to be quiet from the second look after its read began.
        self._overdue_s = patience.stall_s + 2 * period_s
        self._quiet: dict[bytes, _Quiet] = {}

    def __len__(self) -> int:
        """The number of connections that are remembered."""
        return len(self._quiet)

    def peers(self) -> frozenset[str]:
        """The addresses whose connections are to be looked at."""
        return frozenset(self._waits.peers())

    def note(self, connection: Connection, peer: str, now: float) -> None:
        """Note the result of one look."""
        known = self._quiet.get(connection.cookie)
        if known is None or connection.sent != known.connection.sent:
            self._quiet[connection.cookie] = _Quiet(connection, peer, now, now, connection.received, now)
            return
        known.connection, known.seen = connection, now
        # Bytes that the server has left unread are not missing. A client that our bytes have not reached yet has no
        # reason to send.
        excused = connection.unread or connection.waiting
        if excused or connection.received - known.received >= self._patience.least_bytes:
            known.slow_since, known.received = now, connection.received

    def to_cut(self, since: float, now: float) -> Iterator[tuple[Connection, str]]:
        """The connections to cut off, with the reason. Forgets those that were not looked at since a moment."""
        self._quiet = {cookie: each for cookie, each in self._quiet.items() if each.seen >= since}
        unanswered: dict[str, list[_Quiet]] = defaultdict(list)
        for each in self._quiet.values():
            if now - each.unanswered_since >= self._patience.stall_s:
                unanswered[each.peer].append(each)
        for peer, reads in self._waits.peers(now - self._overdue_s).items():
            certain = len(unanswered[peer]) <= reads
            slow = [
                each
                for each in unanswered[peer]
                if now - each.slow_since >= self._patience.stall_s
                and (certain or now - each.unanswered_since >= self._patience.idle_s)
            ]
            for each in sorted(slow, key=lambda each: each.slow_since)[:reads]:
                yield each.connection, TRICKLING if each.connection.received > each.received else SILENT
