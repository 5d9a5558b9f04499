"""Metadata of an image from its config blob, which may be anything (rule: configs may be anything)."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

from domain.facts import Facts

_TEXT_MAX = 1024
_ENTRIES_MAX = 200
# The most for all labels together, and for the whole history.
_CHARACTERS_MAX = 32_768


def with_config(facts: Facts, config: bytes | None) -> Facts:
    """The facts with platform, creation time, labels and layer history, as far as the config has them."""
    values = _object(config)
    if values is None:
        return facts
    inner = values.get("config")
    labels = _lower(inner).get("labels") if isinstance(inner, dict) else None
    return replace(
        facts,
        platform=_platform(values),
        created=_text(values.get("created")),
        labels=_labels(labels),
        history=_history(values.get("history")),
    )


def _object(config: bytes | None) -> dict[str, Any] | None:
    if not config:
        return None
    try:
        value = json.loads(config.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return _lower(value) if isinstance(value, dict) else None


def _lower(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): each for name, each in value.items()}


def _text(value: Any) -> str | None:
    """The text, cut to a bounded length, without characters that a database or a page cannot show."""
    if not isinstance(value, str) or not value:
        return None
    shown = "".join(each for each in value[:_TEXT_MAX] if each != "\x00" and not "\ud800" <= each <= "\udfff")
    return shown or None


def _platform(values: Mapping[str, Any]) -> str | None:
    parts = [_text(values.get(name)) for name in ("os", "architecture", "variant")]
    return "/".join(each[:64] for each in parts if each) or None


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    pairs = [(_text(name), _text(each)) for name, each in list(value.items())[:_ENTRIES_MAX]]
    named = [(name, each or "") for name, each in pairs if name]
    return dict(named[: _fitting(len(name) + len(each) for name, each in named)])


def _history(value: Any) -> tuple[str, ...]:
    """The commands that made the layers, without the marker that `docker build` puts before metadata steps."""
    if not isinstance(value, list):
        return ()
    steps = []
    for each in value[:_ENTRIES_MAX]:
        text = _text(_lower(each).get("created_by")) if isinstance(each, dict) else None
        if text:
            steps.append(text.rpartition("#(nop) ")[2].strip())
    named = [step for step in steps if step]
    return tuple(named[: _fitting(map(len, named))])


def _fitting(lengths: Iterable[int]) -> int:
    """The number of texts from the first on that are not too long together."""
    return sum(total <= _CHARACTERS_MAX for total in accumulate(lengths))
