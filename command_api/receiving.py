"""A request body into a staging file or into memory, its failures as answers of the wire."""

import io
from collections.abc import Iterable, Iterator

from blobstore.interface import StagedUpload
from command_api.bodies import BodyIncomplete, BodyTooSlow, has_body, read_body
from command_api.context import Context
from protocol.errors import Code, WireError, error
from protocol.gates import TooMany
from protocol.messages import Request

_RETRY_AFTER_S = 5
# A body comes in very small blocks at first, until its client has shown its pace (bodies.py).
GATHERED_BYTES = 32 * 1024


def blocks(context: Context, request: Request) -> Iterator[bytes]:
    """The body, block by block, within the limits of rate and number of open bodies.

    Raises 408 for a body that comes too slowly, 429 for too many open bodies, 400 SIZE_INVALID for one that ends
    before its Content-Length.
    """
    if not has_body(request.environ):
        return
    try:
        with context.body_gate.inside(request.address):
            yield from read_body(request.environ, context.body_limits)
    except TooMany as problem:
        raise error(
            Code.TOOMANYREQUESTS,
            "too many request bodies are open",
            headers=[("Retry-After", str(_RETRY_AFTER_S))],
        ) from problem
    except BodyTooSlow as problem:
        raise error(Code.BLOB_UPLOAD_INVALID, str(problem), status=408, headers=[("Connection", "close")]) from problem
    except BodyIncomplete as problem:
        raise error(Code.SIZE_INVALID, "the body ended before its Content-Length") from problem


def receive(context: Context, request: Request, writer: StagedUpload, *, exactly: int | None = None) -> int:
    """Write the body behind what the session has; answers its length in bytes.

    With `exactly`, any other length is 400 SIZE_INVALID; the caller rolls the session back.
    """
    received = 0
    for block in gathered(blocks(context, request)):
        received += len(block)
        if exactly is not None and received > exactly:
            raise error(Code.SIZE_INVALID, f"the body is longer than its Content-Range of {exactly} bytes")
        with context.work_gate:
            writer.write(block)
    if exactly is not None and received != exactly:
        raise error(Code.SIZE_INVALID, f"the body has {received} bytes, its Content-Range {exactly}")
    return received


def gathered(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in blocks of at least GATHERED_BYTES as long as there are so many: each is written by itself."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= GATHERED_BYTES:
            yield block if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def read_manifest(context: Context, request: Request) -> bytes:
    """The whole body, at most the manifest limit; raises 413 MANIFEST_INVALID beyond it, without reading on."""
    limit = context.limits.manifest_bytes_max
    announced = request.environ.get("CONTENT_LENGTH") or ""
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    made = io.BytesIO()
    for block in blocks(context, request):
        made.write(block)
        if made.tell() > limit:
            raise _too_large(limit)
    return made.getvalue()


def _too_large(limit: int) -> WireError:
    return error(Code.MANIFEST_INVALID, f"a manifest has at most {limit} bytes", status=413)
