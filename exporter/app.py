"""The exporter's HTTP pages. Requests never wait for the gateway or the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Flask, Response, jsonify, request

from zapwatch.config import Report
from zapwatch.metrics import MetricsPage

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


def create_app(
    metrics: MetricsPage,
    waiting: Callable[[], Sequence[str]],
    dead: Callable[[], Sequence[str]] = tuple,
) -> Flask:
    """Create the application.

    ``waiting`` returns the sources that have not been polled yet, ``dead`` those that are no
    longer polled, and other threads that have died.
    """
    app = Flask(__name__, static_folder=None)

    @app.get("/")
    def landing() -> str:
        return _LANDING

    @app.get("/metrics")
    def metrics_page() -> Response:
        headers = request.headers
        page = metrics.get(
            headers.get("Accept", ""),
            headers.get("Accept-Encoding", ""),
            request.args.getlist("name[]"),
        )
        return Response(page.body, headers=page.headers)

    @app.get("/-/healthy")
    def healthy() -> Response:
        sources = dead()
        text = (
            f"No longer at work: {' and '.join(sources)}.\n" if sources else "The exporter runs.\n"
        )
        return Response(text, 503 if sources else 200, mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        sources = waiting()
        text = (
            f"Waiting for {' and '.join(sources)}.\n" if sources else "Each source has been read.\n"
        )
        return Response(text, 503 if sources else 200, mimetype="text/plain")

    return app


def add_reload(app: Flask, reload: Callable[[], str | None]) -> None:
    """Add ``POST /-/reload`` without authentication: only for an exporter on loopback."""

    @app.post("/-/reload")
    def reload_settings() -> Response:
        refusal = reload()
        text = "The settings were read again." if refusal is None else f"Refused: {refusal}"
        return Response(f"{text}\n", 200 if refusal is None else 500, mimetype="text/plain")


def add_settings(app: Flask, report: Callable[[], Report]) -> None:
    """Add ``/-/settings`` without authentication: only for an exporter on loopback."""

    @app.get("/-/settings")
    def settings() -> Response:
        return jsonify(report().as_json())
