"""If-Match and If-None-Match: entity tags that are digests, quoted or bare (E6, M11)."""


def etags(header: str | None) -> frozenset[str]:
    """The entity tags of a header, without quotes and without the weakness mark; `*` stands for itself."""
    if not header:
        return frozenset()
    return frozenset(each.strip().removeprefix("W/").strip().strip('"') for each in header.split(",") if each.strip())


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether a GET or HEAD of the entity answers 304."""
    if if_none_match is None:
        return False
    tags = etags(if_none_match)
    return "*" in tags or etag in tags
