"""The SQL of the store that is kept as files: functions, triggers and views, installed by the revisions."""

from importlib.resources import files

from sqlalchemy import Connection

SCHEMA = "log"
SQL_FILES = ("es_refusal", "es_write", "es_append", "guards", "content", "upkeep", "rebuilt", "epoch", "board")
PUBLIC_FUNCTIONS = (
    "es_append(smallint, jsonb, boolean, text, smallint, bigint)",
    "es_register_board(smallint, text, text, double precision)",
    "es_renew_board(smallint, text, double precision)",
    "es_remove_board(smallint, text)",
    "es_claim_place(smallint, text, smallint)",
    "es_board_margin()",
    "es_put_content(text, bytea, text, timestamptz)",
    "es_sweep_content(timestamptz, integer)",
    "es_position_at(smallint, timestamptz)",
    "es_forget_commands(smallint, timestamptz)",
    "es_erase_clients(smallint, timestamptz)",
    "es_note_cluster(smallint)",
    "es_raise_epoch(smallint, integer)",
)


def install(connection: Connection, app_role: str) -> None:
    """(Re)create what the files under `eventstore/sql` declare and let the application's role read and call.

    Every revision that changes one of the files calls this, so that a migrated database has today's text of all.
    """
    for name in SQL_FILES:
        _run(connection, files("eventstore").joinpath("sql", f"{name}.sql").read_text("utf-8"))
    role = connection.dialect.identifier_preparer.quote(app_role)
    _run(connection, f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} FROM PUBLIC")
    _run(connection, f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    _run(connection, f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}")
    for function in PUBLIC_FUNCTIONS:
        _run(connection, f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{function} TO {role}")


def _run(connection: Connection, sql: str) -> None:
    # no_parameters: the text goes to the server as it is, '%' of RAISE included.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
