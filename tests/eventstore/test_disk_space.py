"""A full disk of the database leaves a reason behind, until a write goes through or for a while."""

import psycopg

from eventstore.disk_space import KEPT_S, DiskSpace


def test_only_a_lack_of_space_is_kept_and_only_until_a_write_or_a_while() -> None:
    now = 0.0
    disk = DiskSpace(lambda: now)
    disk.failed(psycopg.errors.DeadlockDetected("deadlock"))
    disk.failed(None)
    assert disk.problem is None
    disk.failed(psycopg.errors.DiskFull("no space"))
    assert disk.problem == "no space"
    disk.found()
    assert disk.problem is None
    disk.failed(psycopg.errors.DiskFull("no space"))
    now = KEPT_S
    assert disk.problem == "no space"
    now += 1
    assert disk.problem is None
