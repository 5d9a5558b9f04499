"""If-Match, If-None-Match and If-Range: entity tags that are digests."""


def etags(header: str | None) -> frozenset[str]:
    """The entity tags of a header, quoted or bare, as digests without a weakness mark; `*` stands for itself."""
    if not header:
        return frozenset()
    return frozenset(each.strip().removeprefix("W/").strip().strip('"') for each in header.split(",") if each.strip())


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether a GET or HEAD of the entity answers 304."""
    if if_none_match is None:
        return False
    tags = etags(if_none_match)
    return "*" in tags or etag in tags


def range_applies(if_range: str | None, etag: str) -> bool:
    """True if the Range of a GET counts (RFC 9110 section 13.1.5); otherwise the whole is the answer.

    The comparison is strong: a weak entity tag never matches. Nor does a date: no answer carries Last-Modified.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'
