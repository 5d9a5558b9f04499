"""An append reads only after it holds the lock, so that decisions about other streams cannot race."""

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore.store import Store
from eventstore.types import Appended, Content, Expand, Outcome, RefIs, Refused, Unreferenced
from eventstore.upkeep import SWEEP_CONTENT
from tests.eventstore.making import append_batch, command, event
from tests.postgres import Database

DEADLINE_S = 60.0


def wait_until_waiting(database: Database, backend: int) -> None:
    """Wait until that backend waits for a lock."""
    deadline = time.monotonic() + DEADLINE_S
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        while True:
            row = admin.execute("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", (backend,)).fetchone()
            if row == ("Lock",):
                return
            assert time.monotonic() < deadline, f"it never waited for the lock: {row}"


@pytest.mark.parametrize("commits", [True, False])
def test_an_append_waits_for_the_one_before_it_and_sees_it(database: Database, commits: bool) -> None:
    """{unlink L} is under way; {push that needs L} waits, then is refused, or passes if the unlink was undone."""
    with psycopg.connect(database.app_url, autocommit=True) as second, psycopg.connect(database.app_url) as first:
        append_batch(second, [command(event("L", ref="live"))])
        append_batch(first, [command(event("L", ref=None))])
        with ThreadPoolExecutor(1) as pool:
            push: Future[list[Outcome]] = pool.submit(
                append_batch, second, [command(event("push"), needs=(RefIs((("L", "live"),)),))]
            )
            wait_until_waiting(database, second.info.backend_pid)
            if commits:
                first.commit()
            else:
                first.rollback()
            (outcome,) = push.result(DEADLINE_S)
    if commits:
        assert isinstance(outcome, Refused)
        assert outcome.failed_conditions == (0,)
    else:
        assert isinstance(outcome, Appended)
        assert outcome.positions == (2,)


def test_content_is_not_swept_from_under_an_append(database: Database) -> None:
    """An append that names old content is under way; the sweep waits for it and then leaves the content."""
    with closing(Store(database.app_url)) as store:
        store.put_content(Content("kept", b"kept", "{}"))
        store.put_content(Content("orphan", b"orphan", "{}"))
        later = datetime.now(UTC) + timedelta(hours=1)
        with psycopg.connect(database.app_url, autocommit=True) as sweeper, psycopg.connect(database.app_url) as writer:
            append_batch(writer, [command(event("a", content="kept"))])
            with ThreadPoolExecutor(1) as pool:
                sweep = pool.submit(sweeper.execute, SWEEP_CONTENT, (later, 10))
                wait_until_waiting(database, sweeper.info.backend_pid)
                writer.commit()
                assert sweep.result(DEADLINE_S).fetchone() == (2, 1)
        assert store.get_content("kept") is not None
        assert store.get_content("orphan") is None
        refused = store.append(command(event("b", content="orphan")))
        assert isinstance(refused, Refused)
        assert refused.missing_content == ("orphan",)


def test_a_deleted_manifest_keeps_no_tag_whatever_moves_there(database: Database) -> None:
    """Tags move to a manifest while it is deleted with all its tags; none ever names a dead manifest."""
    with closing(Store(database.app_url)) as store:
        stop = threading.Event()

        def move(number: int) -> None:
            for turn in itertools.count():
                if stop.is_set():
                    return
                moved = event(f"tag-r:{number}-{turn % 3}", ref="m")
                store.append(command(moved, needs=(RefIs((("m", "present"),)),)))

        with ThreadPoolExecutor(6) as pool:
            moving = [pool.submit(move, number) for number in range(6)]
            try:
                for _ in range(40):
                    store.append(command(event("m", ref="present")))
                    gone = command(event("m", ref=None), Expand("m", "tag-r:", "key", "Gone", 1, "{}", "tag"))
                    assert isinstance(store.append(gone), Appended)
            finally:
                stop.set()
            for mover in moving:
                mover.result(DEADLINE_S)
        present: dict[str, str | None] = {}
        reached = 0
        for each in store.read_log(0, 100_000):
            if each.type == "Gone":
                reached += 1
                present[each.stream] = None
                assert each.prev_ref == "m"
            elif each.stream == "m":
                assert "m" not in present.values() or each.prev_ref == "present"
            else:
                present[each.stream] = "m"
        assert "m" not in present.values()
        assert reached
        assert store.idle_streams("m", datetime.now(UTC) + timedelta(hours=1), 10) == []


def test_unreferenced_and_refers_to_exclude_each_other(database: Database) -> None:
    """Exactly one of {refer to X if X lives} and {X dies if nothing refers to it} passes when they race."""
    with closing(Store(database.app_url)) as store:
        for turn in range(40):
            blob, manifest = f"x{turn}", f"m{turn}"
            store.append(command(event(blob, ref="live")))
            refer = command(event(manifest, refers_to=(blob,)), needs=(RefIs(((blob, "live"),)),))
            die = command(event(blob, ref=None), needs=(Unreferenced(blob),))
            with ThreadPoolExecutor(2) as pool:
                outcomes = list(pool.map(store.append, (refer, die) if turn % 2 else (die, refer)))
            assert sorted(isinstance(each, Appended) for each in outcomes) == [False, True]
