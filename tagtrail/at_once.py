"""Answers to requests that need nothing but memory, made where waiting for anything would hold up all other requests.

That is `/v2/`, and what is kept of manifests and small blobs while the change board vouches for it. Everything else is
left to the application, which looks again from the start; so is an answer that is an error or has parts, and whatever
goes wrong here: the application logs it and answers with an error of the protocol.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from blobstore.pace import WHOLE_BYTES_MAX
from command_api.bodies import has_body
from protocol.errors import WireError
from protocol.messages import Headers
from query_api.cache import AnswerCache, Served
from tagtrail.every_answer import EveryAnswer
from tagtrail.hosts import Hosts

Whole = tuple[int, Headers, bytes]
_log = logging.getLogger(__name__)


class AtOnce:
    """The answers of one process that need no waiting.

    `always` has the answers of some paths, for as long as `refusal` gives no reason why this process must not serve.
    Kept answers need no such question: the board vouches for them.
    """

    def __init__(
        self,
        cache: AnswerCache,
        always: Mapping[str, Served],
        every: EveryAnswer,
        hosts: Hosts,
        refusal: Callable[[], str | None],
    ) -> None:
        self._find = cache.find_at_once
        self._always = always
        self._every = every
        self._hosts = hosts
        self._refusal = refusal

    def answer(self, environ: dict[str, Any]) -> Whole | None:
        """Status, headers and body; None if the application has to answer. It must not wait for anything."""
        try:
            return self._answer(environ)
        except WireError:
            return None
        except Exception:  # noqa: BLE001 - logged here with its trace; the application answers
            _log.exception("a request could not be answered at once; the application answers it")
            return None

    def _answer(self, environ: dict[str, Any]) -> Whole | None:
        method: str = environ["REQUEST_METHOD"]
        if (method != "GET" and method != "HEAD") or has_body(environ):
            return None
        path: str = environ["PATH_INFO"]
        served = self._find(path)
        if served is None:
            served = self._always.get(path)
            if served is None or self._refusal() is not None:
                return None
        self._hosts.check(environ)
        answer = served.answer_at_once(environ)
        if answer is None:
            return None
        body = answer.body
        if not isinstance(body, bytes) or len(body) > WHOLE_BYTES_MAX:
            return None
        return answer.status, self._every.headers(answer.headers, self._every.request_id(environ), environ), body
