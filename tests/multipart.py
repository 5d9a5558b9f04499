"""Reads multipart/byteranges strictly as RFC 9110 (section 14.6) and the grammar of RFC 2046 define it."""

TYPE = "multipart/byteranges; boundary="


def split(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """The headers and the bytes of each part; fails if the body is not well formed."""
    assert content_type.startswith(TYPE), content_type
    boundary = content_type.removeprefix(TYPE)
    before, *pieces, end = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
    assert (before, end) == (b"", b"--\r\n")
    return [_part(each) for each in pieces]


def _part(piece: bytes) -> tuple[dict[str, str], bytes]:
    head, empty, data = piece.partition(b"\r\n\r\n")
    assert empty
    first, *lines = head.decode().split("\r\n")
    assert first == ""
    return dict(line.split(": ", 1) for line in lines), data
