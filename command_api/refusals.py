"""The answers for commands that were refused: each reason of the domain as an error of the wire."""

from collections.abc import Iterable

from command_api.uploads.answers import out_of_order, unknown_upload
from domain.decision import Refusal
from domain.link import BlobUnknown
from domain.manifest import ManifestUnknown, SizeDiffers
from domain.preconditions import PreconditionFailed
from domain.references import NamedMissing
from domain.tag import TagUnknown
from domain.upload import OutOfOrder, UploadEnded
from protocol.errors import Code, Problem, WireError, error
from protocol.messages import Request

_REFERENCE_LENGTH_MAX = 200
_CONDITIONS = ("If-Match", "If-None-Match")


def refused(request: Request, refusal: Refusal) -> WireError:
    """The answer that tells why; 503 where the command was overtaken and may be tried again."""
    match refusal.reasons:
        case (NamedMissing(), *_):
            return _missing(each.digest for each in refusal.reasons if isinstance(each, NamedMissing))
        case (SizeDiffers(digest, size, named), *_):
            message = f"{digest} has {size} bytes, the manifest says {named}"
            return error(Code.SIZE_INVALID, message, {"digest": digest})
        case (ManifestUnknown(reference) | TagUnknown(reference), *_):
            return unknown_manifest(reference)
        case (BlobUnknown(digest), *_):
            return error(Code.BLOB_UNKNOWN, "no such blob in this repository", {"digest": digest})
        case (UploadEnded(), *_):
            return unknown_upload()
        case (OutOfOrder(offset), *_):
            return out_of_order(request, offset, f"the next chunk must start at {offset}")
        case (PreconditionFailed(), *_):
            given = {name: value for name in _CONDITIONS if (value := request.header(name)) is not None}
            return error(Code.DENIED, "the precondition does not hold", {"condition": given}, status=412)
        case ():
            return error(Code.UNAVAILABLE, "another request came first, try again", headers=[("Retry-After", "1")])
    raise ValueError(f"no answer for {refusal}")


def unknown_manifest(reference: str) -> WireError:
    """404 for a tag or digest that names no manifest."""
    detail = {"reference": reference[:_REFERENCE_LENGTH_MAX]}
    return error(Code.MANIFEST_UNKNOWN, "no such manifest in this repository", detail)


def _missing(digests: Iterable[str]) -> WireError:
    """404 with one entry for each missing digest (rule: missing blobs are listed)."""
    message = "the manifest names something that this repository does not have"
    return WireError(*(Problem(Code.MANIFEST_BLOB_UNKNOWN, message, each) for each in dict.fromkeys(digests)))
