"""A process that ends at any step leaves a whole blob or files that are cleaned away; nothing acknowledged is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from blobstore.interface import BlobName
from domain.digests import digest_of
from domain.names import UploadId

UPLOAD = UploadId("d4" * 16)
CHUNKS = (b"first chunk, ", b"second chunk")
CONTENT = b"".join(CHUNKS)
DIGEST = digest_of("sha256", CONTENT)

SCENARIO = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_disk_crash as here
left = int(sys.argv[2])
def stop(step):
    global left
    left -= 1
    if left < 0:
        print("stopping at", step, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
for told in here.push(Path(sys.argv[1]), stop):
    print(told, flush=True)
"""


def push(data: Path, fault: Callable[[str], None]) -> list[str]:
    """An upload of two chunks and its commit, refused once; answers what would have been acknowledged."""
    store = DiskBlobStore(data, fault=fault)
    told = []
    store.create(UPLOAD)
    told.append("created")
    offset = 0
    for chunk in CHUNKS:
        with store.open(UPLOAD, offset) as staged:
            staged.write(chunk)
            staged.sync()
            offset = staged.size
        told.append(f"chunk {offset}")
        (data / "acknowledged").write_text(str(offset))
    with store.open(UPLOAD, offset) as staged:
        staged.commit(BlobName(DIGEST, 0))
        staged.commit(BlobName(DIGEST, 1))
        (data / "acknowledged").write_text("committed")
    told.append("committed")
    return told


class Stop(BaseException):
    """Raised where the process is taken to end."""


def steps(data: Path) -> list[str]:
    DiskBlobStore(data).prepare()
    passed: list[str] = []
    push(data, passed.append)
    return passed


def check_after_crash(data: Path) -> None:
    """Check that at the next start all files under blobs/ are whole and acknowledged bytes can be continued."""
    store = DiskBlobStore(data)
    store.prepare()
    acknowledged = (data / "acknowledged").read_text() if (data / "acknowledged").exists() else "0"
    blobs = [each for each in (data / "blobs").rglob("*") if each.is_file()]
    for blob in blobs:
        assert blob.name.startswith(DIGEST.hex)
        assert blob.read_bytes() == CONTENT
    if acknowledged == "committed":
        assert store.stat(BlobName(DIGEST, 1)) == len(CONTENT)
    elif not blobs and (data / "uploads" / UPLOAD).exists():
        offset = int(acknowledged)
        with store.open(UPLOAD, offset) as staged:
            staged.write(CONTENT[offset:])
            assert staged.digest("sha256") == DIGEST
    else:
        assert blobs or acknowledged == "0"
    for upload in list(store.stale(datetime.now(UTC) + timedelta(hours=1))):
        store.discard(upload)
    assert list((data / "uploads").iterdir()) == []


def test_the_scenario_passes_every_step(tmp_path: Path) -> None:
    passed = steps(tmp_path)
    assert set(passed) == {"created", "written", "synced", "before rename", "renamed", "committed"}
    check_after_crash(tmp_path)


def test_a_stop_at_any_step_is_cleaned_up(tmp_path: Path) -> None:
    count = len(steps(tmp_path / "whole"))
    for last in range(count):
        data = tmp_path / str(last)
        DiskBlobStore(data).prepare()
        left = last

        def stop(step: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop(step)

        with pytest.raises(Stop):
            push(data, stop)
        check_after_crash(data)


def test_kill_9_at_any_step_is_cleaned_up(tmp_path: Path) -> None:
    """Here a process is really killed at each step, so nothing of it runs on and no lock stays."""
    count = len(steps(tmp_path / "whole"))
    for last in range(count):
        data = tmp_path / str(last)
        DiskBlobStore(data).prepare()
        ended = subprocess.run(
            [sys.executable, "-c", SCENARIO, str(data), str(last), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stdout
        check_after_crash(data)


def test_bytes_are_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob survives a loss of power only in this order, which no kill of a process can show."""
    store = DiskBlobStore(tmp_path)
    store.prepare()
    done: list[tuple[str, str]] = []
    fdatasync, fsync, rename = os.fdatasync, os.fsync, os.rename

    def place(descriptor: int) -> str:
        return str(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path))

    def spy_fdatasync(descriptor: int) -> None:
        done.append(("flush", place(descriptor)))
        fdatasync(descriptor)

    def spy_fsync(descriptor: int) -> None:
        done.append(("flush", place(descriptor)))
        fsync(descriptor)

    def spy_rename(source: Path, target: Path) -> None:
        done.append(("rename", str(target.relative_to(tmp_path))))
        rename(source, target)

    monkeypatch.setattr(os, "fdatasync", spy_fdatasync)
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    store.create(UPLOAD)
    with store.open(UPLOAD, 0) as staged:
        staged.write(CONTENT)
        staged.commit(BlobName(DIGEST, 0))
    folder = f"blobs/sha256/{DIGEST.hex[:2]}"
    assert done == [
        ("flush", "uploads"),
        ("flush", f"uploads/{UPLOAD}"),
        ("rename", f"{folder}/{DIGEST.hex}.0"),
        ("flush", folder),
    ]


def test_every_folder_is_flushed_when_it_is_made_and_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that was killed between making a folder and flushing its entry leaves that to the next one."""
    flushed: set[str] = set()
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        flushed.add(str(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    for expected in ({".", "data", "data/blobs"}, {"data", "data/blobs"}):
        flushed.clear()
        DiskBlobStore(tmp_path / "data").prepare()
        assert flushed == expected | {"data/blobs/sha256", "data/blobs/sha512"}
