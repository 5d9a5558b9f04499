"""JSON as I-JSON (RFC 7493), and of bounded depth, so that all readers agree on it (rule: strict JSON).

It is UTF-8 without duplicate names, NaN, NUL and lone surrogates.
"""

import json
import math
from typing import Any, NoReturn

DEPTH_MAX = 64


class InvalidJson(ValueError):
    """The bytes are not JSON that every reader would read alike."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; raises InvalidJson for anything else."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise InvalidJson("JSON must not begin with a byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InvalidJson("JSON must be UTF-8") from problem
    try:
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError as problem:
        raise InvalidJson("JSON is nested too deeply") from problem
    except ValueError as problem:
        raise InvalidJson(f"not JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise InvalidJson("JSON must be an object")
    _check(value, escapes=b"\\u" in data)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise InvalidJson("an object names a member twice")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("a number is too large")
    return value


def _check(top: dict[str, Any], *, escapes: bool) -> None:
    """Walk the value without recursion and check its depth, and its strings if escapes could have made bad ones."""
    waiting: list[tuple[Any, int]] = [(top, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if escapes:
                _check_text(value)
        elif isinstance(value, dict):
            if depth > DEPTH_MAX:
                raise InvalidJson("JSON is nested too deeply")
            if escapes:
                for name in value:
                    _check_text(name)
            waiting.extend((each, depth + 1) for each in value.values())
        elif isinstance(value, list):
            if depth > DEPTH_MAX:
                raise InvalidJson("JSON is nested too deeply")
            waiting.extend((each, depth + 1) for each in value)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise InvalidJson("a string holds NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidJson("a string holds a lone surrogate")
