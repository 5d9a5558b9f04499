"""Connections that are cut in the middle of an append, and a database that takes what is sent and says nothing."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa

from eventstore import verify
from eventstore.connection import BoundedConnection, NoAnswer, connect
from eventstore.store import Store
from eventstore.types import Appended, Command, StoreUnavailable
from projections.engine.setup import engine_for
from tests.eventstore.making import command, event
from tests.postgres import Database
from tests.proxy import Fault, Proxy, proxied
from tests.waiting import eventually

LIMIT_S = 1.0
# A server that does not answer is given up so many seconds after its own time limit.
MARGIN_S = 1.0
# A busy machine may add this much to a time limit. Together they are less than a store's own limits of 5 s, so that one
# whose limits were ignored is seen.
SLACK_S = 3.0


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A proxy in front of the test's database."""
    with proxied(database.app_url) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy) -> Iterator[Store]:
    """A store behind it, whose connections stand: it has appended once, and has asked what may be appended."""
    made = Store(proxy.url, append_timeout_s=LIMIT_S, read_timeout_s=LIMIT_S)
    assert isinstance(made.append(command(event("first"))), Appended)
    made.features.admit(command(event("first")))
    yield made
    proxy.flow()
    made.close()


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
def test_an_append_whose_connection_is_cut_is_appended_once(
    database: Database, proxy: Proxy, store: Store, fault: Fault
) -> None:
    """The caller sees nothing of it: the same id is sent again, and answered the first outcome if there was one."""
    proxy.fail_next_append(fault)
    outcome = store.append(command(event("a")))
    assert isinstance(outcome, Appended)
    assert (outcome.repeated, outcome.positions) == (fault is Fault.CUT_AFTER, (2,))
    assert isinstance(store.append(command(event("b"))), Appended)
    assert store.head() == 3
    assert verify.verify(database.app_url) == []


def test_an_append_whose_answer_never_comes_ends_in_time_and_may_be_given_again(proxy: Proxy, store: Store) -> None:
    """It was committed: given again with the same id, it is answered the first outcome."""
    given = command(event("a"))
    proxy.fail_next_append(Fault.SILENT_AFTER)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.append(given)
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    proxy.flow()

    outcome = eventually(lambda: appended(store, given), 60.0)
    assert outcome is not None
    assert (outcome.repeated, outcome.positions) == (True, (2,))
    assert store.head() == 2


def appended(store: Store, given: Command) -> Appended | None:
    """The outcome, None while the store is away."""
    try:
        outcome = store.append(given)
    except StoreUnavailable:
        return None
    assert isinstance(outcome, Appended)
    return outcome


def test_what_nobody_waits_for_any_more_is_not_appended(
    database: Database, proxy: Proxy, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The server gets it late: by then its caller may have asked again, and then for something else."""
    proxy.fall_silent()
    with pytest.raises(StoreUnavailable):
        store.append(command(event("late")))
    # Wait until the combiner has given it up too, and tries to connect.
    eventually(lambda: "failed (lost)" in caplog.text, 60.0)
    proxy.flow()
    following = command(event("next"))
    assert eventually(lambda: appended(store, following), 60.0)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'tagtrail-append'"
        )
        # The backend that got it late has ended: its client is gone.
        eventually(lambda: admin.execute(query).fetchone() == (1,))
    assert store.stream_state("late").version == 0
    assert store.head() == 2


def test_readers_give_up_in_time_and_go_on_by_themselves(proxy: Proxy, store: Store) -> None:
    """More of them than there are connections; the answers that were missed are never taken for later ones."""
    proxy.fall_silent()
    took: list[float] = []

    def read() -> None:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.head()
        took.append(time.monotonic() - began)

    readers = [threading.Thread(target=read) for _ in range(20)]
    for each in readers:
        each.start()
    for each in readers:
        each.join()
    print(f"readers gave up after {min(took):.2f} to {max(took):.2f} s")
    assert len(took) == 20
    assert max(took) < LIMIT_S + MARGIN_S + SLACK_S
    proxy.flow()
    began = time.monotonic()
    assert eventually(lambda: headed(store), 60.0) == 1
    print(f"read again after {time.monotonic() - began:.2f} s")


def headed(store: Store) -> int | None:
    """The head, None while the store is away."""
    try:
        return store.head()
    except StoreUnavailable:
        return None


def test_connecting_to_a_silent_server_ends_in_time(proxy: Proxy) -> None:
    """It accepts, and says nothing: for the first questions, which wait for no others, and for single connections."""
    proxy.fall_silent()
    with closing(Store(proxy.url, append_timeout_s=LIMIT_S, read_timeout_s=LIMIT_S)) as store:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            errors = [each.exception() for each in [pool.submit(store.append, command(event("a"))) for _ in range(8)]]
        assert {type(each) for each in errors} == {StoreUnavailable}
        assert time.monotonic() - began < LIMIT_S + SLACK_S
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            connect(proxy.url, name="test", connect_timeout_s=2, statement_timeout_s=LIMIT_S)
        assert time.monotonic() - began < 2 + SLACK_S


def test_the_connection_of_a_projector_gives_up_too(proxy: Proxy) -> None:
    """SQLAlchemy is told that the connection is gone."""
    with engine_for(proxy.url, statement_timeout_s=LIMIT_S).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        proxy.fall_silent()
        began = time.monotonic()
        with pytest.raises(sa.exc.OperationalError) as raised:
            connection.exec_driver_sql("SELECT 2")
        assert time.monotonic() - began < LIMIT_S + MARGIN_S + SLACK_S
        assert isinstance(raised.value.orig, NoAnswer)
        assert raised.value.connection_invalidated
        proxy.flow()


def test_what_has_no_time_limit_may_take_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuild and verify may take longer than a connection may be silent before its time limits are set."""
    monkeypatch.setattr(BoundedConnection, "answer_limit_s", 0.5)
    with connect(database.app_url, name="test", statement_timeout_s=None) as connection:
        assert connection.execute("SELECT 1 FROM pg_sleep(1)").fetchone() == (1,)


def test_an_error_of_the_server_leaves_the_connection_open(database: Database) -> None:
    """Its own time limit comes first, and says why."""
    with connect(database.app_url, name="test", statement_timeout_s=0.1) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(5)")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_question_that_was_asked_before_the_database_was_there_is_answered_when_it_is(database: Database) -> None:
    """The answer comes before the time limit: the pool gives up connecting earlier, and is then asked again."""
    with proxied(database.app_url) as away:
        port = urlsplit(away.url).port
    assert port is not None
    store = Store(away.url, read_timeout_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.head)
        with pytest.raises(TimeoutError):
            asked.result(3.0)
        with proxied(database.app_url, port):
            assert asked.result(45.0) == 0
            store.close()
