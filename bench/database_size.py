"""Measures how many bytes of the database a push takes, and a push of an unchanged image, by table.

    python bench/database_size.py [PUSHES]      default 1,000

PUSHES small images of four blobs are pushed by HTTP as docker does it (HEAD, POST, PATCH, PUT for each blob, then the
manifest), under short names, and the projector folds them. Then each image is pushed again under its tag (HEAD of each
blob, PUT of the manifest). Prints for each table how many rows a push has added, and how many bytes of rows, indexes
and TOAST; the partitions of a table count as one. The goal for a push is 12 KiB. The bytes of WAL are those of the
whole database, vacuums included.
"""

import json
import secrets
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg
from psycopg import sql
from werkzeug.test import Client
from werkzeug.wrappers import Response

from domain.media_types import OCI_MANIFEST
from tests.api import Registry, image, registry_over, sha256
from tests.postgres import Database, new_database, throwaway

PUSHES = 1_000
GOAL_BYTES = 12 * 1024
LAYERS = 3
CLIENTS = 4
PUSHES_PER_REPOSITORY = 25
# Rows that are written only once, whatever is pushed, are no part of the cost of a push.
WARM_UP = 20
# Partitions stand under the name of their table.
_TABLES = """
SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text, sum(pg_relation_size(c.oid)),
       sum(pg_indexes_size(c.oid)), sum(pg_table_size(c.oid) - pg_relation_size(c.oid))
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('log', 'readmodel', 'feed') GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Rows of a table, and the bytes of its rows, of its indexes, and of all else: TOAST and maps."""

    rows: int = 0
    table: int = 0
    indexes: int = 0
    toast: int = 0

    def since(self, before: "Size") -> "Size":
        """The growth from `before` to this size."""
        return Size(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    @property
    def total(self) -> int:
        """All bytes."""
        return self.table + self.indexes + self.toast


@dataclass(frozen=True, slots=True)
class State:
    """The sizes of all tables, and the place in the WAL."""

    tables: dict[str, Size]
    wal: int


def state(database: Database) -> State:
    """The sizes after a vacuum, so that the space of dead rows is not counted twice."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("VACUUM")
        tables = {}
        for name, *sizes in connection.execute(_TABLES):
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*name.replace('"', "").split(".")))
            row = connection.execute(count).fetchone()
            assert row is not None
            tables[name] = Size(row[0], *map(int, sizes))
        (wal,) = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone() or (0,)
    return State(tables, int(wal))


def show(what: str, before: State, after: State, times: int) -> float:
    """Print what each table has grown by for one push, the largest growth first; answers the bytes of all together."""
    added = {name: size.since(before.tables.get(name, Size())) for name, size in after.tables.items()}
    print(f"\n{what:<34}{'rows':>8}{'table':>9}{'indexes':>9}{'toast':>9}{'bytes':>9}")
    for name, size in sorted(added.items(), key=lambda each: -each[1].total):
        if size.total or size.rows:
            print(_line(name, size, times))
    together = Size(*map(sum, zip(*map(astuple, added.values()), strict=True)))
    print(_line("all", together, times))
    print(f"  {'WAL':<32}{'':8}{'':9}{'':9}{'':9}{(after.wal - before.wal) / times:>9,.0f}", flush=True)
    return together.total / times


def _line(name: str, size: Size, times: int) -> str:
    figures = "".join(f"{each / times:>9,.0f}" for each in (size.table, size.indexes, size.toast, size.total))
    return f"  {name:<32}{size.rows / times:>8.2f}{figures}"


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be pushed; it shares no blob with another one."""

    repository: str
    tag: str
    blobs: tuple[bytes, ...]
    manifest: bytes

    @classmethod
    def made(cls, number: int) -> "Image":
        """The image of this number."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "id": secrets.token_hex(8)}).encode()
        layers = tuple(secrets.token_bytes(200) for _ in range(LAYERS))
        place, version = divmod(number, PUSHES_PER_REPOSITORY)
        return cls(f"team{place % 7}/service-{place}", f"v1.{version}", (*layers, config), image(config, *layers))


def push(registry: Registry, pushed: Image) -> None:
    """Push an image as docker does: blobs that are missing, then the manifest under its tag."""
    client = Client(registry.application, Response, use_cookies=False)
    uploads = f"/v2/{pushed.repository}/blobs/uploads/"
    for each in pushed.blobs:
        if client.head(f"/v2/{pushed.repository}/blobs/{sha256(each)}").status_code == 200:
            continue
        opened = client.post(uploads)
        sent = client.patch(opened.headers["Location"], data=each)
        ended = client.put(f"{sent.headers['Location']}?digest={sha256(each)}")
        assert ended.status_code == 201, ended.data
    path = f"/v2/{pushed.repository}/manifests/{pushed.tag}"
    answer = client.put(path, data=pushed.manifest, content_type=OCI_MANIFEST)
    assert answer.status_code == 201, answer.data


def push_all(registry: Registry, images: list[Image]) -> None:
    """Push images from several clients at once, then fold the new events into the read models."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda each: push(registry, each), images))
    registry.project()


def main(pushes: int) -> None:
    """Push new images, push them again unchanged, print what each of the two has added."""
    with throwaway(shared_buffers="256MB") as server, tempfile.TemporaryDirectory() as folder:
        database = new_database(server)
        images = [Image.made(number) for number in range(WARM_UP + pushes)]
        with registry_over(database, Path(folder)) as registry:
            push_all(registry, images[:WARM_UP])
            states = [state(database)]
            heads = [registry.head_position()]
            for _ in range(2):
                push_all(registry, images[WARM_UP:])
                states.append(state(database))
                heads.append(registry.head_position())
        taken = []
        for number, what in enumerate(("a push", "a push of an unchanged image")):
            taken.append(show(what, states[number], states[number + 1], pushes))
            print(f"  events of the history: {(heads[number + 1] - heads[number]) / pushes:.2f}")
        reached = "reached" if taken[0] <= GOAL_BYTES else "MISSED"
        print(f"\ngoal: at most {GOAL_BYTES:,} bytes for a push: {reached}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PUSHES)
