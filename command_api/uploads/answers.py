"""The answers about upload sessions: their state, and the errors of requests that they do not take."""

from protocol.errors import Code, WireError, error
from protocol.messages import Headers, Request
from protocol.ranges import uploaded_range


def session_headers(request: Request, offset: int) -> Headers:
    """The headers with the state of this request's session, under the id by which the request names it."""
    return headers_of(request.repository, request.route.reference, offset)


def headers_of(repository: str, name: str, offset: int) -> Headers:
    """The headers with the state of the session of this id: it has `offset` bytes."""
    return [
        ("Location", f"/v2/{repository}/blobs/uploads/{name}"),
        ("Range", uploaded_range(offset)),
        ("Docker-Upload-UUID", name),
    ]


def unknown_upload() -> WireError:
    """404 for a session that is not there, whatever the reason."""
    return error(Code.BLOB_UPLOAD_UNKNOWN, "no such upload session in this repository")


def out_of_order(request: Request, offset: int, message: str) -> WireError:
    """416 with the state of the session, so that the client can go on from there."""
    return error(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=session_headers(request, offset))
