"""The Flask application of both HTTP APIs, the gateway's and the control API."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from demo.simulator.responses import as_json
from demo.simulator.rules import Refused

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Blueprint


class _Encoded(BaseConverter):
    """A percent-encoded path segment, in which `+` is a plus."""

    def to_python(self, value: str) -> str:
        return unquote(value, errors="replace")


class _UndecodedPath:
    """Routes by the path as sent: decoding makes `%2F` and `/` the same."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        sent = environ["REQUEST_URI"]
        path = sent.partition("?")[0] if sent.startswith("/") else urlsplit(sent).path
        return self._application(environ | {"PATH_INFO": path}, start_response)


def create_app(*blueprints: "Blueprint") -> Flask:
    """Create the application from its routes, with errors as JSON."""
    app = Flask(__name__, static_folder=None)
    app.url_map.converters["encoded"] = _Encoded
    app.url_map.merge_slashes = False
    app.before_request(_read_body)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.wsgi_app = _UndecodedPath(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _read_body() -> None:
    """Read the whole call: before it closes, werkzeug waits for what is left of a body."""
    request.get_data()


def _refused(error: Refused) -> Response:
    return as_json(error.status, {"success": False, "error": str(error)})


def _http_error(error: HTTPException) -> Response:
    return as_json(error.code or 500, {"success": False, "error": error.name})
