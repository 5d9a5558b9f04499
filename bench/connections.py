"""Counts the connections to Postgres that a server holds: `python bench/connections.py [WORKERS]`, default 16.

Starts `tagtrail serve` with its own database and so many workers, and looks at it first without and then with a load:
for ten seconds 64 clients push images and ask for lists that no worker keeps in memory. Prints, for each name that the
program gives its connections, their number when nothing is asked and the most that were seen under load.
"""

import secrets
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg
import requests

from domain.media_types import OCI_MANIFEST
from tests.api import image, sha256
from tests.servers import RunningServer, serving
from tests.waiting import eventually

WORKERS = 16
CLIENTS = 64
SECONDS = 10.0
LOOK_S = 0.2
_NAMES = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def held(connection: psycopg.Connection) -> Counter[str]:
    """The number of connections to the database, by the name that they gave."""
    return Counter(row[0] for row in connection.execute(_NAMES))


def registered(connection: psycopg.Connection) -> int:
    """The number of workers that serve."""
    (number,) = connection.execute("SELECT count(*) FROM feed.process AS p WHERE p.kind = 'api'").fetchone() or (0,)
    return int(number)


def work(server: RunningServer, until: float) -> int:
    """Push images and ask for lists until the time of `time.monotonic()` is over; answers how many were pushed."""
    pushed = 0
    with requests.Session() as session:
        while time.monotonic() < until:
            name = f"load/{secrets.token_hex(4)}"
            layer, config = secrets.token_bytes(64), secrets.token_hex(8).encode()
            for blob in (layer, config):
                url = f"{server.url}/v2/{name}/blobs/uploads/?digest={sha256(blob)}"
                assert session.post(url, blob, timeout=60).status_code == 201
            url, body = f"{server.url}/v2/{name}/manifests/v1", image(config, layer)
            assert session.put(url, body, headers={"Content-Type": OCI_MANIFEST}, timeout=60).status_code == 201
            for path in ("/v2/_catalog?n=10", f"/v2/{name}/tags/list", f"/api/v1/repositories/{name}/history"):
                assert session.get(server.url + path, timeout=60).status_code == 200
            pushed += 1
    return pushed


def main(workers: int) -> None:
    """Count connections before the load and during it, and print both."""
    with (
        serving({"TAGTRAIL_WORKERS": str(workers)}) as server,
        psycopg.connect(server.database_url, autocommit=True) as connection,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        eventually(lambda: registered(connection) == workers, 60.0, lambda: registered(connection))
        idle = held(connection)
        most: Counter[str] = Counter()
        most_in_all = 0
        until = time.monotonic() + SECONDS
        working = [pool.submit(work, server, until) for _ in range(CLIENTS)]
        while time.monotonic() < until:
            now = held(connection)
            most |= now
            most_in_all = max(most_in_all, now.total())
            time.sleep(LOOK_S)
        pushed = sum(each.result() for each in working)
    for name in sorted(idle | most):
        print(f"  {name:26} idle {idle[name]:4}   most {most[name]:4}")
    print(f"{workers} workers: {idle.total()} connections idle, {most_in_all} at most under load ({pushed} pushes)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WORKERS)
