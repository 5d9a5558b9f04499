"""Full disks, each a small file system of its own: writes are 503, reads go on, and all goes on once there is space."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import requests
from psycopg.conninfo import make_conninfo

from tagtrail.server import embedded
from tests.api import codes, image, registry_over, sha256
from tests.clients.programs import missing
from tests.postgres import Database, Server
from tests.servers import RunningServer, start
from tests.sessions import upload_of
from tests.waiting import eventually

MIB = 1024 * 1024
pytestmark = pytest.mark.xdist_group("disk_full")


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of this size during the block, as only root may."""
    folder.mkdir(parents=True)
    if shutil.which("mount") is None:
        missing("the program mount")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        missing(f"the right to mount: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Make a file that takes all the space that is left on the disk of a folder; answers its path."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


def test_uploads_on_a_full_disk_are_503_and_go_on_with_space(database: Database, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk, registry_over(database, disk) as registry:
        layer = os.urandom(MIB)
        registry.push("u/app", "t", layer)
        session = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
        assert registry.patch(session, data=b"begun").status_code == 202
        filler = fill(disk)
        new = os.urandom(MIB)
        other = "/v2/u/app/blobs/uploads/"
        unused = registry.post(other).headers["Location"]
        refused = {
            "first chunk": registry.patch(unused, data=new),
            "monolithic": registry.post(f"{other}?digest={sha256(new)}", data=new),
            "chunk": registry.patch(session, data=new),
            "finish": registry.put(f"{session}?digest={sha256(b'begun' + new)}", data=new),
        }
        for name, answer in refused.items():
            assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"]), name
            assert int(answer.headers["Retry-After"]) > 0, name
        assert refused["chunk"].headers["Range"] == "0-4"
        assert (refused["first chunk"].headers["Range"], refused["first chunk"].headers["Location"]) == ("0-0", unused)
        assert [each.name for each in (disk / "uploads").iterdir()] == [upload_of(session)]
        staged = disk / "uploads" / upload_of(session)
        assert staged.stat().st_size == len(b"begun")
        ready = registry.get("/readyz")
        assert ready.status_code == 503
        assert "is full" in ready.get_json()["problems"][0]
        assert registry.get(f"/v2/u/app/blobs/{sha256(layer)}").data == layer
        assert registry.get("/v2/u/app/manifests/t").status_code == 200
        filler.unlink()
        assert registry.get("/readyz").status_code == 200
        assert registry.put(f"{session}?digest={sha256(b'begun' + new)}", data=new).status_code == 201
        assert registry.blob("u/app", new)
        assert registry.get(f"/v2/u/app/blobs/{sha256(b'begun' + new)}").data == b"begun" + new


def test_a_full_disk_is_no_reason_not_to_delete_or_mount(database: Database, tmp_path: Path) -> None:
    """Requests that need no space on the disk of the blobs go on, as long as the database has space."""
    with small_disk(tmp_path / "disk", 64) as disk, registry_over(database, disk) as registry:
        digest = registry.push("u/app", "t", b"layer")
        registry.manifest("u/app", "other", registry.get("/v2/u/app/manifests/t").data)
        session = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
        assert registry.patch(session, data=os.urandom(MIB)).status_code == 202
        filler = fill(disk)
        layer = f"/v2/u/app/blobs/{sha256(b'layer')}"
        answers = {
            "mount": registry.post(f"/v2/u/new/blobs/uploads/?mount={sha256(b'layer')}&from=u/app"),
            "status": registry.get(session),
            "cancel": registry.delete(session),
            "delete tag": registry.delete("/v2/u/app/manifests/other"),
            "delete manifest": registry.delete(f"/v2/u/app/manifests/{digest}"),
            "delete blob": registry.delete(layer),
        }
        found = {name: answer.status_code for name, answer in answers.items()}
        assert found == dict(zip(answers, (201, 204, 204, 202, 202, 202), strict=True))
        assert registry.get(f"/v2/u/new/blobs/{sha256(b'layer')}").data == b"layer"
        assert registry.get(layer).status_code == 404
        # A session that was given up makes space at once.
        assert registry.blob("u/app", os.urandom(MIB // 2))
        filler.unlink()


@contextmanager
def on_a_small_disk(database: Database, server: Server) -> Iterator[Path]:
    """Move a database's tables to a small disk of their own; its log stays where there is space."""
    with small_disk(server.folder / "small", 48) as disk:
        owner = server.folder.stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            admin.execute(f"ALTER DATABASE {database.name} SET TABLESPACE small")
            try:
                yield disk
            finally:
                admin.execute(f"ALTER DATABASE {database.name} SET TABLESPACE pg_default")
                admin.execute("DROP TABLESPACE small")
    (server.folder / "small").rmdir()


def test_readyz_says_that_the_disk_of_a_database_of_ones_own_is_full(
    database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    """Such a database answers every question, so only a refused write tells. The next write that succeeds ends it."""
    with (
        on_a_small_disk(database, postgres_server) as disk,
        registry_over(database, tmp_path, append_timeout_s="1s") as registry,
    ):
        registry.blob("u/app", b"{}")
        small = image(b"{}")
        kept = ["stands"]
        assert registry.manifest("u/app", "stands", small).status_code == 201
        filler = fill(disk)
        assert registry.get("/readyz").status_code == 200
        new = image(b"{}", annotations={"pad": os.urandom(500_000).hex()})
        # Bytes of a new manifest need space at once, events only when the last page of their table is full.
        for body in (new, small):
            while (answer := registry.manifest("u/app", f"t{len(kept)}", body)).status_code == 201:
                kept.append(f"t{len(kept)}")
                assert len(kept) < 1000
            assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
            ready = registry.get("/readyz")
            assert ready.status_code == 503
            assert "No space left on device" in ready.get_json()["problems"][0], ready.json
        # An event may still find space in that page. A refused write changed nothing, any other is done.
        path = f"/v2/u/app/manifests/{kept.pop()}"
        stands = {202: 404, 503: 200}[registry.delete(path).status_code]
        assert registry.get(path).status_code == stands
        for tag in kept:
            assert registry.get(f"/v2/u/app/manifests/{tag}").data == small
        filler.unlink()
        assert registry.manifest("u/app", "last", image(b"{}")).status_code == 201
        assert registry.get("/readyz").status_code == 200


def tagged(server: RunningServer, tag: str, body: bytes) -> requests.Response:
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    return requests.put(f"{server.url}/v2/u/app/manifests/{tag}", body, headers=headers, timeout=30)


def is_ready(server: RunningServer) -> bool:
    try:
        return requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
    except requests.RequestException:
        return False


def panic(server: RunningServer) -> None:
    """Fill the disk with segments of the database's own log (WAL): the database ends, and cannot start again."""
    url = make_conninfo(server.database_url, user=embedded.ADMIN, dbname="postgres")
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("SELECT pg_create_restore_point('one more')")
            connection.execute("SELECT pg_switch_wal()")


@pytest.mark.parametrize("writes", [6, pytest.param(400, marks=pytest.mark.slow)])
def test_an_embedded_postgres_on_a_full_disk_loses_nothing_and_comes_back(tmp_path: Path, writes: int) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        server = start(
            disk / "data", {"TAGTRAIL_APPEND_TIMEOUT_S": "1s", "TAGTRAIL_READ_TIMEOUT_S": "1s", "TAGTRAIL_WORKERS": "2"}
        )
        try:
            server.wait_ready()
            uploads = f"{server.url}/v2/u/app/blobs/uploads/"
            assert requests.post(f"{uploads}?digest={sha256(b'{}')}", b"{}", timeout=30).status_code == 201
            kept: dict[str, str] = {}
            filler = fill(disk)
            refused = 0
            for number in range(writes):
                body = image(b"{}", annotations={"pad": os.urandom(100_000).hex(), "n": str(number)})
                answer = tagged(server, f"t{number}", body)
                if answer.status_code == 201:
                    kept[f"t{number}"] = sha256(body)
                else:
                    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
                    assert int(answer.headers["Retry-After"]) > 0
                    refused += 1
            assert refused
            database = server.children()["postgres"]
            panic(server)
            assert not is_ready(server)
            problems = requests.get(f"{server.url}/readyz", timeout=30).json()["problems"]
            assert any("is full" in each for each in problems), problems
            filler.unlink()
            # A write that goes through tells the process that there is space; without one it takes half a minute.
            eventually(lambda: tagged(server, "last", image(b"{}")).status_code == 201, 60)
            assert server.children()["postgres"] != database, "the database did not end"
            eventually(lambda: is_ready(server), 60)
            for tag, digest in kept.items():
                answer = requests.get(f"{server.url}/v2/u/app/manifests/{tag}", timeout=30)
                assert (answer.status_code, sha256(answer.content)) == (200, digest)
        finally:
            server.process.terminate()
            server.process.wait(30)
