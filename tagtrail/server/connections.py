"""Cuts off clients that take an answer, or send a body, too slowly or not at all.

A thread in each worker looks at its connections every few seconds. For every kind of answer the kernel tells
how many bytes the client has taken and sent, and whether more wait for it.
"""

import sys
import threading
import time
from dataclasses import dataclass

from prometheus_client import Counter

from tagtrail import logs
from tagtrail.config import Settings
from tagtrail.server import allocator, sockets
from tagtrail.server.silence import BodyWatch, Patience
from tagtrail.server.sockets import Connection
from tagtrail.waits import BodyWaits

CUT = Counter(
    "tagtrail_connections_cut_total", "Connections cut off: their client takes or sends too little", ["reason"]
)
STALLED = "stalled"
SLOW = "slow"
# Each connection is looked at four times within its time limit, but not more often than this.
_LOOKS = 4
_PERIOD_MAX_S = 5.0
# Free memory is given back after so many readers have left.
_LEFT_MANY = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """A client must take `rate_min_bytes` a second, over any `stall_s` seconds in which something waits for it."""

    stall_s: float
    rate_min_bytes: int

    @property
    def least(self) -> float:
        """The bytes to take in that time, one at least."""
        return max(1.0, self.stall_s * self.rate_min_bytes)


@dataclass(slots=True)
class _Client:
    """The time at which a client was last fast enough, and the number of bytes that it had taken by then.

    `waited` is the number that it will have taken once it has all that waited for it at the last look.
    """

    since: float
    acknowledged: int
    waited: int
    seen: float


class Watch:
    """Remembers how fast the clients take what waits for them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: dict[bytes, _Client] = {}

    def __len__(self) -> int:
        """The number of clients for which something waited at the last look."""
        return len(self._clients)

    def judge(self, connection: Connection, now: float) -> str | None:
        """The reason why the connection is to be cut off, None if it is not."""
        if not connection.waiting:
            self._clients.pop(connection.cookie, None)
            return None
        client = self._clients.get(connection.cookie)
        waited = connection.acknowledged + connection.waiting
        if client is None:
            self._clients[connection.cookie] = _Client(now, connection.acknowledged, waited, now)
            return None
        # A client that asks for small things from far away has one under way at each look, and is not slow.
        all_taken = connection.acknowledged >= client.waited
        client.seen, client.waited = now, waited
        taken = connection.acknowledged - client.acknowledged
        if all_taken or taken >= self._limits.least:
            client.since, client.acknowledged = now, connection.acknowledged
        elif now - client.since >= self._limits.stall_s:
            return SLOW if taken else STALLED
        return None

    def forget_unseen(self, since: float) -> None:
        """Forget connections that were not looked at since a moment: they have ended."""
        ended = [cookie for cookie, client in self._clients.items() if client.seen < since]
        for cookie in ended:
            del self._clients[cookie]


def watch_connections(settings: Settings, waits: BodyWaits) -> None:
    """Watch the connections of this process, in a thread of its own, for as long as it lives."""
    if sys.platform != "linux":
        return
    period_s = min(_PERIOD_MAX_S, settings.download_stall_s / _LOOKS, settings.upload_stall_s / _LOOKS)
    takers = Watch(Limits(settings.download_stall_s, settings.download_rate_min_bytes))
    senders = BodyWatch(Patience.of(settings), waits, period_s)
    threading.Thread(
        target=_run, args=(takers, senders, settings.port, period_s), name="connections", daemon=True
    ).start()


def _run(takers: Watch, senders: BodyWatch, port: int, period_s: float) -> None:
    most = 0
    while True:
        time.sleep(period_s)
        look_at_all(takers, senders, port)
        most = max(most, len(takers))
        if most - len(takers) >= _LEFT_MANY:
            most = len(takers)
            allocator.give_back()


def look_at_all(takers: Watch, senders: BodyWatch, port: int) -> None:
    """Look once at each connection that arrived on a port, but not at connections that this process made."""
    began = time.monotonic()
    try:
        files = sockets.files()
    except OSError as problem:
        # No descriptor is free, perhaps because of clients that are to be cut off, so this thread must go on.
        logs.get_logger().warning("connections cannot be looked at", problem=str(problem))
        return
    awaited = senders.peers()
    for file in sockets.in_slices(files):
        connection = sockets.look(file)
        if connection is None or sockets.local_port(file) != port:
            continue
        reason = takers.judge(connection, time.monotonic())
        if reason is not None:
            _cut_off(connection, reason, "a client that does not take its answer was cut off")
        elif awaited and (peer := sockets.peer_address(file)) in awaited:
            senders.note(connection, peer, time.monotonic())
    takers.forget_unseen(began)
    for connection, reason in senders.to_cut(began, time.monotonic()):
        _cut_off(connection, reason, "a client that does not send what it announced was cut off")


def _cut_off(connection: Connection, reason: str, message: str) -> None:
    address = sockets.cut_off(connection)
    if address is not None:
        CUT.labels(reason).inc()
        logs.get_logger().warning(
            message,
            address=address,
            reason=reason,
            bytes_taken=connection.acknowledged,
            bytes_sent=connection.received,
        )
