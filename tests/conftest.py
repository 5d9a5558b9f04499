"""Fixtures that several rooms' tests share: Postgres, and running servers in their three modes."""

from collections.abc import Iterator

import pytest

from tests.postgres import database, postgres_server
from tests.servers import RunningServer, jittering, serving

__all__ = ["database", "postgres_server"]

JITTER_SEED = 20261124


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """`tagtrail serve` as people start it."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def server_without_projector() -> Iterator[RunningServer]:
    """A server whose read models stay empty: every answer is the tail."""
    with serving({"TAGTRAIL_PROJECTOR": "false"}) as running:
        yield running


@pytest.fixture(scope="session")
def server_with_jittery_projector() -> Iterator[RunningServer]:
    """A server whose projector is stopped and continued at random."""
    print(f"projector jitter seed: {JITTER_SEED}")
    with serving() as running, jittering(running, JITTER_SEED):
        yield running
