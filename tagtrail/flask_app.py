"""The Flask application for requests that are no pulls or pushes. The WSGI shell answers its exceptions."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, Flask, Response
from flask import Request as FlaskRequest
from flask import request as flask_request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from protocol.errors import Code, error
from protocol.messages import Answer, Handlers, Request, unknown_path

WIRE_PATH = "/v2/"
REQUEST_KEY = "tagtrail.request"


class _Application(Flask):
    """Flask, without the work that gives the same result for each request of the protocol."""

    def create_url_adapter(self, request: FlaskRequest | None) -> MapAdapter | None:
        """All requests of the protocol have one path here, and no host."""
        if request is not None and REQUEST_KEY in request.environ:
            return self.url_map.bind("", path_info=WIRE_PATH, default_method=request.method)
        return super().create_url_adapter(request)


class _WireResponse(Response):
    """An answer of ours, which goes out unchanged."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(status=answer.status)
        self._answer = answer

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Hand over status, headers and body."""
        answer = self._answer
        start_response(self.status, answer.headers)
        return [answer.body] if isinstance(answer.body, bytes) else answer.body


def create_app(handlers: Handlers, blueprints: list[Blueprint]) -> Flask:
    """An application that serves the wire by `handlers` and /api/v1 by blueprints.

    The shell has parsed the path already (names may hold `blobs` or `tags`, which Flask's rules cannot tell apart)
    and sends everything of the wire that has one of these handlers to WIRE_PATH.
    """
    app = _Application("tagtrail", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config.update(PROPAGATE_EXCEPTIONS=True, TRAP_HTTP_EXCEPTIONS=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]

    def wire() -> Response:
        request: Request = flask_request.environ[REQUEST_KEY]
        return _WireResponse(handlers[request.route.kind, request.method](request))

    methods = sorted({method for _, method in handlers})
    app.add_url_rule(WIRE_PATH, "wire", wire, methods=methods, provide_automatic_options=False)
    for each in blueprints:
        app.register_blueprint(each)

    @app.errorhandler(HTTPException)
    def refuse(problem: HTTPException) -> Response:
        status = problem.code or 500
        if status == 404:
            raise unknown_path()
        headers = [(name, value) for name, value in problem.get_headers() if name.lower() == "allow"]
        raise error(Code.UNSUPPORTED, problem.name, status=status, headers=headers)

    return app
