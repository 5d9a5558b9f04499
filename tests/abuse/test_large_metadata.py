"""The largest metadata takes no process more memory than it may, and every list of it can be read to the end.

The long form with 2,000 manifests of 4 MiB is `make test-long PART=metadata`; bench/metadata.py prints its figures.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from projections.builds.verify import verify
from tests.abuse.memory import Memory, watching
from tests.abuse.metadata import Amount, push_all, read_all
from tests.servers import RunningServer, serving, wait_level

SHORT = Amount(referrers=8, others=4, wide=2, children=100)
LONG = Amount(referrers=1000, others=980, wide=20, children=1000)
PSS_MAX = 200_000_000
PAGE_MAX = 4 * 1024 * 1024 + 4096
LEVEL_S = 1200.0


@contextmanager
def without_projector(server: RunningServer) -> Iterator[None]:
    """Stop the server's projector during the block, so that all that is pushed stays in the tail."""
    projector = server.children()["projector"]
    os.kill(projector, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(projector, signal.SIGCONT)


def assert_bounded(memory: Memory) -> None:
    """Check that no process took more memory than it may."""
    assert memory.samples > 2
    assert max(memory.most.values()) < PSS_MAX, str(memory)


@pytest.mark.parametrize("amount", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
def test_metadata_at_its_largest_is_pushed_listed_and_folded_in_bounded_memory(amount: Amount) -> None:
    """Lists read from the tail alone and from the read models are the same."""
    with serving() as server, watching(server) as memory:
        with without_projector(server):
            push_all(server, amount)
            assert max(read_all(server, amount).sizes) < PAGE_MAX
        wait_level(server.host, LEVEL_S)
        assert max(read_all(server, amount).sizes) < PAGE_MAX
        assert [each.name for each in verify(server.database_url) if not each.equal] == []
    print(memory)
    assert_bounded(memory)
