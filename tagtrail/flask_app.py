"""The Flask application: everything but the pull path. Errors leave it as exceptions; the WSGI shell answers them."""

from flask import Blueprint, Flask, Response
from flask import request as flask_request
from werkzeug.exceptions import HTTPException

from protocol.errors import Code, error
from protocol.messages import Answer, Handlers, Request, not_allowed, unknown_path

WIRE_PATH = "/v2/"
REQUEST_KEY = "tagtrail.request"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def create_app(handlers: Handlers, blueprints: list[Blueprint]) -> Flask:
    """An application that serves the wire by `handlers` and /api/v1 by blueprints.

    The shell has parsed the path already (names may hold `blobs` or `tags`, which Flask's rules cannot tell apart)
    and sends everything of the wire to WIRE_PATH.
    """
    app = Flask("tagtrail", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config.update(PROPAGATE_EXCEPTIONS=True, TRAP_HTTP_EXCEPTIONS=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]

    def wire() -> Response:
        request: Request = flask_request.environ[REQUEST_KEY]
        handler = handlers.get((request.route.kind, request.method))
        if handler is None:
            raise not_allowed(request.route.kind, handlers)
        return _response(handler(request))

    app.add_url_rule(WIRE_PATH, "wire", wire, methods=_METHODS, provide_automatic_options=False)
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


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, direct_passthrough=True)
    response.headers.clear()
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response
