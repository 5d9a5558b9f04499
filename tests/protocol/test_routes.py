"""A path leads to a route by its rightmost match."""

import pytest

from protocol.routes import Kind, Route, parse_path

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/", Route(Kind.BASE)),
        ("/v2", Route(Kind.BASE)),
        ("/v2/_catalog", Route(Kind.CATALOG)),
        ("/v2/_oci/ext/discover", Route(Kind.DISCOVER)),
        ("/v2/a/b/_oci/ext/discover", Route(Kind.DISCOVER, "a/b")),
        ("/v2/a/tags/list", Route(Kind.TAGS, "a")),
        ("/v2/tags/list/tags/list", Route(Kind.TAGS, "tags/list")),
        ("/v2/a/manifests/tags/list", Route(Kind.TAGS, "a/manifests")),
        ("/v2/a/manifests/v1", Route(Kind.MANIFEST, "a", "v1")),
        ("/v2/a/blobs/manifests/v1", Route(Kind.MANIFEST, "a/blobs", "v1")),
        ("/v2/manifests/manifests/manifests", Route(Kind.MANIFEST, "manifests", "manifests")),
        (f"/v2/a/blobs/{D}", Route(Kind.BLOB, "a", D)),
        ("/v2/a/blobs/uploads", Route(Kind.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/", Route(Kind.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/xyz", Route(Kind.UPLOAD, "a", "xyz")),
        ("/v2/blobs/uploads/blobs/uploads/xyz", Route(Kind.UPLOAD, "blobs/uploads", "xyz")),
        (f"/v2/a/blobs/uploads/manifests/{D}", Route(Kind.MANIFEST, "a/blobs/uploads", D)),
        (f"/v2/a/referrers/{D}", Route(Kind.REFERRERS, "a", D)),
        ("/v2/../x/tags/list", Route(Kind.TAGS, "../x")),
    ],
)
def test_a_known_path_gives_its_route_by_the_rightmost_match(path: str, route: Route) -> None:
    """The route does not judge names: handlers do that."""
    assert parse_path(path) == route


@pytest.mark.parametrize("path", ["/", "/v1/", "/v2x", "/v2/a", "/v2/a/b", "/v2/a/tags", "/v2/a/tags/list/", ""])
def test_an_unknown_path_gives_no_route(path: str) -> None:
    """They answer 404."""
    assert parse_path(path) is None
