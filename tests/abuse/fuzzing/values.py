"""Values of every kind that a request can hold: right ones, nearly right ones, and ones that are far from it."""

from collections.abc import Callable, Sequence
from random import Random

from tests.api import sha256

Maker = Callable[[], str]

UNKNOWN = "sha256:" + "a" * 64
BAD_DIGESTS = (
    "",
    "sha256",
    "sha256:",
    ":" + "a" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "A" * 64,
    "SHA256:" + "a" * 64,
    "sha256:" + "g" * 64,
    "sha256::" + "a" * 64,
    "sha256:" + "a" * 64 + "\n",
    "sha256:../../" + "a" * 58,
    "sha256:" + "٣" * 64,
    "sha512:" + "a" * 64,
    "md5:" + "a" * 32,
    "blake3:" + "a" * 64,
    "multihash+base58:" + "a" * 64,
    "sha256:" + "a" * 5000,
    "@" + UNKNOWN,
)
BAD_NAMES = (
    "",
    "A",
    "..",
    ".",
    "../x",
    "a/../b",
    "a//b",
    "/a",
    "a/",
    "_upload",
    "a_",
    "a..b",
    "a___b",
    "-a",
    "a\n",
    "a\x00",
    "a b",
    "ä",
    "a" * 256,
    "a/" * 200,
    "a:b",
    "u/app@sha256",
    "\uff41",
    "\ud800",
)
BAD_TAGS = ("", ".a", "-a", "a\n", "a\x00", "a b", "a" * 129, "ä", "a/b", "v1%", "'; DROP TABLE", "\u202ev1")
NUMBERS = ("0", "1", "2", "100", "10001", "-1", "+1", "1.0", "1e3", "", " 1", "0x1", "٣", "9" * 19, "9" * 400, "NaN")
RANGES = (
    "bytes=0-0",
    "bytes=0-",
    "bytes=-1",
    "bytes=-0",
    "bytes=1-0",
    "bytes=9999999-",
    "bytes=0-1,3-4",
    "bytes=" + ",".join(["0-"] * 300),
    "bytes=-",
    "bytes",
    "bytes=",
    "items=0-1",
    "bytes=0-" + "9" * 400,
    "bytes=" + "9" * 5000 + "-",
    "bytes=٣-٤",
    "bytes = 0 - 1",
)
CHUNK_RANGES = (
    "0-0",
    "0-9",
    "1-0",
    "-1",
    "0-",
    "-",
    "bytes 0-9/10",
    "0-9/10",
    "0-9223372036854775807",
    "9223372036854775807-9223372036854775808",
    "9" * 19 + "-" + "9" * 19,
    "9" * 30 + "-" + "9" * 30,
    "0--1",
    "0-0,1-1",
    "٣-٤",
)
LENGTHS = ("0", "1", "-1", "+1", "x", "1,1", "", "99", "9223372036854775807", "18446744073709551615", "٣")
TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/html",
    "",
    ";;",
    'application/vnd.oci.image.manifest.v1+json; charset="',
    "APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON",
)
ODD = (
    "\x00",
    "\n",
    "\r\n",
    "/",
    "..",
    "%",
    "%00",
    "&",
    "=",
    ";",
    "#",
    "?",
    "'",
    '"',
    "\\",
    "ä",
    "\U0001f433",
    "\ufeff",
)


def spoil(chance: Random, text: str) -> str:
    """The text with something wrong in one place."""
    at = chance.randrange(len(text) + 1)
    match chance.randrange(8):
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + chance.choice(ODD) + text[at:]
        case 2:
            return text[:at]
        case 3:
            return text + text
        case 4:
            return text.swapcase()
        case 5:
            return text[:at] + chr(chance.randrange(0xD800)) + text[at:]
        case 6:
            return text[:at] + text[at:] * chance.choice((2, 20, 200))
        case _:
            return text[::-1]


def one_of(chance: Random, good: Sequence[str], bad: Sequence[str]) -> str:
    """Mostly a right value; otherwise a wrong one, a spoilt one, or noise."""
    draw = chance.random()
    if good and draw < 0.75:
        return chance.choice(good)
    if draw < 0.92 or not good:
        return chance.choice(bad)
    return spoil(chance, chance.choice(good))


def noise(chance: Random, length_max: int = 40) -> bytes:
    """Up to so many random bytes."""
    return chance.randbytes(chance.randrange(length_max))


def fresh_blob(chance: Random) -> tuple[bytes, str]:
    """Some bytes that hardly anybody has, and their digest."""
    data = chance.randbytes(chance.choice((0, 1, 100, 5000)))
    return data, sha256(data)
