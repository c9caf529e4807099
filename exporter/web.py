"""The exporter over HTTP. No request waits for the gateway or the database."""

from __future__ import annotations

import threading

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import gzip_accepted

from exporter.snapshot import Board, Snapshot
from whatsapp.exposition import Page, render, wants_openmetrics

_LANDING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Zapwatch exporter</title>
<h1>Zapwatch exporter</h1>
<p>WhatsApp channels as Prometheus metrics.</p>
<ul>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/-/healthy">Healthy</a>: the exporter runs</li>
<li><a href="/-/ready">Ready</a>: each source has been asked once</li>
</ul>
"""


class MetricsPage:
    """Renders each snapshot once for each format that is asked for, however many scrapes come."""

    def __init__(self, board: Board, registry: CollectorRegistry) -> None:
        self._board = board
        self._registry = registry
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._pages: dict[tuple[bool, bool], Page] = {}

    def get(self, accept: str, accept_encoding: str) -> Page:
        """Return the page for the two request headers."""
        form = (wants_openmetrics(accept), gzip_accepted(accept_encoding))
        with self._lock:
            snapshot = self._board.snapshot
            if snapshot is not self._snapshot:
                self._pages.clear()
                self._snapshot = snapshot
            if form not in self._pages:
                self._pages[form] = render(self._registry, accept, accept_encoding)
            return self._pages[form]


def create_app(board: Board, registry: CollectorRegistry, *, with_log: bool) -> Flask:
    """Make the application; ``with_log`` says whether there is a message log to wait for."""
    app = Flask(__name__, static_folder=None)
    page = MetricsPage(board, registry)

    @app.get("/")
    def landing() -> str:
        return _LANDING

    @app.get("/metrics")
    def metrics() -> Response:
        headers = request.headers
        shown = page.get(headers.get("Accept", ""), headers.get("Accept-Encoding", ""))
        return Response(shown.body, headers=shown.headers)

    @app.get("/-/healthy")
    def healthy() -> Response:
        return Response("The exporter runs.\n", mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        snapshot = board.snapshot
        waiting = [
            source
            for source, polled in (
                ("the channel list", snapshot.gateway is not None),
                ("the message log", snapshot.log is not None or not with_log),
            )
            if not polled
        ]
        text = f"Waiting for {' and '.join(waiting)}.\n" if waiting else "Each source was asked.\n"
        return Response(text, 503 if waiting else 200, mimetype="text/plain")

    return app
