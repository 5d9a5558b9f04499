"""The query side's table of routes and methods with their handlers."""

from collections.abc import Mapping
from functools import partial

from protocol.messages import Handler, Handlers
from protocol.routes import Kind
from query_api import lists, pull
from query_api.cache import Served
from query_api.context import Context

# The answer at these paths is always the same.
ALWAYS: Mapping[str, Served] = {"/v2/": pull.ServedBase()}


def pull_handlers(context: Context) -> Handlers:
    """The pull path, served in front of Flask."""
    return _both(
        {
            Kind.BASE: partial(pull.base, context),
            Kind.MANIFEST: partial(pull.manifest, context),
            Kind.BLOB: partial(pull.blob, context),
        }
    )


def list_handlers(context: Context) -> Handlers:
    """The lists of the wire."""
    return _both(
        {
            Kind.TAGS: partial(lists.tag_list, context),
            Kind.CATALOG: partial(lists.repository_list, context),
            Kind.REFERRERS: partial(lists.referrer_list, context),
            Kind.DISCOVER: partial(lists.extensions, context),
        }
    )


def _both(handlers: dict[Kind, Handler]) -> Handlers:
    return {(kind, method): handler for kind, handler in handlers.items() for method in ("GET", "HEAD")}
