"""Statements that are prepared once a connection: they bring what psycopg's cursors bring, and outlive changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore.connection import BoundedConnection, NoAnswer, connect
from eventstore.reader import Reader
from eventstore.statement import Parameters, Statement
from eventstore.store import Store
from eventstore.types import Appended, StoreError, StoreUnavailable
from tests.eventstore.making import command, event
from tests.postgres import Database

_MOMENT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
_PREPARED = "SELECT p.name FROM pg_prepared_statements AS p WHERE p.name LIKE 'tagtrail%'"


@pytest.fixture
def connection(database: Database) -> Iterator[BoundedConnection]:
    """A connection of the application's role."""
    with connect(database.app_url, name="test", statement_timeout_s=10.0) as made:
        yield made


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("SELECT 1", ()),
        ("SELECT %s::text, %s::bigint, %s::boolean", ("ü\"',\\{}", 2**62, True)),
        ("SELECT %s::text, %s::bigint, %s::bytea, %s::timestamptz", (None, None, None, None)),
        ("SELECT %s::bytea, %s::bytea", (bytes(range(256)), b"")),
        ("SELECT %s::timestamptz", (_MOMENT.astimezone(),)),
        ("SELECT %s::text[], %s::integer[], %s::boolean[]", (['a"b', "c,d", "{}", "NULL", ""], [1, -2], [True, False])),
        ("SELECT %s::text[], %s::text[]", ([], ["a", None])),
        ("SELECT %(a)s::text || %(b)s::text || %(a)s::text", {"b": "B", "a": "A", "unused": 1}),
        ("SELECT 7 %% 4, '%%s'", ()),
        ("SELECT '{\"a\": [1, null]}'::json, '{\"a\": 1.5}'::jsonb, gen_random_uuid() IS NULL", ()),
        ("SELECT g::smallint, g::integer, g::bigint, 'x'::text FROM generate_series(1, 3) AS g", ()),
        ("SELECT WHERE false", ()),
    ],
)
def test_a_statement_brings_what_a_cursor_brings(
    connection: BoundedConnection, query: str, parameters: Parameters
) -> None:
    """Every kind of value that the store uses, there and back, also the second time."""
    statement = Statement(query)
    expected = connection.execute(query, parameters).fetchall()
    assert connection.ask(statement, parameters) == expected
    assert connection.ask(statement, parameters) == expected


def test_types_come_from_the_statement_and_not_from_the_first_values(connection: BoundedConnection) -> None:
    """A number beyond two bytes after a small one, a text after nothing."""
    statement = Statement("SELECT g.position FROM (VALUES (1::bigint)) AS g (position) WHERE g.position < %s")
    assert [connection.ask(statement, (value,)) for value in (1, 2, 2**40, None)] == [[], [(1,)], [(1,)], []]


@pytest.mark.parametrize("query", ["SELECT %(a)s, %s", "SELECT %s, %(a)s", "SELECT %d", "SELECT %"])
def test_placeholders_that_do_not_fit_are_refused_at_once(query: str) -> None:
    """A statement is made when its module is loaded."""
    with pytest.raises(ValueError, match="placeholder"):
        Statement(query)


def test_parameters_that_do_not_fit_are_refused_before_anything_is_sent(connection: BoundedConnection) -> None:
    """The connection is as good as before."""
    with pytest.raises(ValueError, match="takes 2 parameters, not 1"):
        connection.ask(Statement("SELECT %s::text, %s::text"), ("a",))
    with pytest.raises(KeyError):
        connection.ask(Statement("SELECT %(a)s::text"), {"b": "a"})
    assert connection.ask(Statement("SELECT 1")) == [(1,)]


def test_a_statement_is_prepared_once_a_connection(connection: BoundedConnection) -> None:
    """It stays the same prepared statement however often it is asked."""
    statement = Statement("SELECT %s::integer + 1")
    assert [connection.ask(statement, (number,)) for number in range(3)] == [[(1,)], [(2,)], [(3,)]]
    assert connection.execute(_PREPARED).fetchall() == [(statement.name.decode(),)]


def test_a_statement_survives_a_view_whose_columns_change(database: Database, connection: BoundedConnection) -> None:
    """Postgres refuses the old plan: "cached plan must not change result type". A new one takes its place."""
    statement = Statement("SELECT * FROM readmodel.shown")
    with psycopg.connect(database.app_url, autocommit=True) as other:
        other.execute("CREATE VIEW readmodel.shown AS SELECT 1 AS one")
        assert connection.ask(statement) == [(1,)]
        other.execute("DROP VIEW readmodel.shown")
        other.execute("CREATE VIEW readmodel.shown AS SELECT 'a'::text AS one, 2 AS two")
    assert connection.ask(statement) == [("a", 2)]
    assert connection.execute(_PREPARED).fetchall() == [(statement.name.decode(),)]


def test_a_statement_survives_a_command_that_forgets_all_prepared_statements(connection: BoundedConnection) -> None:
    """A proxy that hands a connection from one client to another sends such a command."""
    statement = Statement("SELECT 1")
    assert connection.ask(statement) == [(1,)]
    connection.execute("DEALLOCATE ALL")
    assert connection.ask(statement) == [(1,)]


def test_a_statement_refused_for_another_reason_is_not_tried_again_within_a_transaction(
    connection: BoundedConnection,
) -> None:
    """There nothing could be asked again; the error is the first one."""
    statement = Statement("SELECT log.es_board_margin()")
    assert connection.ask(statement) == [(timedelta(seconds=2),)]
    connection.execute("BEGIN")
    connection.execute("DEALLOCATE ALL")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        connection.ask(statement)
    connection.execute("ROLLBACK")
    assert connection.ask(statement) == [(timedelta(seconds=2),)]


def test_errors_are_those_of_a_cursor(connection: BoundedConnection) -> None:
    """With state and text, whether the statement cannot be prepared or fails when it runs."""
    with pytest.raises(psycopg.errors.UndefinedTable) as wrong:
        connection.ask(Statement("SELECT * FROM nowhere"))
    assert wrong.value.diag.message_primary == 'relation "nowhere" does not exist'
    dividing = Statement("SELECT 1 / %s::integer")
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.ask(dividing, (0,))
    assert connection.ask(dividing, (1,)) == [(1,)]


def test_a_server_that_says_nothing_is_given_up(connection: BoundedConnection) -> None:
    """The connection is closed as for any other question, because nobody knows what happened."""
    connection.answer_limit_s = 0.2
    with pytest.raises(NoAnswer):
        connection.ask(Statement("SELECT pg_sleep(%s)"), (30,))
    assert connection.closed


def test_time_limits_hold(database: Database) -> None:
    """The server ends a statement, the reader says that there was no answer."""
    reader = Reader(database.app_url, pool_size=1, timeout_s=0.3, name="test")
    with pytest.raises(StoreUnavailable):
        reader.rows(Statement("SELECT pg_sleep(%s)"), (30,))
    with pytest.raises(StoreError, match="division by zero"):
        reader.rows(Statement("SELECT 1 / %s::integer"), (0,))
    assert reader.rows(Statement("SELECT 1")) == [(1,)]
    reader.close()


def test_an_append_survives_a_migration_that_replaces_its_function(database: Database) -> None:
    """On the connection that it was prepared on, and the log has each event once."""
    with_owner = psycopg.connect(database.owner_url, autocommit=True)
    store = Store(database.app_url)
    try:
        assert isinstance(store.append(command(event("a"))), Appended)
        ((text,),) = with_owner.execute("SELECT pg_get_functiondef('log.es_append'::regproc)").fetchall()
        with_owner.execute(text.replace("DECLARE", "DECLARE\n    replaced integer := 1;", 1))
        assert isinstance(store.append(command(event("b"))), Appended)
        ((role,),) = psycopg_rows(database.app_url, "SELECT current_user")
        with_owner.execute("ALTER FUNCTION log.es_append RENAME TO es_append_before")
        with_owner.execute(text)
        with_owner.execute(f'GRANT EXECUTE ON FUNCTION log.es_append TO "{role}"')
        assert isinstance(store.append(command(event("c"))), Appended)
        assert [each.stream for each in store.read_log(0, 10)] == ["a", "b", "c"]
    finally:
        store.close()
        with_owner.close()


def psycopg_rows(url: str, query: str) -> list[tuple[object, ...]]:
    """The rows of a question on a connection of its own."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()
