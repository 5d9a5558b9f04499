"""SQL for tables whose names are known only at run time. Names are composed as identifiers, never pasted."""

from collections.abc import Iterable
from typing import LiteralString

import sqlalchemy as sa
from psycopg import sql

Names = str | sa.Table | sql.Composable | Iterable[str]


def statement(text: LiteralString, **names: Names) -> str:
    """The text with {name} replaced: a table or a dotted name as an identifier, several names as a list of them."""
    return sql.SQL(text).format(**{name: _composed(value) for name, value in names.items()}).as_string()


def columns(names: Iterable[str], of: str) -> sql.Composable:
    """The columns of an alias, as a list."""
    return sql.SQL(", ").join(sql.Identifier(of, name) for name in names)


def all_of(text: LiteralString, names: Iterable[str]) -> sql.Composable:
    """One condition on {name} for each column, joined by AND."""
    return sql.SQL(" AND ").join(sql.SQL(text).format(name=sql.Identifier(name)) for name in names)


def _composed(value: Names) -> sql.Composable:
    match value:
        case sql.Composable():
            return value
        case sa.Table():
            return sql.Identifier(*(each for each in (value.schema, value.name) if each))
        case str():
            return sql.Identifier(*value.split("."))
    return sql.SQL(", ").join(map(sql.Identifier, value))
