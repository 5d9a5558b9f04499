"""Builds: versions of a read model's table, and the views that show the live one (rule: views of one build).

A model of shape `tags_s1` is read through the views `tags_s1`, `tags_s1_checkpoint` and `tags_s1_parked`. They look
at one build (`tags_s1_v3`): its table, its rows of `checkpoint`, its rows of `parked`. A swap changes all three views
in one transaction, so that no reader ever sees rows with another build's checkpoint. Everything here can be made anew
from the log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import LiteralString

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import ARRAY, insert

from eventstore.feed.bell import RING
from eventstore.partition import PARTITIONS
from projections.columns import SCHEMA
from projections.model import Model
from projections.statements import Names, statement

_kept = sa.MetaData(schema=SCHEMA)

FILLING = "filling"  # the set fold writes it
FOLLOWING = "following"  # complete, kept up by the projector, not read
LIVE = "live"
RETIRED = "retired"  # was live; kept up for a while, so that going back takes a moment
SUPERSEDED_LOCK = 4716
FED = (FOLLOWING, LIVE, RETIRED)

build = sa.Table(
    "build",
    _kept,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("target", sa.BigInteger, nullable=False),
    # The position that the set fold has reached in each of its stripes of the log.
    sa.Column("reached", ARRAY(sa.BigInteger), nullable=False),
    # Events that later ones of their stream replaced; builds that are filled together share the table.
    sa.Column("superseded", sa.Text),
    sa.Column("made_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("keep_until", sa.TIMESTAMP(timezone=True)),
)
checkpoint = sa.Table(
    "checkpoint",
    _kept,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("partition", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    # The feed goes on here. An offset counts only in the topic in which it was seen.
    sa.Column("topic_id", sa.Text),
    sa.Column("next_offset", sa.BigInteger),
    postgresql_with={"fillfactor": "50"},
)
parked = sa.Table(
    "parked",
    _kept,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("key", sa.Text(collation="C"), primary_key=True),
    sa.Column("partition", sa.SmallInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("parked_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
)


@dataclass(frozen=True, slots=True)
class Build:
    """One version of a model's table. The set fold goes to `target` in stripes and has `reached` a position in each."""

    id: str
    model: Model
    version: int
    state: str
    epoch: int
    target: int
    reached: tuple[int, ...]
    superseded: str | None = None
    keep_until: datetime | None = None

    @property
    def table(self) -> sa.Table:
        """Its table, with the columns and the key of the model's shape."""
        return _table(self.model.table, self.id)

    @property
    def starts(self) -> tuple[int, ...]:
        """The positions after which its stripes begin."""
        return tuple(self.target * each // len(self.reached) for each in range(len(self.reached)))

    @property
    def filled(self) -> int:
        """The number of positions that the set fold has done."""
        return sum(self.reached) - sum(self.starts)


@cache
def _table(shape: sa.Table, build_id: str) -> sa.Table:
    return shape.to_metadata(sa.MetaData(schema=SCHEMA), name=build_id)


def prepare(connection: sa.Connection) -> None:
    """Make the tables that describe builds."""
    _kept.create_all(connection)
    connection.exec_driver_sql("ALTER TABLE readmodel.build ADD COLUMN IF NOT EXISTS superseded text")


def listed(connection: sa.Connection, models: Iterable[Model], states: Sequence[str] = FED) -> list[Build]:
    """The builds of these models in these states, in order of their version."""
    by_id = {model.id: model for model in models}
    query = sa.select(build).where(build.c.model.in_(by_id), build.c.state.in_(states)).order_by(build.c.version)
    return [
        Build(
            *(row.id, by_id[row.model], row.version, row.state, row.epoch, row.target),
            *(tuple(row.reached), row.superseded, row.keep_until),
        )
        for row in connection.execute(query)
    ]


def live(connection: sa.Connection, model: Model) -> Build:
    """The build that readers of the model see."""
    return listed(connection, [model], [LIVE])[0]


def create(
    connection: sa.Connection, model: Model, state: str, target: int, stripes: int = 1, superseded: str | None = None
) -> Build:
    """Make the next version of the model's table, without key and indexes until `finish`."""
    last = connection.execute(sa.select(sa.func.max(build.c.version)).where(build.c.model == model.id)).scalar()
    version = (last or 0) + 1
    epoch = connection.exec_driver_sql("SELECT l.epoch FROM log.es_log AS l WHERE l.log_id = 0").scalar_one()
    starts = tuple(target * each // stripes for each in range(stripes))
    made = Build(f"{model.id}_v{version}", model, version, state, epoch, target, starts, superseded)
    bare = sa.Table(
        made.id,
        sa.MetaData(schema=SCHEMA),
        *(sa.Column(c.name, c.type, nullable=c.nullable) for c in model.table.columns),
    )
    connection.execute(sa.schema.CreateTable(bare))
    kept = {"id": made.id, "model": model.id, "version": version, "state": state, "epoch": epoch, "target": target}
    connection.execute(sa.insert(build).values(**kept, reached=list(starts), superseded=superseded))
    return made


def finish(connection: sa.Connection, made: Build, state: str) -> Build:
    """Give the build its key, its indexes and a checkpoint at its target. Projectors feed it from now on."""
    # A copy of its own, because its indexes are given new names.
    table = made.model.table.to_metadata(sa.MetaData(schema=SCHEMA), name=made.id)
    keys = ", ".join(made.model.key_columns)
    connection.exec_driver_sql(f"ALTER TABLE {table} ADD PRIMARY KEY ({keys})")
    for index in made.model.table.indexes:
        own = next(each for each in table.indexes if each.name == index.name)
        own.name = sa.sql.quoted_name(f"{index.name}_v{made.version}", quote=None)
        connection.execute(sa.schema.CreateIndex(own))
    partitions = connection.exec_driver_sql(PARTITIONS).scalar_one()
    rows = [
        {"build": made.id, "partition": each, "position": made.target, "epoch": made.epoch}
        for each in range(partitions)
    ]
    connection.execute(insert(checkpoint), rows)
    _release_superseded(connection, made.id)
    connection.execute(sa.update(build).where(build.c.id == made.id).values(state=state))
    connection.exec_driver_sql(RING)
    return replace(made, state=state, superseded=None)


def _release_superseded(connection: sa.Connection, build_id: str) -> None:
    """Release the build's table of superseded events; the last build that does so drops it."""
    name = connection.execute(sa.select(build.c.superseded).where(build.c.id == build_id)).scalar()
    if name is None:
        return
    # Without a lock, two that release it at once would each leave it to the other.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%(lock)s, 0)", {"lock": SUPERSEDED_LOCK})
    connection.execute(sa.update(build).where(build.c.id == build_id).values(superseded=None))
    if not connection.execute(sa.select(sa.func.count()).where(build.c.superseded == name)).scalar_one():
        connection.exec_driver_sql(statement("DROP TABLE IF EXISTS {table}", table=name))


def show(connection: sa.Connection, made: Build) -> None:
    """Point the model's three views at this build."""
    shape = f"{SCHEMA}.{made.model.id}"
    names: dict[str, Names] = {"columns": made.model.columns, "table": made.table, "build": sql.Literal(made.id)}
    for view, select in (
        (shape, "CREATE OR REPLACE VIEW {view} AS SELECT {columns} FROM {table}"),
        (f"{shape}_checkpoint", _CHECKPOINT_VIEW),
        (f"{shape}_parked", _PARKED_VIEW),
    ):
        connection.exec_driver_sql(statement(select, view=view, **names))


_CHECKPOINT_VIEW: LiteralString = (
    "CREATE OR REPLACE VIEW {view} AS SELECT partition, position FROM readmodel.checkpoint WHERE build = {build}"
)
_PARKED_VIEW: LiteralString = (
    "CREATE OR REPLACE VIEW {view} AS SELECT key, partition, position FROM readmodel.parked WHERE build = {build}"
)


def mark(connection: sa.Connection, made: Build, state: str, keep_s: float | None = None) -> None:
    """Note the build's state and, with `keep_s`, how many seconds it is to be kept."""
    until = None if keep_s is None else sa.func.clock_timestamp() + sa.cast(f"{keep_s} seconds", sa.Interval)
    connection.execute(sa.update(build).where(build.c.id == made.id).values(state=state, keep_until=until))
    connection.exec_driver_sql(RING)


def drop(connection: sa.Connection, build_id: str) -> None:
    """Remove a build. A projector that feeds it locks its checkpoint first, and finds none."""
    if not re.fullmatch(r"[a-z_]+_s[0-9]+_v[0-9]+", build_id):
        raise ValueError(f"{build_id!r} is no build")
    for table in (checkpoint, parked):
        connection.execute(sa.delete(table).where(table.c.build == build_id))
    _release_superseded(connection, build_id)
    connection.execute(sa.delete(build).where(build.c.id == build_id))
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {SCHEMA}.{build_id}")


def expired(connection: sa.Connection) -> list[str]:
    """Retired builds whose time is over."""
    query = sa.select(build.c.id).where(build.c.state == RETIRED, build.c.keep_until < sa.func.clock_timestamp())
    return list(connection.execute(query).scalars())
