"""Headers that name ranges of a download or of a chunk give exactly the bytes that RFC 9110 says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ranges import (
    RANGES_MAX,
    ByteRange,
    InvalidChunkRange,
    Unsatisfiable,
    parse_chunk_range,
    parse_ranges,
    uploaded_range,
)

WHOLE = None
SIZE = 2048


def parts(*ends: tuple[int, int]) -> tuple[ByteRange, ...]:
    """Ranges by their first and last bytes."""
    return tuple(ByteRange(first, last - first + 1) for first, last in ends)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, WHOLE),
        ("bytes=0-0", parts((0, 0))),
        ("bytes=500-1499", parts((500, 1499))),
        ("bytes=500-", parts((500, 2047))),
        ("bytes=-500", parts((1548, 2047))),
        ("bytes=-5000", parts((0, 2047))),
        ("bytes=2000-5000", parts((2000, 2047))),
        ("bytes=2000-" + "9" * 40, parts((2000, 2047))),
        ("bytes=-" + "9" * 5000, parts((0, 2047))),
        ("bytes=" + "0" * 5000 + "1-2", parts((1, 2))),
        ("Bytes = 1-2", parts((1, 2))),
        # Several.
        ("bytes=0-1,3-4", parts((0, 1), (3, 4))),
        ("bytes=3-4,0-1", parts((0, 1), (3, 4))),
        ("bytes=0-1, 3-4 ,\t6-", parts((0, 1), (3, 4), (6, 2047))),
        ("bytes=,0-1,,3-4,", parts((0, 1), (3, 4))),
        ("bytes=0-1,-1", parts((0, 1), (2047, 2047))),
        # One, in the end.
        ("bytes=0-1,2-4", parts((0, 4))),
        ("bytes=2-4,0-1", parts((0, 4))),
        ("bytes=0-10,5-7", parts((0, 10))),
        ("bytes=0-10,0-10,0-10", parts((0, 10))),
        ("bytes=0-,5-7", parts((0, 2047))),
        ("bytes=0-2047,-5", parts((0, 2047))),
        # Some of them name nothing.
        ("bytes=0-1,5000-", parts((0, 1))),
        ("bytes=-0,0-1,9-5", parts((0, 1))),
        # Broken or not understood.
        ("items=0-1", WHOLE),
        ("bytes", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=,", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=1", WHOLE),
        ("bytes=x-y", WHOLE),
        ("bytes=0-1;3-4", WHOLE),
        ("bytes=0-1,x", WHOLE),
        ("bytes=0-1,-", WHOLE),
        ("bytes=0-1,bytes=3-4", WHOLE),
        ("bytes=0-1-2", WHOLE),
        ("bytes=+0-1", WHOLE),
        ("bytes=\u0663-\u0664", WHOLE),
        ("", WHOLE),
    ],
)
def test_a_header_gives_the_parts_that_it_asks_for(header: str | None, found: tuple[ByteRange, ...] | None) -> None:
    """The parts ascend, and those that overlap or touch are merged; a set that is broken anywhere gets the whole."""
    assert parse_ranges(header, SIZE) == found


@pytest.mark.parametrize(
    "header",
    [
        "bytes=500-0",
        "bytes=5000-10000",
        "bytes=2048-",
        "bytes=-0",
        "bytes=" + "9" * 40 + "-",
        "bytes=5000-,2048-2048,-0,9-5",
    ],
)
def test_ranges_that_name_no_byte_are_refused(header: str) -> None:
    """The answer is 416 and never the whole blob."""
    with pytest.raises(Unsatisfiable):
        parse_ranges(header, SIZE)


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=-5", "bytes=0-,1-"])
def test_no_range_of_an_empty_blob_can_be_had(header: str) -> None:
    """Even a range of its first byte is refused."""
    with pytest.raises(Unsatisfiable):
        parse_ranges(header, 0)


@pytest.mark.parametrize(("number", "parts_found"), [(RANGES_MAX, RANGES_MAX), (RANGES_MAX + 1, None)])
def test_a_set_of_ranges_has_a_greatest_number(number: int, parts_found: int | None) -> None:
    """One range more gives the whole blob, even if few parts would remain. Empty elements do not count."""
    spread = "bytes=" + ",,".join(f"{each * 2}-{each * 2}" for each in range(number))
    same = "bytes=" + ",".join(["5-6"] * number)
    found = [parse_ranges(header, 10**6) for header in (spread, same)]
    assert [each and len(each) for each in found] == [parts_found, parts_found and 1]


NUMBERS = st.integers(0, 40)
SPECS = st.one_of(
    st.tuples(NUMBERS, NUMBERS),
    st.tuples(NUMBERS, st.none()),
    st.tuples(st.none(), NUMBERS),
)


def named(first: int | None, last: int | None, data: bytes) -> set[int]:
    """The positions of the bytes that a range names, found byte by byte as the RFC defines it."""
    if first is None:
        assert last is not None
        return {position for position in range(len(data)) if position >= len(data) - last}
    return {position for position in range(len(data)) if position >= first and (last is None or position <= last)}


@given(
    data=st.binary(max_size=32),
    specs=st.lists(SPECS, min_size=1, max_size=8),
    separator=st.sampled_from([",", ", ", " ,\t", ",,"]),
)
def test_the_parts_are_the_bytes_that_were_asked_for(
    data: bytes, specs: list[tuple[int | None, int | None]], separator: str
) -> None:
    """The parts have each byte that any range names, once and in order, and no two parts touch."""
    texts = [f"{'' if first is None else first}-{'' if last is None else last}" for first, last in specs]
    positions = sorted(set().union(*(named(first, last, data) for first, last in specs)))
    try:
        found = parse_ranges("bytes=" + separator.join(texts), len(data))
    except Unsatisfiable:
        found = ()
    assert found is not None
    assert b"".join(data[each.start : each.start + each.length] for each in found) == bytes(data[p] for p in positions)
    assert all(before.last + 1 < after.start for before, after in pairwise(found))
    assert all(each.length > 0 for each in found)


def test_a_chunk_range_counts_both_ends() -> None:
    """Length is end - start + 1."""
    assert parse_chunk_range("10-19") == ByteRange(10, 10)


@pytest.mark.parametrize("header", ["", "a-b", "5-4", "bytes 0-4/5", "-5", "5-", "0-4/5", "1" * 30 + "-2", "-1--2"])
def test_a_wrong_chunk_range_is_refused(header: str) -> None:
    """The session answers 416."""
    with pytest.raises(InvalidChunkRange):
        parse_chunk_range(header)


@pytest.mark.parametrize(("offset", "header"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (100, "0-99")])
def test_a_session_says_how_far_it_stands_in_its_range(offset: int, header: str) -> None:
    """The header is never absent, because docker scans two numbers from it."""
    assert uploaded_range(offset) == header
