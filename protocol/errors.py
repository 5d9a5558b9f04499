"""Every error answer of the wire: a code, its status, and the JSON body that carries it (rule: errors are JSON)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """The error codes of distribution-spec and those that Docker's registry added to them."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    RANGE_INVALID = "RANGE_INVALID"
    SIZE_INVALID = "SIZE_INVALID"
    TAG_INVALID = "TAG_INVALID"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"


STATUS_OF_CODE = {
    Code.BLOB_UNKNOWN: 404,
    Code.BLOB_UPLOAD_INVALID: 400,
    Code.BLOB_UPLOAD_UNKNOWN: 404,
    Code.DENIED: 403,
    Code.DIGEST_INVALID: 400,
    Code.MANIFEST_BLOB_UNKNOWN: 404,
    Code.MANIFEST_INVALID: 400,
    Code.MANIFEST_UNKNOWN: 404,
    Code.NAME_INVALID: 400,
    Code.NAME_UNKNOWN: 404,
    Code.PAGINATION_NUMBER_INVALID: 400,
    Code.RANGE_INVALID: 416,
    Code.SIZE_INVALID: 400,
    Code.TAG_INVALID: 400,
    Code.TOOMANYREQUESTS: 429,
    Code.UNAVAILABLE: 503,
    Code.UNKNOWN: 500,
    Code.UNSUPPORTED: 405,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of the `errors` list."""

    code: Code
    message: str
    detail: object = None


class WireError(Exception):
    """A request that ends with an error answer. The status comes from the first problem unless one is given."""

    def __init__(
        self,
        *problems: Problem,
        status: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(problems[0].message)
        self.problems = problems
        self.status = status or STATUS_OF_CODE[problems[0].code]
        self.headers = tuple(headers)

    def body(self) -> bytes:
        """The JSON error body; never an empty list, since clients fail on one."""
        entries = [{"code": each.code.value, "message": each.message, "detail": each.detail} for each in self.problems]
        return json.dumps({"errors": entries}).encode()


def error(
    code: Code,
    message: str,
    detail: object = None,
    *,
    status: int | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> WireError:
    """A WireError with a single problem."""
    return WireError(Problem(code, message, detail), status=status, headers=headers)
