"""DELETE of a blob: the repository's link goes, the bytes stay (rule: bytes stay)."""

from command_api.context import Context
from command_api.refusals import refused
from domain.link import UnlinkBlob, decide_unlinking
from protocol.messages import Answer, Request, empty


def delete(context: Context, request: Request) -> Answer:
    """DELETE …/blobs/<digest>: 202, or 404 BLOB_UNKNOWN if the repository does not link it."""
    refusal = context.carry_out(request, decide_unlinking(UnlinkBlob(request.repository, request.digest)))
    if refusal is not None:
        raise refused(request, refusal)
    return empty(202)
