"""Digests: `algorithm:hex`, parsed once at the edge and trusted afterwards (OCI image-spec descriptor.md)."""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LOWER_HEX = re.compile(r"[0-9a-f]+")

ALGORITHMS = tuple(_HEX_LENGTH)
DEFAULT_ALGORITHM = "sha256"


class InvalidDigest(ValueError):
    """The text is not a digest, or its encoded part does not fit its algorithm."""


class UnsupportedAlgorithm(InvalidDigest):
    """A well-formed digest of an algorithm that this registry does not compute."""


class Hash(Protocol):
    """The part of a hashlib object that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """The lower-case hex digest of what was taken so far."""

    def copy(self) -> "Hash":
        """An independent hash at the same state."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A validated digest of a supported algorithm; `hex` is lower case and of the algorithm's length."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def parse_digest(text: str) -> Digest:
    """The digest that `text` spells.

    Raises InvalidDigest for malformed text and UnsupportedAlgorithm for a well-formed unknown algorithm.
    """
    if not _GRAMMAR.fullmatch(text):
        raise InvalidDigest(f"not a digest: {text[:200]!r}")
    algorithm, _, encoded = text.partition(":")
    length = _HEX_LENGTH.get(algorithm)
    if length is None:
        raise UnsupportedAlgorithm(f"unsupported digest algorithm: {algorithm[:64]!r}, use sha256 or sha512")
    if len(encoded) != length or not _LOWER_HEX.fullmatch(encoded):
        raise InvalidDigest(f"a {algorithm} digest has {length} lower-case hex digits")
    return Digest(algorithm, encoded)


def new_hash(algorithm: str) -> Hash:
    """An empty hash of a supported algorithm; raises UnsupportedAlgorithm."""
    if algorithm not in _HEX_LENGTH:
        raise UnsupportedAlgorithm(f"unsupported digest algorithm: {algorithm[:64]!r}, use sha256 or sha512")
    return hashlib.new(algorithm)


def digest_of(algorithm: str, data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
