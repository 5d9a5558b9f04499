"""Ranges of downloads and of chunks."""

import pytest

from protocol.ranges import (
    ByteRange,
    InvalidChunkRange,
    Unsatisfiable,
    parse_chunk_range,
    parse_range,
    uploaded_range,
)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=500-1499", ByteRange(500, 1000)),
        ("bytes=500-", ByteRange(500, 1548)),
        ("bytes=-500", ByteRange(1548, 500)),
        ("bytes=-5000", ByteRange(0, 2048)),
        ("bytes=2000-5000", ByteRange(2000, 48)),
        ("Bytes = 1-2", ByteRange(1, 2)),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=-", None),
        ("bytes=x-y", None),
        ("", None),
    ],
)
def test_ranges_of_a_blob_of_2048_bytes(header: str | None, found: ByteRange | None) -> None:
    """None is the whole blob."""
    assert parse_range(header, 2048) == found


@pytest.mark.parametrize(
    "header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=" + "9" * 40 + "-"]
)
def test_unsatisfiable_ranges(header: str) -> None:
    """416, never the whole blob."""
    with pytest.raises(Unsatisfiable):
        parse_range(header, 2048)


def test_no_range_of_an_empty_blob_can_be_had() -> None:
    """Not even its first byte."""
    with pytest.raises(Unsatisfiable):
        parse_range("bytes=0-0", 0)


def test_a_chunk_range_counts_both_ends() -> None:
    """Length is end - start + 1."""
    assert parse_chunk_range("10-19") == ByteRange(10, 10)


@pytest.mark.parametrize("header", ["", "a-b", "5-4", "bytes 0-4/5", "-5", "5-", "0-4/5", "1" * 30 + "-2", "-1--2"])
def test_wrong_chunk_ranges(header: str) -> None:
    """The session answers 416."""
    with pytest.raises(InvalidChunkRange):
        parse_chunk_range(header)


@pytest.mark.parametrize(("offset", "header"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (100, "0-99")])
def test_the_range_of_a_session(offset: int, header: str) -> None:
    """D4: never absent, since docker scans two numbers from it."""
    assert uploaded_range(offset) == header
