"""Manifests that are nearly right: bytes of JSON with something wrong in them."""

import json
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2,
    1.5,
    2**63,
    10**300,
    "",
    "x",
    "\x00",
    "\ud800",
    "a" * 2000,
    [],
    [[]],
    {},
    {"a": {}},
    "sha256:" + "0" * 64,
)
NAMES = (
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "artifactType",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
    "Layers",
    "DIGEST",
    "other",
)
# Texts that no encoder writes: they go into the bytes as they are.
RAW_VALUES = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"-0",
    b"01",
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\xff"',
    b"[" * 5000,
    b'{"a":' * 70 + b"1" + b"}" * 70,
    b'{"a":1,"a":2}',
    b"'x'",
    b"",
)


def nearly_right(chance: Random, body: bytes) -> bytes:
    """The document with a wrong value, or with wrong bytes."""
    if chance.random() < 0.6:
        return _wrong_value(chance, json.loads(body))
    return _wrong_bytes(chance, body)


def _wrong_value(chance: Random, document: Any) -> bytes:
    holder = document
    while True:
        below = [each for each in (holder.values() if isinstance(holder, dict) else holder) if each and _holds(each)]
        if not below or chance.random() < 0.4:
            break
        holder = chance.choice(below)
    mark = "\x02"
    raw = chance.choice(RAW_VALUES) if chance.random() < 0.3 else None
    value = mark if raw is not None else chance.choice(ODD_VALUES)
    if isinstance(holder, list):
        holder[chance.randrange(len(holder))] = value
    elif chance.random() < 0.2:
        del holder[chance.choice(list(holder))]
    else:
        holder[chance.choice(NAMES) if chance.random() < 0.4 else chance.choice(list(holder))] = value
    made = json.dumps(document).encode()
    return made if raw is None else made.replace(json.dumps(mark).encode(), raw)


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _wrong_bytes(chance: Random, body: bytes) -> bytes:
    at = chance.randrange(len(body))
    match chance.randrange(9):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + chance.randbytes(1) + body[at + 1 :]
        case 2:
            return body[:at] + chance.choice(RAW_VALUES) + body[at:]
        case 3:
            return b"\xef\xbb\xbf" + body
        case 4:
            return body.decode().encode(chance.choice(("utf-16", "utf-32", "utf-16-le")))
        case 5:
            return body[:-1] + b',"layers":[]}'
        case 6:
            return chance.choice((b"", b"[]", b"null", b"2", b'"x"', b"{}", b"\x00", body + body, b"[" + body + b"]"))
        case 7:
            return body.replace(b'"size": ', b'"size": 1', 1)
        case _:
            return body + b" " * chance.choice((1, 1000, 100_000))
