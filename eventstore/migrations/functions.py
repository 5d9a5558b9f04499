"""Installs the store's functions, triggers and views, whose SQL stands in files, after the newest revision.

Revisions change tables only. So an old revision never meets a function that is newer than it, and a fresh database gets
each function once, in its present text.
"""

import hashlib
from importlib.resources import files

from sqlalchemy import Connection

SCHEMA = "log"
VERSION_TABLE = "es_schema"
SQL_FILES = (
    "window",
    "sets",
    "features",
    "es_refusal",
    "es_write",
    "uploads",
    "es_append",
    "guards",
    "content",
    "commands",
    "upkeep",
    "seal_keys",
    "rebuilt",
    "epoch",
    "board",
)
PUBLIC_FUNCTIONS = (
    "es_append(smallint, jsonb, boolean, text, smallint, bigint)",
    "es_register_board(smallint, text, text, double precision)",
    "es_renew_board(smallint, text, double precision)",
    "es_remove_board(smallint, text)",
    "es_claim_place(smallint, text, smallint)",
    "es_board_margin()",
    "es_put_content(text, bytea, text, timestamptz)",
    "es_sweep_content(timestamptz, integer)",
    "es_begin_set(text, timestamptz)",
    "es_put_members(bigint, text[], boolean[], text[], text[], text[], integer[])",
    "es_finish_set(bigint, bigint)",
    "es_judge_set(smallint, text)",
    "es_sweep_sets(smallint, timestamptz, integer)",
    "es_sweep_new_content(timestamptz, integer)",
    "es_list_content(text, integer)",
    "es_position_at(smallint, timestamptz)",
    "es_ring_over(smallint, interval, timestamptz)",
    "es_forget_commands(smallint, interval, timestamptz)",
    "es_forget_commands(smallint, timestamptz)",
    "es_begin_upload_part(timestamptz)",
    "es_drop_upload_part(timestamptz, timestamptz)",
    "es_upload_part_over(timestamptz, timestamptz)",
    "es_erase_clients(smallint, timestamptz, integer)",
    "es_rotate_seal_keys(timestamptz, interval, interval)",
    "es_note_cluster(smallint)",
    "es_raise_epoch(smallint, integer)",
    "es_beat(text, text, text, integer, text[], text[], text)",
    "es_forbids(text, text[], text)",
    "es_use_feature(text, text[], text, interval)",
)


def install(connection: Connection, app_role: str) -> None:
    """(Re)create what the files under `eventstore/sql` declare and let the application's role read and call."""
    for text in _texts():
        _run(connection, text)
    role = connection.dialect.identifier_preparer.quote(app_role)
    _run(connection, f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} FROM PUBLIC")
    _run(connection, f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    _run(connection, f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}")
    for function in PUBLIC_FUNCTIONS:
        _run(connection, f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{function} TO {role}")


def checksum() -> str:
    """The checksum of the SQL that `install` runs. The newest revision names it.

    Programs compare revisions only, so a changed function needs a new one; the checksum makes a test fail without it.
    Comments on lines of their own do not count: their words may change without a revision.
    """
    whole = "\0".join((*map(_without_comments, _texts()), *PUBLIC_FUNCTIONS))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _texts() -> list[str]:
    return [files("eventstore").joinpath("sql", f"{name}.sql").read_text("utf-8") for name in SQL_FILES]


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("--"))


def _run(connection: Connection, sql: str) -> None:
    # With no_parameters the text goes to the server unchanged; otherwise a '%' in a RAISE would be a placeholder.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
