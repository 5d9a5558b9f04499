"""The bytes of a body on their way into a staging file."""

import pytest

from blobstore.staging import DiskUpload
from command_api.receiving import GATHERED_BYTES, gathered
from tests.api import Registry, sha256

SIZES = [
    ([], []),
    ([16], [16]),
    ([16, 1024, 3056], [4096]),
    ([16, 1024, GATHERED_BYTES, 10, 20], [1040 + GATHERED_BYTES, 30]),
    ([GATHERED_BYTES, GATHERED_BYTES], [GATHERED_BYTES, GATHERED_BYTES]),
]


@pytest.mark.parametrize(("came", "written"), SIZES)
def test_small_blocks_are_joined_and_nothing_is_lost(came: list[int], written: list[int]) -> None:
    """Order and bytes stay; a block that is large enough is passed on as it is."""
    blocks = [bytes([number]) * size for number, size in enumerate(came)]
    made = list(gathered(blocks))
    assert [len(each) for each in made] == written
    assert b"".join(made) == b"".join(blocks)


def test_a_small_blob_is_written_at_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first bytes are read in very small blocks, because a slow client must be noticed."""
    sizes: list[int] = []
    write = DiskUpload.write

    def noted(upload: DiskUpload, block: bytes) -> None:
        sizes.append(len(block))
        write(upload, block)

    monkeypatch.setattr(DiskUpload, "write", noted)
    data = b"layer" * 800
    started = registry.post("/v2/u/app/blobs/uploads/")
    answer = registry.put(f"{started.headers['Location']}?digest={sha256(data)}", data=data)
    assert answer.status_code == 201
    assert sizes == [len(data)]
    assert registry.get(f"/v2/u/app/blobs/{sha256(data)}").data == data
