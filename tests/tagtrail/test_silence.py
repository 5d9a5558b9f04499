"""A connection whose body does not come is cut off, and a connection between requests is not."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest

from tagtrail.server.silence import SILENT, TRICKLING, BodyWatch, Patience
from tagtrail.server.sockets import Connection
from tagtrail.waits import BodyWaits

STALL_S, IDLE_S, PERIOD_S, LEAST = 60.0, 85.0, 5.0, 1000
PEER, OTHER = "192.0.2.1", "192.0.2.2"


@dataclass
class Client:
    """A connection that receives `sends` bytes between two looks, and sends an answer if it is `asking`."""

    name: str
    sends: int = 0
    asking: bool = False
    peer: str = PEER
    unread: int = 0
    waiting: int = 0
    seen: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.seen = Connection(5, self.name.encode(), 100, 0)

    def look(self) -> Connection:
        """The findings of the next look."""
        self.seen = replace(
            self.seen,
            received=self.seen.received + self.sends,
            acknowledged=self.seen.acknowledged + self.asking,
            unread=self.unread,
            waiting=self.waiting,
        )
        return self.seen

    def take(self) -> None:
        """Acknowledge what waits for the client."""
        self.seen = replace(self.seen, acknowledged=self.seen.acknowledged + self.waiting)
        self.waiting = 0


class World:
    """Clients that are looked at every few seconds, and reads that wait, on a clock of its own."""

    def __init__(self, *clients: Client) -> None:
        self.now = 0.0
        self.clients = list(clients)
        self.waits = BodyWaits(lambda: self.now)
        self.watch = BodyWatch(Patience(STALL_S, LEAST, IDLE_S), self.waits, PERIOD_S)
        self.cut: dict[str, tuple[str, float]] = {}

    def run(self, seconds: float, between: Callable[[], None] = lambda: None) -> None:
        """Look again and again for so many seconds of the clock, as the thread of a worker does."""
        until = self.now + seconds
        while self.now < until:
            self.now += PERIOD_S
            between()
            awaited = self.watch.peers()
            for each in self.clients:
                if each.peer in awaited:
                    self.watch.note(each.look(), each.peer, self.now)
            for connection, reason in self.watch.to_cut(self.now, self.now):
                self.cut.setdefault(connection.cookie.decode(), (reason, self.now))


def reasons(world: World) -> dict[str, str]:
    """The reason for which each connection was cut off."""
    return {name: reason for name, (reason, _) in world.cut.items()}


def test_a_silent_client_is_cut_off_in_time() -> None:
    world = World(Client("silent"))
    with world.waits.waiting(PEER):
        world.run(STALL_S)
        assert not world.cut
        world.run(4 * PERIOD_S)
    assert reasons(world) == {"silent": SILENT}


def test_nobody_is_cut_off_while_no_read_waits_for_long() -> None:
    """Even a connection that is silent for ever is left alone then."""
    world = World(Client("idle"))
    with ExitStack() as stack:

        def read_anew() -> None:
            stack.close()
            stack.enter_context(world.waits.waiting(PEER))

        world.run(10 * STALL_S, read_anew)
    world.run(10 * STALL_S)
    assert not world.cut
    assert len(world.watch) == 0


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (Client("slow", sends=LEAST // 20), TRICKLING),
        (Client("fast enough", sends=LEAST), None),
        (Client("unread", unread=1), None),
        (Client("takes its answer", waiting=1), None),
        (Client("asks for other things", asking=True), None),
    ],
    ids=lambda each: each.name if isinstance(each, Client) else "",
)
def test_only_a_client_that_sends_too_little_and_gets_no_answer_is_cut_off(client: Client, reason: str | None) -> None:
    world = World(client)
    with world.waits.waiting(PEER):
        world.run(10 * STALL_S)
    assert reasons(world) == ({} if reason is None else {client.name: reason})


def test_beside_connections_between_requests_a_silent_one_has_the_time_of_those() -> None:
    """After that time the server itself has closed the connections between requests."""
    world = World(Client("silent"), Client("kept open"), Client("busy", asking=True))
    with world.waits.waiting(PEER):
        world.run(IDLE_S - PERIOD_S)
        assert not world.cut
        del world.clients[1]
        world.run(3 * PERIOD_S)
    assert reasons(world) == {"silent": SILENT}


@pytest.mark.parametrize("taken_after_s", [None, STALL_S / 2], ids=["it vanished", "it acknowledges late"])
def test_a_connection_between_requests_lives_on_beside_a_silent_one_that_has_not_acknowledged_all(
    taken_after_s: float | None,
) -> None:
    """A read waits for the silent one, which was sent a "100 Continue" or its answer before."""
    late = Client("late", waiting=25)
    world = World(late, Client("kept open"))

    def acknowledge() -> None:
        if taken_after_s is not None and world.now > taken_after_s:
            late.take()

    with world.waits.waiting(PEER):
        world.run(IDLE_S - PERIOD_S, acknowledge)
        assert not world.cut
        del world.clients[1]
        world.run(STALL_S, acknowledge)
    assert reasons(world) == ({} if taken_after_s is None else {"late": SILENT})


def test_no_more_are_cut_off_than_reads_wait_and_the_ones_that_are_silent_longest_go_first() -> None:
    later = Client("served", sends=LEAST)
    world = World(Client("silent"), later)

    def fall_silent() -> None:
        later.sends = 0 if world.now > IDLE_S / 2 else LEAST

    with world.waits.waiting(PEER):
        world.run(2 * IDLE_S, fall_silent)
        assert min(world.cut.items(), key=lambda each: each[1][1])[0] == "silent"


def test_an_address_pays_for_no_other() -> None:
    world = World(Client("silent"), Client("elsewhere", peer=OTHER))
    with world.waits.waiting(PEER):
        world.run(4 * IDLE_S)
    assert reasons(world) == {"silent": SILENT}
