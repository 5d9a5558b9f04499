"""Parses paths. Names of repositories may hold `blobs`, `tags` and the like (rule: rightmost match)."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """The kinds of things that paths under /v2/ name."""

    BASE = auto()
    CATALOG = auto()
    DISCOVER = auto()
    TAGS = auto()
    MANIFEST = auto()
    BLOB = auto()
    UPLOADS = auto()
    UPLOAD = auto()
    REFERRERS = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed path: `name` and `reference` are as sent, not yet validated."""

    kind: Kind
    name: str = ""
    reference: str = ""


_BY_PARENT = {"manifests": Kind.MANIFEST, "referrers": Kind.REFERRERS, "blobs": Kind.BLOB}
_WHOLE = {"_catalog": Kind.CATALOG, "_oci/ext/discover": Kind.DISCOVER}


def parse_path(path: str) -> Route | None:
    """The route of a decoded path, or None for a path that the protocol does not know."""
    if path in ("/v2/", "/v2"):
        return Route(Kind.BASE)
    if not path.startswith("/v2/"):
        return None
    rest = path[4:]
    whole = _WHOLE.get(rest)
    if whole is not None:
        return Route(whole)
    parts = rest.split("/")
    if len(parts) < 3:
        return None
    return _parse_parts(parts)


def _parse_parts(parts: list[str]) -> Route | None:
    if parts[-3:-1] == ["blobs", "uploads"]:
        kind = Kind.UPLOAD if parts[-1] else Kind.UPLOADS
        return Route(kind, "/".join(parts[:-3]), parts[-1])
    if parts[-2:] == ["blobs", "uploads"]:
        return Route(Kind.UPLOADS, "/".join(parts[:-2]))
    if parts[-2:] == ["tags", "list"]:
        return Route(Kind.TAGS, "/".join(parts[:-2]))
    kind_of_parent = _BY_PARENT.get(parts[-2])
    if kind_of_parent is not None:
        return Route(kind_of_parent, "/".join(parts[:-2]), parts[-1])
    if parts[-3:] == ["_oci", "ext", "discover"]:
        return Route(Kind.DISCOVER, "/".join(parts[:-3]))
    return None
