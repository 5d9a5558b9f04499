"""What a full disk of the database leaves behind: a reason, until a write goes through or for a while."""

import psycopg

from eventstore.room import KEPT_S, Room


def test_only_a_lack_of_room_is_kept_and_only_until_a_write_or_a_while() -> None:
    now = 0.0
    room = Room(lambda: now)
    room.failed(psycopg.errors.DeadlockDetected("deadlock"))
    room.failed(None)
    assert room.problem is None
    room.failed(psycopg.errors.DiskFull("no room"))
    assert room.problem == "no room"
    room.found()
    assert room.problem is None
    room.failed(psycopg.errors.DiskFull("no room"))
    now = KEPT_S
    assert room.problem == "no room"
    now += 1
    assert room.problem is None
