"""Texts that are digests, and texts that are none."""

import hashlib

import pytest

from domain.digests import Digest, InvalidDigest, UnsupportedAlgorithm, digest_of, parse_digest

HEX = "a" * 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}a",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256:{HEX}\n",
        f"sha256:../../{HEX[:58]}",
        f"sha256:{'g' * 64}",
        f"sha512:{HEX}",
        f":{HEX}",
        f"sha256::{HEX}",
    ],
)
def test_malformed_text_is_no_digest(text: str) -> None:
    """Paths are made of digests, so nothing but the exact grammar may pass."""
    with pytest.raises(InvalidDigest):
        parse_digest(text)


@pytest.mark.parametrize("text", ["md5:" + "a" * 32, f"blake3:{HEX}", f"multihash+base58:{HEX}"])
def test_a_well_formed_unknown_algorithm_is_told_apart(text: str) -> None:
    """A read answers 404 for such a digest, a write 400."""
    with pytest.raises(UnsupportedAlgorithm):
        parse_digest(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_survives_its_text(algorithm: str) -> None:
    """The text of a digest is parsed to the same digest."""
    made = digest_of(algorithm, b"layer")
    assert made == Digest(algorithm, hashlib.new(algorithm, b"layer").hexdigest())
    assert parse_digest(str(made)) == made
