"""The rules that every answer must keep, whatever was asked."""

import json
import re
from collections.abc import Mapping

_CODE = re.compile(r"[A-Z_]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def fault_of(method: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """The fault of an answer of the application, None if it has none; header names are in lower case."""
    if not 200 <= status < 500:
        return f"status {status}"
    if any(_CONTROLS.search(each) for each in headers.values()):
        return "a header holds a control character"
    if headers.get("docker-distribution-api-version") != "registry/2.0" or "x-request-id" not in headers:
        return "a header that every answer has is missing"
    if (method == "HEAD" or status in (204, 304)) and body:
        return "a body where none may be"
    if method != "HEAD" and status not in (204, 304) and headers.get("content-length") != str(len(body)):
        return f"Content-Length {headers.get('content-length')} for {len(body)} bytes"
    return _fault_of_error(method, status, headers, body) if status >= 400 else None


def _fault_of_error(method: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Errors have the specification's shape, and no cache may keep them."""
    if headers.get("content-type") != "application/json" or headers.get("cache-control") != "no-store":
        return "an error's Content-Type or Cache-Control is wrong"
    if status == 405 and "allow" not in headers:
        return "405 without Allow"
    if status == 429 and "retry-after" not in headers:
        return "429 without Retry-After"
    if method == "HEAD":
        return None
    errors = json.loads(body)["errors"]
    if not errors or not all(_CODE.fullmatch(each["code"]) and each["message"] and "detail" in each for each in errors):
        return "the body is no list of errors"
    return None
