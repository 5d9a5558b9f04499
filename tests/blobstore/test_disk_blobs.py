"""Committed blobs on the local disk: found, read, replaced, removed."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from blobstore.interface import BlobMissing, BlobName, BlobStoreError, BlobStoreUnusable, NoSpace
from blobstore.pace import FAST_BYTES, SMALL_BYTES, WHOLE_BYTES_MAX
from blobstore.reading import FileBlocks
from tests.blobstore.contract import LARGE, UPLOAD, put


def open_files(folder: Path) -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


def test_a_blob_lies_under_its_digest_and_generation_readable_to_its_owner_alone(
    store: DiskBlobStore, data: Path
) -> None:
    name = put(store, b"layer", generation=3)
    path = data / "blobs" / "sha256" / name.digest.hex[:2] / f"{name.digest.hex}.3"
    assert path.read_bytes() == b"layer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (data, data / "uploads", data / "blobs", path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list((data / "uploads").iterdir()) == []


def test_a_small_blob_comes_in_one_piece_and_a_large_one_in_bounded_blocks(store: DiskBlobStore) -> None:
    name = put(store, LARGE)
    assert store.read(name, 0, WHOLE_BYTES_MAX) == [LARGE[:WHOLE_BYTES_MAX]]
    blocks = list(store.read(name, 0, len(LARGE)))
    assert b"".join(blocks) == LARGE
    assert max(len(block) for block in blocks) <= FAST_BYTES


@pytest.mark.parametrize("length", [SMALL_BYTES, SMALL_BYTES + 1, WHOLE_BYTES_MAX, len(LARGE)])
def test_blocks_are_small_where_no_large_ones_are_wanted(store: DiskBlobStore, length: int) -> None:
    """A blob that would otherwise come in one piece is cut too: an answer with many parts holds several pieces."""
    blocks = list(store.read(put(store, LARGE), 0, length, large_blocks=False))
    assert b"".join(blocks) == LARGE[:length]
    assert max(len(block) for block in blocks) == SMALL_BYTES


def test_the_file_is_closed_at_the_end_or_when_the_reader_gives_up(store: DiskBlobStore, data: Path) -> None:
    name = put(store, LARGE)
    for _ in store.read(name, 0, len(LARGE)):
        pass
    assert open_files(data) == []
    given_up = store.read(name, 0, len(LARGE))
    assert isinstance(given_up, FileBlocks)
    next(given_up)
    assert len(open_files(data)) == 1
    given_up.close()
    assert open_files(data) == []


def test_a_missing_or_too_short_blob_is_noticed_at_the_call(store: DiskBlobStore, data: Path) -> None:
    name = put(store, LARGE)
    with pytest.raises(BlobMissing):
        store.read(name, 0, len(LARGE) + 1)
    other = BlobName(name.digest, 1)
    with pytest.raises(BlobMissing):
        store.read(other, 0, 1)
    assert store.stat(other) is None
    assert open_files(data) == []


def test_a_blob_that_is_cut_short_while_it_is_read_ends_with_an_error_not_early(
    store: DiskBlobStore, data: Path
) -> None:
    name = put(store, LARGE)
    blocks = iter(store.read(name, 0, len(LARGE)))
    next(blocks)
    os.truncate(data / "blobs" / "sha256" / name.digest.hex[:2] / f"{name.digest.hex}.0", 1)
    with pytest.raises(BlobStoreError):
        list(blocks)
    assert open_files(data) == []


def test_pushing_again_heals_a_damaged_file(store: DiskBlobStore, data: Path) -> None:
    """A commit renames over whatever is there."""
    name = put(store, b"whole")
    path = data / "blobs" / "sha256" / name.digest.hex[:2] / f"{name.digest.hex}.0"
    path.write_bytes(b"bad")
    assert put(store, b"whole") == name
    assert b"".join(store.read(name, 0, 5)) == b"whole"


def test_preparing_again_keeps_everything(store: DiskBlobStore, data: Path) -> None:
    name = put(store, b"layer")
    store.create(UPLOAD)
    store.prepare()
    assert store.stat(name) == 5
    assert [each.name for each in (data / "uploads").iterdir()] == [UPLOAD]
    assert [each.name for each in (data / "blobs").iterdir() if each.is_file()] == []


def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_bytes(b"")
    with pytest.raises(BlobStoreUnusable, match=r"data.*give --data"):
        DiskBlobStore(in_the_way).prepare()


def test_uploads_on_another_disk_than_blobs_are_refused(store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit renames files, which works on one disk only. The start finds that, and not the first push."""

    def rename(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(BlobStoreUnusable, match="cross-device"):
        store.prepare()


def test_the_check_says_what_is_wrong(
    store: DiskBlobStore, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.check()
    monkeypatch.setattr("blobstore.disk.FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(NoSpace, match="full"):
        store.check()
    shutil.move(data / "uploads", tmp_path / "elsewhere")
    with pytest.raises(BlobStoreUnusable, match="uploads is missing"):
        store.check()


def test_an_input_error_is_one_of_the_stores_own(store: DiskBlobStore, data: Path) -> None:
    name = put(store, b"layer")
    folder = data / "blobs" / "sha256" / name.digest.hex[:2]
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where a folder should be")
    with pytest.raises(BlobStoreError):
        store.stat(name)
    with pytest.raises(BlobStoreError):
        store.read(name, 0, 5)
