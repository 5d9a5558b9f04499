"""One SQL statement that is asked very often: it is prepared once on each connection, by `BoundedConnection.ask`.

psycopg's cursors convert the placeholders, look for the statement among those that they prepared and make new adapters
each time; for a question that Postgres answers by an index probe that costs more than everything else together.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.adapt import PyFormat

Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]

_PLACEHOLDER = re.compile(r"%(?:\((?P<name>\w+)\)s|(?P<place>s)|(?P<percent>%)|(?P<wrong>.?))", re.DOTALL)
_numbers = itertools.count(1)


class Statement:
    """A statement with psycopg's placeholders, either all `%s` or all `%(name)s`; `%%` is a percent sign.

    The server finds the types of the parameters from where they stand, never from the values of the first call. So a
    parameter that stands where any type would do needs a cast.
    """

    __slots__ = ("_names", "name", "query", "text")

    def __init__(self, query: str) -> None:
        self.query = query
        self._names: list[str | None] = []
        self.name = b"tagtrail_%d" % next(_numbers)
        self.text = _PLACEHOLDER.sub(self._numbered, query).encode()

    def arranged(self, parameters: Parameters) -> Sequence[object]:
        """The values in the order of the placeholders. Raises KeyError or ValueError if they do not fit."""
        if isinstance(parameters, Mapping):
            return [parameters[name or ""] for name in self._names]
        if len(parameters) != len(self._names):
            raise ValueError(f"the statement takes {len(self._names)} parameters, not {len(parameters)}")
        return parameters

    def _numbered(self, found: re.Match[str]) -> str:
        if found["percent"]:
            return "%"
        if found["wrong"] is not None:
            raise ValueError(f"{found[0]!r} is no placeholder")
        name = found["name"]
        if name is None or name not in self._names:
            if self._names and (name is None) != (self._names[0] is None):
                raise ValueError("placeholders have all a name or none has")
            self._names.append(name)
            return f"${len(self._names)}"
        return f"${self._names.index(name) + 1}"


def formats_of(values: Sequence[object]) -> list[PyFormat]:
    """The values as they are sent: as text, which any type of parameter takes, but bytes unchanged."""
    return [PyFormat.BINARY if isinstance(each, bytes) else PyFormat.TEXT for each in values]
