"""The promises of `blobstore.interface`, as tests that every blob store passes: subclass, and give the two stores."""

import contextlib

import pytest

from blobstore.interface import BlobMissing, BlobName, BlobStore, UploadBusy, UploadMissing
from blobstore.pace import WHOLE_BYTES_MAX
from domain.digests import digest_of
from domain.names import UploadId

UPLOAD = UploadId("a1" * 16)
LARGE = bytes(range(256)) * 4 * 2048 + b"end"


class Refused(Exception):
    """The log did not take the chunk."""


def put(store: BlobStore, content: bytes, generation: int = 0, algorithm: str = "sha256") -> BlobName:
    """Upload and commit these bytes; answers the name of the blob."""
    name = BlobName(digest_of(algorithm, content), generation)
    store.create(UPLOAD)
    with store.open(UPLOAD, 0, algorithm) as staged:
        staged.write(content)
        assert staged.digest(algorithm) == name.digest
        staged.commit(name)
    return name


def write(store: BlobStore, offset: int, block: bytes) -> None:
    """Write a chunk that the log takes."""
    with store.open(UPLOAD, offset) as staged:
        staged.write(block)
        staged.sync()


def write_unrecorded(store: BlobStore, offset: int, block: bytes) -> None:
    """Write a chunk that the log refuses afterwards."""
    with contextlib.suppress(Refused), store.open(UPLOAD, offset) as staged:
        staged.write(block)
        staged.sync()
        raise Refused


def assert_staged(store: BlobStore, content: bytes) -> None:
    """Check that the session has staged these bytes and no more."""
    assert store.staged(UPLOAD) == len(content)
    with store.open(UPLOAD, len(content)) as staged:
        assert staged.ends_at_offset
        assert staged.digest("sha256") == digest_of("sha256", content)


class BlobStoreContract:
    """A subclass gives two fixtures: `store`, prepared and empty, and `other`, the same storage for another process."""

    @pytest.mark.parametrize("content", [b"", b"a", LARGE], ids=["empty", "one byte", "large"])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_a_committed_blob_is_read_back(self, store: BlobStore, content: bytes, algorithm: str) -> None:
        name = put(store, content, algorithm=algorithm)
        assert store.stat(name) == len(content)
        assert b"".join(store.read(name, 0, len(content))) == content

    def test_a_part_is_read_from_where_it_starts(self, store: BlobStore) -> None:
        name = put(store, LARGE)
        assert b"".join(store.read(name, 5, 7)) == LARGE[5:12]
        assert b"".join(store.read(name, 3, WHOLE_BYTES_MAX + 10)) == LARGE[3 : WHOLE_BYTES_MAX + 13]

    def test_a_small_blob_is_read_whole_only_within_the_limit(self, store: BlobStore) -> None:
        name = put(store, b"config")
        assert store.read_small(name, 6) == b"config"
        assert store.read_small(name, 5) is None
        assert store.read_small(BlobName(name.digest, 9), 6) is None

    def test_deleting_removes_one_generation_and_may_be_repeated(self, store: BlobStore) -> None:
        first, second = put(store, b"layer", 0), put(store, b"layer", 1)
        store.delete(first)
        store.delete(first)
        assert store.stat(first) is None
        assert store.stat(second) == 5

    def test_an_algorithm_that_nobody_announced_is_computed_from_the_file(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"layer")
            assert staged.digest("sha512") == digest_of("sha512", b"layer")

    def test_another_process_continues_a_session(self, store: BlobStore, other: BlobStore) -> None:
        """The other process has not seen the first chunk, and yet its digest is that of all bytes."""
        store.create(UPLOAD)
        write(store, 0, b"here, ")
        with other.open(UPLOAD, 6) as staged:
            staged.write(b"there")
            assert staged.digest("sha256") == digest_of("sha256", b"here, there")

    def test_hashes_of_bytes_that_the_log_refused_never_vouch_for_other_bytes(
        self, store: BlobStore, other: BlobStore
    ) -> None:
        """Two processes: the first hashes a chunk that is refused, the second writes another one of the same length."""
        store.create(UPLOAD)
        write_unrecorded(store, 0, b"promised")
        write(other, 0, b"smuggled")
        with store.open(UPLOAD, 8) as staged:
            assert staged.digest("sha256") == digest_of("sha256", b"smuggled")

    def test_bytes_behind_the_logged_offset_are_cut_off(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        write(store, 0, b"logged" + b"crash left this")
        write(store, 6, b"!")
        assert_staged(store, b"logged!")

    def test_commit_and_digest_count_only_what_is_before_the_offset(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        write(store, 0, b"logged" + b"crash left this")
        name = BlobName(digest_of("sha256", b"logged"), 0)
        with store.open(UPLOAD, 6) as staged:
            assert staged.digest("sha256") == name.digest
            staged.commit(name)
        assert store.stat(name) == 6

    def test_a_writer_whose_offset_is_outdated_destroys_nothing(self, store: BlobStore) -> None:
        """A writer read the log, another one moved the session on, then the first got the lock and sees that."""
        store.create(UPLOAD)
        write(store, 0, b"acknowledged")
        with pytest.raises(Refused), store.open(UPLOAD, 0):
            raise Refused
        assert_staged(store, b"acknowledged")

    def test_rolling_back_restores_bytes_and_hash(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        write(store, 0, b"kept")
        with store.open(UPLOAD, 4) as staged:
            staged.write(b" broken")
            staged.rollback(4)
            assert staged.size == 4
            assert staged.digest("sha256") == digest_of("sha256", b"kept")
            staged.write(b" good")
            staged.rollback(6)
            assert staged.digest("sha256") == digest_of("sha256", b"kept g")
        assert_staged(store, b"kept g")

    def test_only_one_writer_holds_a_session(self, store: BlobStore, other: BlobStore) -> None:
        store.create(UPLOAD)
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"mine")
            for loser in (store, other):
                with pytest.raises(UploadBusy), loser.open(UPLOAD, 0):
                    pass
            assert staged.digest("sha256") == digest_of("sha256", b"mine")
        write(store, 4, b"!")

    def test_a_session_without_its_bytes_is_missing(self, store: BlobStore) -> None:
        with pytest.raises(UploadMissing), store.open(UPLOAD, 0):
            pass
        store.create(UPLOAD)
        write(store, 0, b"12345")
        with pytest.raises(UploadMissing), store.open(UPLOAD, 6):
            pass

    @pytest.mark.parametrize("recorded", [0, 4])
    def test_discarding_a_session_that_is_written_gives_its_place_to_nobody(
        self, store: BlobStore, other: BlobStore, recorded: int
    ) -> None:
        """If the file went, a second writer could make it anew, and the first would commit the bytes of the second."""
        if recorded:
            store.create(UPLOAD)
            write(store, 0, b"righteous"[:recorded])
        name = BlobName(digest_of("sha256", b"righteous"), 0)
        with store.open(UPLOAD, recorded, new=not recorded) as first, contextlib.ExitStack() as late:
            first.write(b"righteous"[recorded:])
            for each in (other, store):
                each.discard(UPLOAD)
                with contextlib.suppress(UploadBusy):
                    late.enter_context(each.open(UPLOAD, 0, new=True)).write(b"wrong")
            first.commit(name)
        assert b"".join(store.read(name, 0, 9)) == b"righteous"
        assert store.staged(UPLOAD) is None

    def test_a_writer_takes_the_place_away_with_its_bytes(self, store: BlobStore, other: BlobStore) -> None:
        """A writer that finds its session ended does this; recorded bytes go too."""
        store.create(UPLOAD)
        write(store, 0, b"recorded")
        with store.open(UPLOAD, 8) as staged:
            staged.write(b"refused")
            other.discard(UPLOAD)
            assert other.staged(UPLOAD) == 15
            staged.remove()
        assert store.staged(UPLOAD) is None

    def test_a_refused_commit_moves_on_to_another_generation(self, store: BlobStore) -> None:
        """Neither another generation nor staged bytes are left."""
        store.create(UPLOAD)
        digest = digest_of("sha256", b"layer")
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"layer")
            for generation in (0, 0, 1):
                staged.commit(BlobName(digest, generation))
        assert store.stat(BlobName(digest, 0)) is None
        assert b"".join(store.read(BlobName(digest, 1), 0, 5)) == b"layer"
        assert store.staged(UPLOAD) is None

    def test_an_upload_never_loses_to_the_collectors_unlink(self, store: BlobStore) -> None:
        """The generation that was committed first is purged and unlinked before the append."""
        store.create(UPLOAD)
        digest = digest_of("sha256", b"layer")
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"layer")
            staged.commit(BlobName(digest, 0))
            store.delete(BlobName(digest, 0))
            staged.commit(BlobName(digest, 1))
        assert b"".join(store.read(BlobName(digest, 1), 0, 5)) == b"layer"
        assert store.staged(UPLOAD) is None

    def test_two_uploads_of_one_blob_that_are_both_refused_both_succeed(self, store: BlobStore) -> None:
        """Each renames over the other's file, then moves it to the next generation."""
        digest = digest_of("sha256", b"layer")
        other = UploadId("b2" * 16)
        store.create(UPLOAD)
        store.create(other)
        with store.open(UPLOAD, 0) as first, store.open(other, 0) as second:
            for staged in (first, second):
                staged.write(b"layer")
                staged.commit(BlobName(digest, 0))
            for staged in (first, second):
                staged.commit(BlobName(digest, 1))
        assert b"".join(store.read(BlobName(digest, 1), 0, 5)) == b"layer"

    def test_a_committed_blob_cannot_be_changed_by_its_writer(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        name = BlobName(digest_of("sha256", b"layer"), 0)
        with store.open(UPLOAD, 0) as staged:
            staged.write(b"layer")
            staged.commit(name)
            with pytest.raises(AssertionError):
                staged.write(b"more")
            with pytest.raises(AssertionError):
                staged.rollback(0)
        assert store.stat(name) == 5

    def test_discarding_may_be_repeated(self, store: BlobStore) -> None:
        store.create(UPLOAD)
        store.discard(UPLOAD)
        store.discard(UPLOAD)
        assert store.staged(UPLOAD) is None

    def test_a_missing_or_too_short_blob_is_told_at_the_call(self, store: BlobStore) -> None:
        name = put(store, b"layer")
        for missing, length in ((name, 6), (BlobName(name.digest, 1), 1)):
            with pytest.raises(BlobMissing):
                store.read(missing, 0, length)
        assert store.stat(BlobName(name.digest, 1)) is None

    def test_preparing_again_keeps_blobs_and_sessions(self, store: BlobStore) -> None:
        name = put(store, b"layer")
        store.create(UPLOAD)
        store.prepare()
        store.check()
        assert store.stat(name) == 5
        assert store.staged(UPLOAD) == 0

    def test_a_new_session_needs_no_place_and_leaves_none_if_nothing_of_it_is_recorded(self, store: BlobStore) -> None:
        with contextlib.suppress(Refused), store.open(UPLOAD, 0, new=True) as staged:
            staged.write(b"lost")
            staged.rollback(0)
            raise Refused
        assert store.staged(UPLOAD) is None
        with store.open(UPLOAD, 0, new=True) as staged:
            staged.write(b"kept")
            staged.sync()
        assert_staged(store, b"kept")
