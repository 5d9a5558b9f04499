"""Disks that are full, on small file systems of their own: 503 for writes, reads go on, all is well with room again."""

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
from tests.postgres import Database
from tests.servers import RunningServer, start
from tests.waiting import eventually

MIB = 1024 * 1024
pytestmark = pytest.mark.xdist_group("disk_full")


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A tmpfs of this size, which only root may mount."""
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
    """A file that takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


def test_uploads_on_a_full_disk_are_503_and_go_on_with_room(database: Database, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk, registry_over(database, disk) as registry:
        layer = os.urandom(MIB)
        registry.push("u/app", "t", layer)
        session = registry.post("/v2/u/app/blobs/uploads/").headers["Location"]
        assert registry.patch(session, data=b"begun").status_code == 202
        filler = fill(disk)
        new = os.urandom(MIB)
        other = "/v2/u/app/blobs/uploads/"
        refused = {
            "monolithic": registry.post(f"{other}?digest={sha256(new)}", data=new),
            "chunk": registry.patch(session, data=new),
            "finish": registry.put(f"{session}?digest={sha256(b'begun' + new)}", data=new),
        }
        for name, answer in refused.items():
            assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"]), name
            assert int(answer.headers["Retry-After"]) > 0, name
        assert refused["chunk"].headers["Range"] == "0-4"
        staged = disk / "uploads" / session.rpartition("/")[2]
        assert staged.stat().st_size == len(b"begun")
        ready = registry.get("/readyz")
        assert ready.status_code == 503
        assert "is full" in ready.json["problems"][0]
        assert registry.get(f"/v2/u/app/blobs/{sha256(layer)}").data == layer
        assert registry.get("/v2/u/app/manifests/t").status_code == 200
        filler.unlink()
        assert registry.get("/readyz").status_code == 200
        assert registry.put(f"{session}?digest={sha256(b'begun' + new)}", data=new).status_code == 201
        assert registry.blob("u/app", new)
        assert registry.get(f"/v2/u/app/blobs/{sha256(b'begun' + new)}").data == b"begun" + new


def tagged(server: RunningServer, tag: str, body: bytes) -> requests.Response:
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    return requests.put(f"{server.url}/v2/u/app/manifests/{tag}", body, headers=headers, timeout=30)


def is_ready(server: RunningServer) -> bool:
    try:
        return requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
    except requests.RequestException:
        return False


def panic(server: RunningServer) -> None:
    """Ask for new segments of the database's own log until there is no room: it ends, and cannot start again."""
    url = make_conninfo(server.database_url, user=embedded.ADMIN, dbname="postgres")
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("SELECT pg_create_restore_point('one more')")
            connection.execute("SELECT pg_switch_wal()")


@pytest.mark.parametrize("writes", [20, pytest.param(400, marks=pytest.mark.slow)])
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
            eventually(lambda: is_ready(server), 60)
            assert server.children()["postgres"] != database, "the database did not end"
            eventually(lambda: tagged(server, "last", image(b"{}")).status_code == 201, 60)
            for tag, digest in kept.items():
                answer = requests.get(f"{server.url}/v2/u/app/manifests/{tag}", timeout=30)
                assert (answer.status_code, sha256(answer.content)) == (200, digest)
        finally:
            server.process.terminate()
            server.process.wait(30)
