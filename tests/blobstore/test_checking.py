"""The check of stored bytes: it moves damaged files away and never one that has just been healed."""

import os
import threading
from pathlib import Path

from blobstore.checking import Damage, Found
from blobstore.disk import DiskBlobStore
from blobstore.locking import folder_held_alone, folder_shared
from tests.blobstore.contract import put

CONTENT = b"right" * 1000


def file_of(data: Path) -> Path:
    (found,) = (each for each in (data / "blobs").rglob("*") if each.is_file())
    return found


def damage(data: Path) -> None:
    file_of(data).write_bytes(b"wrong" * 1000)


def test_a_whole_blob_stays(store: DiskBlobStore, data: Path) -> None:
    name = put(store, CONTENT)
    assert store.checker(lambda _: None).check(name, len(CONTENT)) is None
    assert not (data / "quarantine").exists()


def test_a_damaged_file_is_kept_in_quarantine(store: DiskBlobStore, data: Path) -> None:
    name = put(store, CONTENT)
    damage(data)
    found = store.checker(lambda _: None).check(name, len(CONTENT))
    (kept,) = (data / "quarantine").iterdir()
    assert found == Found(Damage.WRONG_BYTES, len(CONTENT), kept)
    assert kept.read_bytes() == b"wrong" * 1000
    assert store.stat(name) is None


def test_a_file_that_was_healed_after_it_was_read_is_not_moved(store: DiskBlobStore, data: Path) -> None:
    """A push heals the file between the second reading of the check and its move."""
    name = put(store, CONTENT)
    damage(data)
    reads = []

    def heal(_: int) -> None:
        reads.append(os.stat(file_of(data)).st_ino)
        if len(reads) == 2:
            put(store, CONTENT)

    assert store.checker(heal).check(name, len(CONTENT)) is None
    assert len(set(reads)) == 2
    assert b"".join(store.read(name, 0, len(CONTENT))) == CONTENT
    assert not any((data / "quarantine").iterdir())


def test_a_check_waits_for_a_commit_that_is_renaming(store: DiskBlobStore, data: Path) -> None:
    name = put(store, CONTENT)
    damage(data)
    done = threading.Event()

    def check() -> None:
        store.checker(lambda _: None).check(name, len(CONTENT))
        done.set()

    thread = threading.Thread(target=check)
    with folder_shared(file_of(data).parent):
        thread.start()
        assert not done.wait(0.3)
        assert store.stat(name) == len(CONTENT)
    thread.join(60)
    assert store.stat(name) is None


def test_a_commit_waits_for_a_check_that_is_moving(store: DiskBlobStore, data: Path) -> None:
    name = put(store, CONTENT)
    inode = os.stat(file_of(data)).st_ino
    thread = threading.Thread(target=put, args=(store, CONTENT))
    with folder_held_alone(file_of(data).parent):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert os.stat(file_of(data)).st_ino == inode
    thread.join(60)
    assert store.stat(name) == len(CONTENT)
    assert os.stat(file_of(data)).st_ino != inode
