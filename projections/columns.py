"""Tables of read models, made from the data classes of their rows: a field is a column."""

from collections.abc import Collection
from dataclasses import fields
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import sqlalchemy as sa

SCHEMA = "readmodel"
# These tables are shapes only. The database has versions of them, the builds (see engine/build_tables.py).
metadata = sa.MetaData(schema=SCHEMA)

# A name, compared as bytes (rule: names compare as bytes).
Name = Annotated[str, sa.Text(collation="C")]
SmallNumber = Annotated[int, sa.Integer()]
_TYPES: dict[Any, sa.types.TypeEngine[Any]] = {
    str: sa.Text(),
    int: sa.BigInteger(),
    datetime: sa.TIMESTAMP(timezone=True),
}


def table_of(row: type, name: str, key: Collection[str]) -> sa.Table:
    """The table whose columns are the fields of the row's data class, in their order; `key` names those of its key.

    A field that may be None is a column that may be null. An annotated type brings the type of its column along.
    """
    hints = get_type_hints(row, include_extras=True)
    return sa.Table(name, metadata, *(_column(each.name, hints[each.name], each.name in key) for each in fields(row)))


def _column(name: str, hint: Any, in_key: bool) -> sa.Column[Any]:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (kind,) = (each for each in choices if each is not NoneType)
    column_type = get_args(kind)[1] if get_origin(kind) is Annotated else _TYPES[kind]
    return sa.Column(name, column_type, primary_key=in_key, nullable=NoneType in choices, autoincrement=False)
