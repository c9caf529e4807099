"""Register the operators' page and the API: blueprints, login, response headers, error pages."""

from __future__ import annotations

from flask import (
    Blueprint,
    Flask,
    Response,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException, TooManyRequests, Unauthorized
from werkzeug.routing import PathConverter
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import AUTH, Heartbeat, as_json
from reconnect_hook.auth import TokenAuth
from reconnect_hook.dashboard import i18n
from reconnect_hook.dashboard.api import DashboardApi
from reconnect_hook.dashboard.docs import Documentation
from reconnect_hook.dashboard.readings import Prometheus
from reconnect_hook.dashboard.scan import ScanDialogs, ScanPage
from reconnect_hook.dashboard.snapshot import DashboardCache, GatewayPanels
from reconnect_hook.dashboard.views import ChannelPage, NotificationsPage, OverviewPage, error_page
from reconnect_hook.supervisor import HookSupervisor
from zapwatch.alertmanager import AlertmanagerApi
from zapwatch.channels import AmbiguousNameError
from zapwatch.clock import Clock
from zapwatch.config import Settings
from zapwatch.db import StateError
from zapwatch.front import RETRY_LATER, WRONG_TOKENS
from zapwatch.http import HttpAccess


class _ChannelConverter(PathConverter):
    """A channel id in a path: any characters, also a leading slash."""

    regex = ".+?"
    part_isolating = False

    def to_url(self, value: str) -> str:
        """Quote the slashes of an id with ``.`` or ``..`` between them, which browsers resolve."""
        path = super().to_url(value)
        is_plain = {".", ".."}.isdisjoint(value.split("/"))
        return path if is_plain else path.replace("/", "%2F")


def add_page(
    app: Flask,
    supervisor: HookSupervisor,
    settings: Settings,
    heartbeat: Heartbeat,
    *,
    clock: Clock | None = None,
) -> None:
    """Register the pages, the visitors' scan pages and the JSON API."""
    app.url_map.converters["channel"] = _ChannelConverter
    app.url_map.merge_slashes = False
    auth: TokenAuth = app.extensions[AUTH]
    access = HttpAccess(
        settings.prometheus_ca_file, settings.prometheus_user, settings.prometheus_password
    )
    prometheus = Prometheus(settings.prometheus_url, access)
    panels = GatewayPanels(supervisor, prometheus, settings, clock=clock)
    i18n.init_templates(app, panels)
    documentation = Documentation()
    app.jinja_env.globals["runbook"] = documentation.runbook
    access = HttpAccess(
        settings.alertmanager_ca_file, settings.alertmanager_user, settings.alertmanager_password
    )
    alertmanager = AlertmanagerApi(settings.alertmanager_url, access)
    board = DashboardCache(panels, prometheus, alertmanager, clock=clock)
    routes = _blueprint(auth, board)
    for views in (
        LoginPage(auth),
        documentation,
        OverviewPage(board),
        ChannelPage(board),
        ScanDialogs(board),
        NotificationsPage(board, heartbeat),
    ):
        views.add_to(routes)
    for pages in (routes, ScanPage(board).blueprint()):
        pages.after_request(_finish)
        app.register_blueprint(pages)
    app.register_blueprint(DashboardApi(auth, board).blueprint())
    for code in (404, 405):
        app.register_error_handler(code, _no_such_page)


def _blueprint(auth: TokenAuth, board: DashboardCache) -> Blueprint:
    """Return the blueprint of the pages; it authenticates each request outside _OPEN."""
    routes = Blueprint(
        "page",
        __name__,
        template_folder="templates",
        static_folder="static",
        static_url_path="/page",
    )

    @routes.before_request
    def check() -> None:
        if request.endpoint not in _OPEN:
            auth.check()
        board.settle_channel()

    routes.register_error_handler(HTTPException, _http_error)
    routes.register_error_handler(AmbiguousNameError, _ambiguous_name)
    routes.register_error_handler(StateError, _state_error)
    return routes


CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The header Content-Security-Policy: no inline script or style, nothing from other hosts."""


def _finish(response: Response) -> Response:
    """Add the language cookie, the content policy and the cache header of static files."""
    i18n.remember_language(response)
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    if request.endpoint in {"page.static", "scan.static"} and response.status_code < 400:
        # Static URLs carry a version, and the files hold no secret.
        response.headers["Cache-Control"] = "public, max-age=604800"
    return response


def _not_found() -> Response:
    return error_page(404, _("Not found"), _("There is no such page or channel."))


def _no_such_page(error: HTTPException) -> AnyResponse:
    """Handle 404 and 405 for any path: JSON, or a page if the request prefers HTML."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html":
        return as_json(error.code or 404, {"error": error.name})
    return _finish(_not_found())


def _ambiguous_name(error: AmbiguousNameError) -> AnyResponse:
    """Return 404: the path's spelling means several channels."""
    text = _(
        "%(name)s may be any of %(names)s: letter case and blanks matter here.",
        name=error.name,
        names=error.alike,
    )
    return error_page(404, _("Not found"), text)


def _state_error(_error: StateError) -> AnyResponse:
    """Return 503: the state database is unavailable."""
    text = _(
        "The state of the Zapwatch server cannot be read or written just now. Please try again."
    )
    return error_page(503, _("Something went wrong"), text)


def _http_error(error: HTTPException) -> AnyResponse:
    """Return the page of an HTTP error; 429 carries Retry-After."""
    match error.code or 500:
        case 403:
            return error_page(403, _("Not allowed"), _("The request came from another site."))
        case 404:
            return _not_found()
        case 429:
            response = error_page(429, _("Too many wrong passwords"), _("Please wait a minute."))
            response.headers.set(*RETRY_LATER)
            return response
        case code:
            return error_page(code, _("Something went wrong"), error.name)


_OPEN = {"page.docs", "page.log_in", "page.login_form", "page.static"}
"""The endpoints without authentication."""


class LoginPage:
    """Login, logout, and the redirect of requests without a session."""

    def __init__(self, auth: TokenAuth) -> None:
        self._auth = auth

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/login", "login_form", self._form, methods=["GET"])
        routes.add_url_rule("/login", "log_in", self._log_in, methods=["POST"])
        routes.add_url_rule("/logout", "log_out", self._log_out, methods=["POST"])
        routes.register_error_handler(Unauthorized, self._unauthorized)

    def _form(self, wrong: str = "") -> str:
        return render_template("login.html", next=_local(request.args.get("next", "")), wrong=wrong)

    def _log_in(self) -> AnyResponse:
        try:
            self._auth.log_in(request.form.get("token", ""))
        except Unauthorized:
            return make_response(self._form(_("Wrong password.")), 401)
        except TooManyRequests:
            words = _("After %(count)s wrong passwords, please wait a minute.", count=WRONG_TOKENS)
            blocked = make_response(self._form(words), 429)
            blocked.headers.set(*RETRY_LATER)
            return blocked
        response = redirect(_local(request.args.get("next", "")), 303)
        self._auth.begin_session(response)
        return response

    def _log_out(self) -> AnyResponse:
        response = redirect(url_for("page.login_form"), 303)
        self._auth.end_session(response)
        return response

    def _unauthorized(self, _error: Unauthorized) -> AnyResponse:
        is_page = request.method == "GET" and not request.path.startswith(("/live/", "/qr/"))
        if is_page and "Authorization" not in request.headers:
            return redirect(url_for("page.login_form", next=i18n.this_address()), 303)
        return error_page(401, _("Please log in"), _("You are not logged in."))


def _local(address: str) -> str:
    """Return an address of this site unchanged, else that of the overview: no open redirect."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_local and address.isprintable() else url_for("page.overview")
