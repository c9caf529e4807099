"""The exporter over HTTP. No request waits for the gateway or the database."""

from __future__ import annotations

from flask import Flask, Response, request

from exporter.metrics import Metrics
from exporter.page import MetricsPage
from exporter.snapshot import Board

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


def create_app(board: Board, metrics: Metrics, *, with_log: bool) -> Flask:
    """Make the application; ``with_log`` says whether there is a message log to wait for."""
    app = Flask(__name__, static_folder=None)
    page = MetricsPage(board, metrics.sections)

    @app.get("/")
    def landing() -> str:
        return _LANDING

    @app.get("/metrics")
    def metrics_page() -> Response:
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
