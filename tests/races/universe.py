"""The blobs and manifests that the races push: so few that commands meet each other all the time."""

from dataclasses import dataclass

from tests.races.model import Manifest, image_of, index_of

TAGS = ("latest", "v1", "v2")
NAMES = ("a", "b")


@dataclass(frozen=True)
class Universe:
    """Blobs, and manifests over them: images, referrers of the first image, indexes."""

    blobs: tuple[bytes, ...]
    manifests: tuple[Manifest, ...]


def universe(salt: bytes = b"") -> Universe:
    """Things that nobody with another salt has; without one, the empty blob is among them."""
    blobs = (salt, salt + b"1", salt + b"2")
    first = image_of(blobs[0], [blobs[1]])
    second = image_of(blobs[2], [blobs[1], blobs[2]])
    referrers = (image_of(blobs[0], [], first), image_of(blobs[1], [blobs[0]], first))
    return Universe(blobs, (first, second, *referrers, index_of([first]), index_of([first, second])))
