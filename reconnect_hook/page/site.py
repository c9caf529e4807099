"""Adds the page and the API to the hook's application."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import PathConverter

from reconnect_hook.page import language, rendering
from reconnect_hook.page.api import Api
from reconnect_hook.page.board import Board
from reconnect_hook.page.door import Door
from reconnect_hook.page.qr_watch import QrWatches
from reconnect_hook.page.sources import Alertmanager, Prometheus
from reconnect_hook.page.views import Pages
from reconnect_hook.page.week import Weeks
from reconnect_hook.service import Service
from whatsapp.gateway import GatewayClient
from whatsapp.settings import Settings


class _ChannelConverter(PathConverter):
    """A channel's id, which may hold anything and begin with a slash."""

    regex = ".+?"
    part_isolating = False


def add_page(app: Flask, service: Service, client: GatewayClient, settings: Settings) -> None:
    """Add all routes for people and their scripts."""
    app.url_map.converters["channel"] = _ChannelConverter
    app.url_map.merge_slashes = False
    door = Door(app, settings.hook_token)
    language.set_up(app)
    rendering.set_up(app, settings.gateway_name)
    prometheus = Prometheus(settings.prometheus_url)
    watches = QrWatches(client, service.desk.look)
    board = Board(
        service.history,
        prometheus,
        Alertmanager(settings.alertmanager_url),
        settings.gateway_name,
        watches.scanned,
    )
    pages = Pages(
        door,
        board,
        Weeks(prometheus, settings.gateway_name),
        watches,
        service.history,
        service.desk,
        gateway=settings.gateway_name,
        alertmanager_url=settings.alertmanager_url,
    )
    app.register_blueprint(pages.blueprint())
    app.register_blueprint(Api(door, board, service.history, service.desk).blueprint())
