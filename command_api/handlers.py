"""The command side's tables of routes and methods with their handlers."""

from functools import partial

from command_api.blobs import unlinking
from command_api.context import Context
from command_api.manifests import deleting, pushing
from command_api.uploads import requests as uploads
from protocol.messages import Handlers
from protocol.routes import Kind


def push_handlers(context: Context) -> Handlers:
    """The requests of a push, served in front of Flask."""
    return {
        (Kind.UPLOADS, "POST"): partial(uploads.start, context),
        (Kind.UPLOAD, "PATCH"): partial(uploads.append_chunk, context),
        (Kind.UPLOAD, "PUT"): partial(uploads.finish, context),
        (Kind.MANIFEST, "PUT"): partial(pushing.put, context),
    }


def handlers(context: Context) -> Handlers:
    """The other commands of the wire, and the status of uploads, which is read from stream state."""
    return {
        (Kind.UPLOAD, "GET"): partial(uploads.status, context),
        (Kind.UPLOAD, "HEAD"): partial(uploads.status, context),
        (Kind.UPLOAD, "DELETE"): partial(uploads.cancel, context),
        (Kind.MANIFEST, "DELETE"): partial(deleting.delete, context),
        (Kind.BLOB, "DELETE"): partial(unlinking.delete, context),
    }
