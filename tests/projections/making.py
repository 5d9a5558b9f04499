"""Parts that tests of read models share."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from domain.tag import TagMoved
from projections.engine import build_tables
from projections.engine.build_tables import Build
from projections.engine.setup import engine_for
from projections.model import Happened, Model, Rows
from projections.models import tags
from tests.api import Registry


def live_build(url: str, model: Model) -> Build:
    """The live build of a model."""
    with engine_for(url).connect() as connection:
        return build_tables.live(connection, model)


def builds_of(url: str, model: Model) -> list[tuple[str, str]]:
    """Id and state of every build of a model."""
    with engine_for(url).connect() as connection:
        query = sa.select(build_tables.build.c.id, build_tables.build.c.state).where(
            build_tables.build.c.model == model.id
        )
        return sorted((row.id, row.state) for row in connection.execute(query))


def random_pushes(registry: Registry, seed: int, times: int) -> int:
    """A seeded history of pushes, moves and deletions; answers the head of the log."""
    chance = random.Random(seed)
    for _ in range(times):
        name = f"u/app{chance.randrange(4)}"
        what = chance.random()
        if what < 0.6:
            registry.push(name, f"t{chance.randrange(5)}", bytes([chance.randrange(6)]))
        elif what < 0.8:
            registry.delete(f"/v2/{name}/manifests/t{chance.randrange(5)}")
        else:
            found = registry.head(f"/v2/{name}/manifests/t{chance.randrange(5)}")
            if found.status_code == 200:
                registry.delete(f"/v2/{name}/manifests/{found.headers['Docker-Content-Digest']}")
    return registry.head_position()


@contextmanager
def broken_fold(how: str) -> Iterator[None]:
    """The fold of tags cannot take a move of tag "boom"."""
    whole = tags.model.fold

    def fold(rows: Rows, happened: Happened) -> None:
        match happened.event:
            case TagMoved(repository, "boom", digest):
                if how == "raises":
                    raise KeyError("nobody thought of this")
                # The database refuses this: no text of it holds a NUL.
                row = tags.TagRow(repository, "boom", digest + "\x00", happened.recorded_at, happened.position)
                rows[repository, "boom"] = row
            case _:
                whole(rows, happened)

    object.__setattr__(tags.model, "fold", fold)
    try:
        yield
    finally:
        object.__setattr__(tags.model, "fold", whole)
