"""Response headers and error pages that all pages share."""

from __future__ import annotations

from flask import Response, abort, make_response, render_template, request
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import as_json
from reconnect_hook.dashboard import i18n
from reconnect_hook.dashboard.snapshot import DashboardCache, GatewayPanels
from zapwatch.channels import AmbiguousNameError, is_usable_id
from zapwatch.db import StateError
from zapwatch.front import RETRY_LATER

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The header Content-Security-Policy: no inline script or style, nothing from other hosts."""


def settle_channel(board: DashboardCache, panels: GatewayPanels) -> None:
    """Replace the path's channel by the gateway's own spelling of it.

    Aborts with 404 if the id is unusable, and raises AmbiguousNameError.
    """
    arguments = request.view_args or {}
    if "channel" not in arguments:
        return
    if not is_usable_id(arguments["channel"]):
        abort(404)
    gateway = panels.of_request().name
    arguments["channel"] = board.look().name_meant(gateway, arguments["channel"])


def finish(response: Response) -> Response:
    """Add the language cookie, the content policy and the cache header of static files."""
    i18n.remember_language(response)
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    if request.endpoint in {"page.static", "scan.static"} and response.status_code < 400:
        # Static URLs carry a version, and the files hold no secret.
        response.headers["Cache-Control"] = "public, max-age=604800"
    return response


def error_page(status: int, title: str, text: str) -> Response:
    """Return an error page with this HTTP status."""
    page = render_template("error.html", title=title, text=text, logged_in=False)
    return make_response(page, status)


def wants_page() -> bool:
    """Whether the request prefers HTML over JSON."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def no_such_page(error: HTTPException) -> AnyResponse:
    """Handle 404 and 405 for any path: JSON, or a page if the request prefers HTML."""
    if not wants_page():
        return as_json(error.code or 404, {"error": error.name})
    words = _("Not found"), _("There is no such page or channel.")
    return finish(error_page(404, *words))


def ambiguous_name(error: AmbiguousNameError) -> AnyResponse:
    """Return 404: the path's spelling means several channels."""
    text = _(
        "%(name)s may be any of %(names)s: letter case and blanks matter here.",
        name=error.name,
        names=error.alike,
    )
    return error_page(404, _("Not found"), text)


def state_error(_error: StateError) -> AnyResponse:
    """Return 503: the state database is unavailable."""
    text = _(
        "The state of the Zapwatch server cannot be read or written just now. Please try again."
    )
    return error_page(503, _("Something went wrong"), text)


def http_error(error: HTTPException) -> AnyResponse:
    """Return the page of an HTTP error; 429 carries Retry-After."""
    words = {
        403: (_("Not allowed"), _("The request came from another site.")),
        404: (_("Not found"), _("There is no such page or channel.")),
        429: (_("Too many wrong passwords"), _("Please wait a minute.")),
    }
    code = error.code or 500
    response = error_page(code, *words.get(code, (_("Something went wrong"), error.name)))
    if isinstance(error, TooManyRequests):
        response.headers.set(*RETRY_LATER)
    return response
