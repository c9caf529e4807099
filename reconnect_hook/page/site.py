"""Adds the page and the API to the hook's application."""

from __future__ import annotations

from flask import Blueprint, Flask, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import PathConverter

from reconnect_hook.fleet import Fleet
from reconnect_hook.page import answers, language, rendering
from reconnect_hook.page.api import Api
from reconnect_hook.page.board import Board
from reconnect_hook.page.channel import ChannelPage
from reconnect_hook.page.door import Door
from reconnect_hook.page.login import OPEN, Login
from reconnect_hook.page.overview import Overview
from reconnect_hook.page.panels import Panels
from reconnect_hook.page.qr_page import QrPage
from reconnect_hook.page.sources import Alertmanager, Prometheus
from reconnect_hook.page.week import Weeks
from reconnect_hook.state.database import StateError
from whatsapp.settings import Settings


class _ChannelConverter(PathConverter):
    """A channel's id, which may hold anything and begin with a slash."""

    regex = ".+?"
    part_isolating = False


def add_page(app: Flask, fleet: Fleet, settings: Settings) -> None:
    """Add all routes for people and their scripts."""
    app.url_map.converters["channel"] = _ChannelConverter
    app.url_map.merge_slashes = False
    door = Door(app, settings.hook_token)
    language.set_up(app)
    prometheus = Prometheus(settings.prometheus_url)
    panels = Panels(fleet, prometheus)
    rendering.set_up(app, panels)
    board = Board(panels, prometheus, Alertmanager(settings.alertmanager_url))
    channel_page = ChannelPage(
        board, panels, Weeks(prometheus), alertmanager_url=settings.alertmanager_url
    )
    routes = _blueprint(door)
    for views in (Login(door), Overview(board, panels), channel_page, QrPage(board, panels)):
        views.add_to(routes)
    app.register_blueprint(routes)
    app.register_blueprint(Api(door, board, panels).blueprint())


def _blueprint(door: Door) -> Blueprint:
    """Return what will hold the pages' routes, and lets in who may come in."""
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
            door.check()
        answers.refuse_unusable_id()

    routes.after_request(answers.finish)
    routes.register_error_handler(HTTPException, answers.http_error)
    routes.register_error_handler(StateError, answers.state_error)
    return routes
