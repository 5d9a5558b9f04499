"""Staging on the local disk: a session has one writer, ends at the logged offset, and is hashed while it is written."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blobstore import disk, staging
from blobstore.disk import DiskBlobStore
from blobstore.hashing import HashCache, RunningHashes
from blobstore.interface import BlobName, BlobStoreError, NoSpace, UploadBusy, UploadMissing
from blobstore.locking import lock_exclusively
from blobstore.staging import DiskUpload
from domain.digests import digest_of, new_hash
from domain.names import InvalidName, UploadId
from tests.blobstore.contract import UPLOAD, write, write_unrecorded

MARK = (7, 1_767_225_600_000_000_000)
MIB = 1024 * 1024

HOLD = """
import sys
from pathlib import Path
from blobstore.disk import DiskBlobStore
with DiskBlobStore(Path(sys.argv[1])).open(sys.argv[2], 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def count_rereads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    reread = DiskUpload._reread

    def counted(self: DiskUpload, take: Callable[[bytes], object]) -> None:
        made.append(self.size)
        reread(self, take)

    monkeypatch.setattr(DiskUpload, "_reread", counted)
    return made


def test_chunks_join_into_one_blob_and_are_hashed_only_once(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rereads = count_rereads(monkeypatch)
    store.create(UPLOAD)
    write(store, 0, b"one ")
    write(store, 4, b"two ")
    with store.open(UPLOAD, 8) as staged:
        staged.write(b"three")
        assert staged.size == 13
        assert staged.digest("sha256") == digest_of("sha256", b"one two three")
    assert rereads == []


def test_a_large_body_is_hashed_beside_the_writing_in_order(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rereads = count_rereads(monkeypatch)
    blocks = [bytes([number]) * (MIB + number) for number in range(12)]
    store.create(UPLOAD)
    with store.open(UPLOAD, 0, "sha512") as staged:
        for block in blocks:
            staged.write(block)
        for algorithm in ("sha256", "sha512"):
            assert staged.digest(algorithm) == digest_of(algorithm, b"".join(blocks))
    assert rereads == []
    assert not [each for each in threading.enumerate() if each.name.startswith("hash")]


def test_a_small_body_costs_no_thread(store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object, **__: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr("blobstore.staging.ThreadPoolExecutor", no_thread)
    store.create(UPLOAD)
    write(store, 0, b"x" * MIB)


def test_after_a_refused_chunk_hashing_goes_on_from_the_recorded_bytes(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rereads = count_rereads(monkeypatch)
    store.create(UPLOAD)
    write(store, 0, b"kept ")
    write_unrecorded(store, 5, b"lost")
    with store.open(UPLOAD, 5) as staged:
        staged.write(b"again")
        assert staged.digest("sha256") == digest_of("sha256", b"kept again")
    assert rereads == []


@contextmanager
def held_by_another_process(data: Path) -> Iterator[None]:
    """Let another process hold the session open during the block; it is killed at the end."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data), UPLOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_session_held_by_another_process_is_busy_until_that_is_killed(store: DiskBlobStore, data: Path) -> None:
    store.create(UPLOAD)
    with held_by_another_process(data), pytest.raises(UploadBusy), store.open(UPLOAD, 0):
        pass
    write(store, 0, b"free again")


def test_a_session_that_a_killed_writer_held_is_discarded(store: DiskBlobStore, data: Path) -> None:
    """As long as the writer lives, the file stays, whichever process discards it."""
    path = data / "uploads" / UPLOAD
    store.create(UPLOAD)
    with held_by_another_process(data):
        store.discard(UPLOAD)
        assert path.exists()
    store.discard(UPLOAD)
    assert not path.exists()


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another file of that name"])
@pytest.mark.parametrize("new", [False, True], ids=["begun", "new"])
def test_a_writer_whose_file_was_removed_by_hand_touches_no_other(
    store: DiskBlobStore, data: Path, again: bool, new: bool
) -> None:
    path = data / "uploads" / UPLOAD
    name = BlobName(digest_of("sha256", b"blob"), 0)
    store.create(UPLOAD)
    with store.open(UPLOAD, 0, new=new) as staged:
        staged.write(b"blob")
        path.unlink()
        if again:
            path.write_bytes(b"other")
        with pytest.raises(UploadMissing):
            staged.commit(name)
        staged.rollback(0)
    assert store.stat(name) is None
    assert path.exists() == again
    assert not again or path.read_bytes() == b"other"


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another file of that name"])
def test_a_session_committed_between_open_and_lock_is_missing(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """If it were not, the late writer would cut off or overwrite the blob."""
    store.create(UPLOAD)
    name = BlobName(digest_of("sha256", b"blob"), 0)
    patched = "blobstore.disk.lock_exclusively"

    def commit_first(descriptor: int) -> None:
        monkeypatch.setattr(patched, lock_exclusively)
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"blob")
            staged.commit(name)
        if again:
            store.create(UPLOAD)
        lock_exclusively(descriptor)

    monkeypatch.setattr(patched, commit_first)
    with pytest.raises(UploadMissing), store.open(UPLOAD, 0) as late:
        late.write(b"over it")
    assert b"".join(store.read(name, 0, 4)) == b"blob"


def test_a_full_disk_is_named_and_leaves_the_session_as_it_was(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(UPLOAD)
    write(store, 0, b"kept")
    pwrite = os.pwrite

    def half_then_full(descriptor: int, view: bytes, position: int) -> int:
        if position > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, view[:2], position)

    monkeypatch.setattr(os, "pwrite", half_then_full)
    with store.open(UPLOAD, 4) as staged:
        with pytest.raises(NoSpace):
            staged.write(b" and more")
        assert staged.digest("sha256") == digest_of("sha256", b"kept a")
        staged.rollback(4)
        assert staged.digest("sha256") == digest_of("sha256", b"kept")


def test_a_failing_disk_is_one_of_the_stores_own_errors(store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.create(UPLOAD)
    monkeypatch.setattr(os, "fdatasync", fail)
    with store.open(UPLOAD, 0) as staged:
        staged.write(b"one")
        with pytest.raises(BlobStoreError, match="Input/output"):
            staged.sync()


def test_only_sessions_unchanged_since_the_moment_are_stale(store: DiskBlobStore, data: Path) -> None:
    now = datetime.now(UTC)
    young = UploadId("c3" * 16)
    store.create(UPLOAD)
    store.create(young)
    (data / "uploads" / "README").write_bytes(b"not a session")
    long_ago = (now - timedelta(days=2)).timestamp()
    for name in (UPLOAD, "README"):
        os.utime(data / "uploads" / name, (long_ago, long_ago))
    assert list(store.stale(now - timedelta(days=1))) == [UPLOAD]


def test_a_stale_file_goes_unless_it_is_held_or_was_changed_since(store: DiskBlobStore, data: Path) -> None:
    """A file that a sweep has found may be in use again when the sweep removes it."""
    before = datetime.now(UTC) - timedelta(days=1)
    path = data / "uploads" / UPLOAD
    store.create(UPLOAD)
    assert not store.discard_stale(UPLOAD, before), "changed since"
    os.utime(path, (0, 0))
    with store.open(UPLOAD, 0):
        assert not store.discard_stale(UPLOAD, before), "held"
    assert path.exists()
    assert store.discard_stale(UPLOAD, before)
    assert not path.exists()
    assert not store.discard_stale(UPLOAD, before)


def test_the_file_of_a_new_session_is_made_and_goes_with_what_was_not_recorded(
    store: DiskBlobStore, data: Path
) -> None:
    with store.open(UPLOAD, 0, new=True) as staged:
        staged.write(b"refused")
        staged.rollback(0)
    assert list((data / "uploads").iterdir()) == []
    with store.open(UPLOAD, 0, new=True) as staged:
        staged.write(b"kept ")
        staged.sync()
    with store.open(UPLOAD, 5) as staged:
        staged.write(b"refused")
        staged.rollback(5)
    assert (data / "uploads" / UPLOAD).read_bytes() == b"kept "
    with store.open(UPLOAD, 0, new=True) as staged:
        assert not staged.ends_at_offset


def test_a_new_file_that_is_removed_before_it_is_locked_is_made_again(
    store: DiskBlobStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "uploads" / UPLOAD

    def lock(descriptor: int) -> None:
        monkeypatch.undo()
        path.unlink()
        lock_exclusively(descriptor)

    monkeypatch.setattr(disk, "lock_exclusively", lock)
    with store.open(UPLOAD, 0, new=True) as staged:
        staged.write(b"there")
    assert path.read_bytes() == b"there"


def test_hashes_of_a_file_never_vouch_for_another_one_of_its_name(store: DiskBlobStore, data: Path) -> None:
    """The other file is of a process that took the session to be new, made its file anew and was killed."""
    path = data / "uploads" / UPLOAD
    with store.open(UPLOAD, 0, new=True) as staged:
        staged.write(b"right")
        staged.sync()
    changed_at = path.stat().st_mtime_ns
    path.unlink()
    path.write_bytes(b"wrong")
    os.utime(path, ns=(changed_at + 1, changed_at + 1))
    with store.open(UPLOAD, 5) as staged:
        assert staged.digest("sha256") == digest_of("sha256", b"wrong")


@pytest.mark.parametrize("upload", ["../blobs/sha256", "short", "A" * 32, "a" * 32 + "\n", "a" * 65])
def test_no_path_is_made_of_anything_but_an_upload_id(store: DiskBlobStore, upload: str) -> None:
    for use in (store.create, store.discard):
        with pytest.raises(InvalidName):
            use(UploadId(upload))
    with pytest.raises(InvalidName), store.open(UploadId(upload), 0):
        pass


def test_running_hashes_are_bounded_and_the_oldest_goes_first() -> None:
    cache = HashCache(sessions_max=2)
    for session in ("one", "two", "three"):
        cache.give_back(session, RunningHashes(5, {"sha256": new_hash("sha256")}), MARK)
    assert cache.take("one", 5, "sha256", MARK) is None
    assert cache.take("two", 4, "sha256", MARK) is None
    assert cache.take("three", 5, "sha256", MARK) is not None


def test_a_large_body_is_written_while_it_arrives(store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked to write every byte once, in order, and bytes that were cut off and sent again once more."""
    advised: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def spy(descriptor: int, start: int, length: int, advice: int) -> None:
        advised.append((start, start + length))
        real(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", spy)
    monkeypatch.setattr(staging, "_WRITE_BEHIND_BYTES", 10)
    store.create(UPLOAD)
    with store.open(UPLOAD, 0) as staged:
        for _ in range(5):
            staged.write(b"sixsix")
        assert advised == [(0, 12), (12, 24)]
        staged.rollback(6)
        staged.write(b"another twelve")
        assert advised == [(0, 12), (12, 24), (6, 20)]
        assert staged.digest("sha256") == digest_of("sha256", b"sixsix" + b"another twelve")
