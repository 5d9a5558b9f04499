"""Reads If-Match, If-None-Match and If-Range. Our entity tags are digests."""


def etags(header: str | None) -> frozenset[str]:
    """The entity tags of a header as digests, without quotes and weakness marks; `*` is kept as it is."""
    if not header:
        return frozenset()
    return frozenset(each.strip().removeprefix("W/").strip().strip('"') for each in header.split(",") if each.strip())


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """True if a GET or HEAD of the entity is answered 304."""
    if if_none_match is None:
        return False
    tags = etags(if_none_match)
    return "*" in tags or etag in tags


def range_applies(if_range: str | None, etag: str) -> bool:
    """True if the Range of a GET counts (RFC 9110 section 13.1.5); otherwise the whole blob is the answer.

    The comparison is strong, so a weak entity tag never matches. Nor does a date, as no answer has Last-Modified.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'
