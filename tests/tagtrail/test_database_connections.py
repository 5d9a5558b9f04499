"""A server holds no more connections to its database than docs/operating.md tells to count."""

import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest
import requests

from tagtrail.config import Settings, resolve
from tests.servers import RunningServer

# The connections of projector, keeper, their heartbeats and the board, and those that fill a new read model.
OTHERS = 9
# The keeper asks too, by a pool of its own, in one thread.
KEEPER = 1
APPENDER = 1
CLIENTS = 32
REQUESTS = 25
_NAMES = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_a_server_holds_no_more_connections_than_its_options_say(server: RunningServer) -> None:
    """Each worker asks by one pool, whatever it asks for, its heart too; one process appends for all."""
    settings = Settings.from_json((server.data / "server.json").read_text())

    def ask() -> None:
        with requests.Session() as session:
            for _ in range(REQUESTS):
                name = f"many/{secrets.token_hex(4)}"
                assert session.get(f"{server.url}/v2/{name}/tags/list", timeout=60).status_code == 404
                assert session.post(f"{server.url}/v2/{name}/blobs/uploads/", timeout=60).status_code == 202
                assert session.head(f"{server.url}/v2/{name}/manifests/v1", timeout=60).status_code == 404

    most: Counter[str] = Counter()
    with (
        psycopg.connect(server.database_url, autocommit=True) as connection,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        working = {pool.submit(ask) for _ in range(CLIENTS)}
        left = working
        while left:
            most |= Counter(row[0] for row in connection.execute(_NAMES))
            _, left = wait(left, 0.02)
        for each in working:
            each.result()
    workers = settings.workers
    assert 1 <= most["tagtrail-store"] <= workers * settings.database_pool + KEEPER
    assert most["tagtrail-append"] == APPENDER
    assert most["tagtrail-api-heart"] == 0
    assert most.total() <= workers * settings.database_pool + APPENDER + OTHERS, most


@pytest.mark.parametrize(("workers", "pool"), [(1, 8), (2, 8), (4, 8), (8, 4), (16, 2), (64, 2)])
def test_the_pool_of_a_worker_is_smaller_where_there_are_many(workers: int, pool: int) -> None:
    """The option `database_pool` overrides this."""
    assert resolve({"workers": str(workers)}, {}).settings.database_pool == pool
    assert resolve({"workers": str(workers), "database_pool": "5"}, {}).settings.database_pool == 5
