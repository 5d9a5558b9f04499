"""A blob whose answer is kept: its file is looked at again soon, and bytes of another digest are never served."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from blobstore.interface import SEEN_FOR_S, BlobName
from blobstore.small import SMALL_BYTES_MAX
from domain.digests import digest_of
from domain.names import UploadId
from protocol.errors import WireError
from query_api.served_blob import ServedBlob

SIZES = [0, 1, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1]
UPLOAD = UploadId("a" * 40)


class Shelf:
    """One blob of a store, standing in a repository, and a clock that the test sets."""

    def __init__(self, folder: Path, store: DiskBlobStore, size: int) -> None:
        self.data = os.urandom(size)
        self.name = BlobName(digest_of("sha256", self.data), 0)
        self.store = store
        self.now = 1000.0
        self.put()
        self.blob = ServedBlob(self.store, self.name, size, "u/app", lambda: self.now)
        hexadecimal = self.name.digest.hex
        self.file = folder / "blobs" / "sha256" / hexadecimal[:2] / f"{hexadecimal}.0"

    def put(self) -> None:
        """Write the blob's file as a push does it, over another one if there is one."""
        self.store.create(UPLOAD)
        with self.store.open(UPLOAD, 0) as writer:
            writer.write(self.data)
            writer.commit(self.name)

    def ask(self, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """The status and the body of the answer to a request for the blob."""
        try:
            answer = self.blob.answer({"REQUEST_METHOD": method, **headers})
        except WireError as problem:
            return problem.status, b""
        return answer.status, _joined(answer.body)


def _joined(body: bytes | Iterable[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Shelf]:
    """A new blob of so many bytes, of one store for all tests."""
    folder = tmp_path_factory.mktemp("shelf")
    store = DiskBlobStore(folder)
    store.prepare()
    return lambda size: Shelf(folder, store, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_gone_is_404_once_it_was_looked_at(shelf: Callable[[int], Shelf], size: int) -> None:
    """It is 404 after SEEN_FOR_S at the latest, and served again when the file is back."""
    one = shelf(size)
    assert (one.ask("HEAD"), one.ask()) == ((200, b""), (200, one.data))
    one.file.unlink()
    one.now += SEEN_FOR_S - 0.001
    assert one.ask("HEAD") == (200, b"")
    # The bytes of a small blob are in memory; for a larger one the file is opened.
    assert one.ask() == ((200, one.data) if size <= SMALL_BYTES_MAX else (404, b""))
    one.now += 0.001
    assert (one.ask("HEAD"), one.ask()) == ((404, b""), (404, b""))
    one.put()
    assert (one.ask("HEAD"), one.ask()) == ((200, b""), (200, one.data))


@pytest.mark.parametrize("size", SIZES)
def test_an_answer_at_once_needs_nothing_of_the_disk(shelf: Callable[[int], Shelf], size: int) -> None:
    """It is given if the file was seen a moment ago and the bytes are in memory or not asked for."""
    one = shelf(size)

    def at_once(method: str, **headers: str) -> int | None:
        answer = one.blob.answer_at_once({"REQUEST_METHOD": method, **headers})
        return None if answer is None else answer.status

    assert [at_once("HEAD"), at_once("GET")] == [None, None]
    one.ask()
    small = size <= SMALL_BYTES_MAX
    assert [at_once("HEAD"), at_once("GET")] == [200, 200 if small else None]
    assert [at_once("HEAD", HTTP_IF_NONE_MATCH="*"), at_once("GET", HTTP_RANGE="bytes=0-0")] == [304, None]
    one.now += SEEN_FOR_S
    assert [at_once("HEAD"), at_once("GET")] == [None, None]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_small_blob_of_other_bytes_is_404_until_it_is_healed(
    shelf: Callable[[int], Shelf], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that pushes is then told that the blob is missing, and sends it again."""
    one = shelf(100)
    one.file.write_bytes(one.data[::-1])
    assert one.ask(method)[0] == 404
    assert (
        f"the file of blob {one.name.digest} does not hold the bytes of its digest, and u/app links it" in caplog.text
    )
    one.put()
    assert one.ask() == (200, one.data)


def test_bytes_that_were_right_when_they_were_kept_stay_right(shelf: Callable[[int], Shelf]) -> None:
    """Damage of the same size is not seen: the pushed bytes are served. A file that is cut short is seen."""
    one = shelf(100)
    assert one.ask() == (200, one.data)
    one.file.write_bytes(one.data[::-1])
    one.now += SEEN_FOR_S
    assert one.ask() == (200, one.data)
    one.file.write_bytes(one.data[:50])
    one.now += SEEN_FOR_S
    assert one.ask() == (404, b"")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=-1", "bytes=0-", "bytes=99999999-"])
def test_a_range_is_the_same_from_memory_and_from_the_file(
    shelf: Callable[[int], Shelf], size: int, asked: str
) -> None:
    """The ranges are one byte at either end, all bytes, and no byte."""
    one = shelf(size)
    expected = {"bytes=0-0": one.data[:1], "bytes=-1": one.data[-1:], "bytes=0-": one.data}.get(asked, b"")
    for _ in range(2):
        assert one.ask(HTTP_RANGE=asked) == ((206, expected) if expected else (416, b""))


@pytest.mark.parametrize("size", SIZES[2:])
def test_several_ranges_hold_their_bytes(shelf: Callable[[int], Shelf], size: int) -> None:
    """The parts are the same from memory and from the file."""
    one = shelf(size)
    for _ in range(2):
        status, body = one.ask(HTTP_RANGE="bytes=0-99,1000-1999")
        assert status == 206
        assert one.data[:100] in body
        assert one.data[1000:2000] in body


def test_only_small_blobs_take_memory(shelf: Callable[[int], Shelf]) -> None:
    """An entry of the cache is charged for its bytes."""
    assert [shelf(size).blob.kept_bytes for size in SIZES] == [0, 1, SMALL_BYTES_MAX, 0]
