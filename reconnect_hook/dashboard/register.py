"""Register the operators' page and the API in the hook's Flask application."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Flask, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import PathConverter

from reconnect_hook.app import AUTH, Heartbeat
from reconnect_hook.auth import TokenAuth
from reconnect_hook.dashboard import errors, i18n
from reconnect_hook.dashboard.api import DashboardApi
from reconnect_hook.dashboard.docs import Documentation
from reconnect_hook.dashboard.notifications import NotificationsPage
from reconnect_hook.dashboard.prometheus import Prometheus
from reconnect_hook.dashboard.scan import LINKS, PairingEndpoint, ScanPage, ShareDialog
from reconnect_hook.dashboard.snapshot import DashboardCache, GatewayPanels
from reconnect_hook.dashboard.timeline import ConnectedShares, WeekHistory
from reconnect_hook.dashboard.views import OPEN, ChannelPage, LoginPage, OverviewPage, QrEndpoints
from reconnect_hook.supervisor import HookSupervisor
from zapwatch.alertmanager import AlertmanagerApi
from zapwatch.channels import AmbiguousNameError
from zapwatch.clock import Clock
from zapwatch.config import Settings, hook_link
from zapwatch.db import StateError
from zapwatch.http import HttpAccess


class _ChannelConverter(PathConverter):
    """A channel id in a path: any characters, also a leading slash."""

    regex = ".+?"
    part_isolating = False


def add_page(
    app: Flask,
    supervisor: HookSupervisor,
    settings: Settings,
    heartbeat: Heartbeat | None = None,
    *,
    clock: Clock | None = None,
) -> None:
    """Register the pages, the visitors' scan pages and the JSON API."""
    app.url_map.converters["channel"] = _ChannelConverter
    app.url_map.merge_slashes = False
    app.config[LINKS] = partial(hook_link, settings) if settings.hook_external_url else None
    auth: TokenAuth = app.extensions[AUTH]
    i18n.init_babel(app)
    prometheus = Prometheus(
        settings.prometheus_url,
        HttpAccess(
            settings.prometheus_ca_file,
            settings.prometheus_user,
            settings.prometheus_password,
        ),
    )
    panels = GatewayPanels(supervisor, prometheus, settings, clock=clock)
    i18n.init_templates(app, panels)
    documentation = Documentation()
    app.jinja_env.globals["runbook"] = documentation.runbook
    access = HttpAccess(
        settings.alertmanager_ca_file, settings.alertmanager_user, settings.alertmanager_password
    )
    alertmanager = AlertmanagerApi(settings.alertmanager_url, access)
    board = DashboardCache(panels, prometheus, alertmanager, clock=clock)
    channel_page = ChannelPage(
        board,
        panels,
        WeekHistory(prometheus, clock=clock),
        alertmanager_url=settings.alertmanager_url,
        clock=clock,
    )
    routes = _blueprint(auth, board, panels)
    for views in (
        LoginPage(auth),
        documentation,
        OverviewPage(board, panels),
        channel_page,
        QrEndpoints(board, panels),
        ShareDialog(supervisor.scan_links, board, panels),
        PairingEndpoint(board, panels),
        NotificationsPage(
            alertmanager,
            prometheus,
            heartbeat or Heartbeat(settings.heartbeat_url, clock),
            clock=clock,
        ),
    ):
        views.add_to(routes)
    app.register_blueprint(routes)
    shares = ConnectedShares(prometheus, clock=clock)
    visitors = ScanPage(supervisor.scan_links, board, panels, shares, clock=clock)
    app.register_blueprint(visitors.blueprint())
    app.register_blueprint(DashboardApi(auth, board, panels, supervisor.scan_links).blueprint())
    for code in (404, 405):
        app.register_error_handler(code, errors.no_such_page)


def _blueprint(auth: TokenAuth, board: DashboardCache, panels: GatewayPanels) -> Blueprint:
    """Return the blueprint of the pages; it authenticates each request outside OPEN."""
    routes = Blueprint(
        "page",
        __name__,
        template_folder="templates",
        static_folder="static",
        static_url_path="/page",
    )

    @routes.before_request
    def check() -> None:
        if request.endpoint not in OPEN:
            auth.check()
        errors.settle_channel(board, panels)

    routes.after_request(errors.finish)
    routes.register_error_handler(HTTPException, errors.http_error)
    routes.register_error_handler(AmbiguousNameError, errors.ambiguous_name)
    routes.register_error_handler(StateError, errors.state_error)
    return routes
