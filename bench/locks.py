"""Measures how long one command keeps others from appending: `python bench/locks.py`.

A connection asks for the append's lock again and again, as other appends do, and notes the longest time that it waited.
Meanwhile the largest commands run: the first and the repeated push of the largest manifests, a push with 100 tags, the
deletion of manifests with many tags. The goal is 50 ms.

The first line shows the longest wait while no command runs. On a busy machine that is long too, and no other line can
be much shorter.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from domain.media_types import OCI_INDEX
from eventstore.schema import APPEND_LOCK
from tests.api import Registry, registry_over, sha256
from tests.large import NOT_HELD_TYPE, image_of, index_of, link_many, many
from tests.postgres import new_database, throwaway

NAME = "u/app"
LARGEST_BYTES = 4 * 1024 * 1024
CONFIG = b"{}"
NOTHING_S = 3.0


def ask(url: str, stop: Synchronized[int], longest: Synchronized[float]) -> None:
    """Ask for the lock until told to stop, and note the longest wait in seconds.

    It runs in a process of its own, so that the registry's threads do not keep it waiting.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.value:
            asked = time.perf_counter()
            connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (APPEND_LOCK,))
            longest.value = max(longest.value, time.perf_counter() - asked)


@contextmanager
def waiting(url: str) -> Iterator[Synchronized[float]]:
    """Ask for the lock in another process while the block runs; gives the longest wait in seconds."""
    spawning = multiprocessing.get_context("spawn")
    stop, longest = spawning.Value("i", 0), spawning.Value("d", 0.0)
    process = spawning.Process(target=ask, args=(url, stop, longest))
    process.start()
    while not longest.value:
        time.sleep(0.01)
    # The first wait contains the making of the connection.
    longest.value = 0.0
    try:
        yield longest
    finally:
        stop.value = 1
        process.join()


def measured(registry: Registry, what: str, method: str, path: str, body: bytes = b"", kind: str = "") -> None:
    """Send a request and print how long others waited meanwhile."""
    with waiting(registry.rooms.settings.database_url) as longest_s:
        began = time.perf_counter()
        answer = registry.open(path, method=method, data=body or None, content_type=kind or None)
        took = time.perf_counter() - began
    wait_ms = 1000 * longest_s.value
    print(f"{what:<58} {answer.status_code}  took {took:6.2f} s  others waited {wait_ms:7.1f} ms", flush=True)


def beside_nothing(url: str) -> None:
    """Print the longest wait for the lock while no command runs."""
    with waiting(url) as longest_s:
        time.sleep(NOTHING_S)
    print(f"{'nothing':<58}      took {NOTHING_S:6.2f} s  others waited {1000 * longest_s.value:7.1f} ms", flush=True)


def put(registry: Registry, what: str, body: bytes, kind: str = "", query: str = "") -> None:
    """Push a manifest by digest and print how long others waited meanwhile."""
    path = f"/v2/{NAME}/manifests/{sha256(body)}{query}"
    measured(registry, what, "PUT", path, body, kind or "application/vnd.oci.image.manifest.v1+json")


def main() -> None:
    """Run the commands one after another over one log."""
    with throwaway(shared_buffers="96MB", max_wal_size="2GB") as server, tempfile.TemporaryDirectory() as folder:
        database = new_database(server)
        with registry_over(database, Path(folder)) as registry:
            beside_nothing(database.app_url)
            registry.blob(NAME, CONFIG)
            one = len(image_of(CONFIG, [b"0"])) - len(image_of(CONFIG, []))
            layers = many(LARGEST_BYTES // (one + 8))
            link_many(registry, NAME, layers)
            largest = image_of(CONFIG, layers)
            ten = image_of(CONFIG, layers[:10_000])
            foreign = image_of(CONFIG, layers[:10_000], media_type=NOT_HELD_TYPE)
            some = image_of(CONFIG, layers[:90])
            mebibytes = len(largest) / 1024 / 1024
            for times in ("first push", "again", "again"):
                put(registry, f"{len(layers):,} layers, {mebibytes:.1f} MiB, {times}", largest)
                put(registry, f"10,000 layers, {times}", ten)
                put(registry, f"10,000 layers that are not held, {times}", foreign)
                put(registry, f"90 layers, {times}", some)
            children = index_of([some] * 1 + [ten] + [largest])
            put(registry, "an index of 3", children, OCI_INDEX)
            query = "?" + "&".join(f"tag=t{number}" for number in range(100))
            put(registry, "90 layers with 100 tags, first", some, query=query)
            put(registry, "90 layers with 100 tags, again", some, query=query)
            for tags in (1_000, 3_000):
                for start in range(0, tags, 100):
                    query = "&".join(f"tag=x{number}" for number in range(start, start + 100))
                    registry.manifest(NAME, f"{sha256(ten)}?{query}", ten)
                measured(registry, f"deletion with {tags:,} tags", "DELETE", f"/v2/{NAME}/manifests/{sha256(ten)}")
                put(registry, "10,000 layers, back again", ten)


if __name__ == "__main__":
    main()
