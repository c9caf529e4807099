"""What all pages' answers have in common: headers and apologies."""

from __future__ import annotations

from flask import Response, abort, make_response, render_template, request
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import as_json
from reconnect_hook.auth import WAIT_SECONDS
from reconnect_hook.dashboard import i18n
from zapwatch.channels import is_usable_id
from zapwatch.db import StateError

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and do."""


def refuse_unusable_id() -> None:
    """Answer 404 to an address with an id that can be no channel's."""
    if not is_usable_id((request.view_args or {}).get("channel", "x")):
        abort(404)


def finish(response: Response) -> Response:
    """Add what each answer of the page carries."""
    i18n.remember_language(response)
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    if request.endpoint in {"page.static", "scan.static"} and response.status_code < 400:
        # Their address changes with their content, and nothing in them is secret.
        response.headers["Cache-Control"] = "public, max-age=604800"
    return response


def error_page(status: int, title: str, text: str) -> Response:
    """Answer a page that says what is wrong."""
    page = render_template("error.html", title=title, text=text, logged_in=False)
    return make_response(page, status)


def wants_page() -> bool:
    """Whether the request comes from a browser that would show a page."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def no_such_page(error: HTTPException) -> AnyResponse:
    """Answer for an address, or a way to ask for it, that nothing of the program has."""
    if not wants_page():
        return as_json(error.code or 404, {"error": error.name})
    words = _("Not found"), _("There is no such page or channel.")
    return finish(error_page(404, *words))


def state_error(_error: StateError) -> AnyResponse:
    """Answer when the state cannot be read or written."""
    text = _(
        "The state of the Zapwatch server cannot be read or written just now. Please try again."
    )
    return error_page(503, _("Something went wrong"), text)


def http_error(error: HTTPException) -> AnyResponse:
    """Answer what was refused."""
    words = {
        403: (_("Not allowed"), _("The request came from another site.")),
        404: (_("Not found"), _("There is no such page or channel.")),
        429: (_("Too many wrong passwords"), _("Please wait a minute.")),
    }
    code = error.code or 500
    response = error_page(code, *words.get(code, (_("Something went wrong"), error.name)))
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(int(WAIT_SECONDS))
    return response
