"""The hook over HTTP: alerts in, metrics out."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, Unauthorized

from reconnect_hook.alerts import (
    Alert,
    AlertStatus,
    PayloadError,
    TooManyAlertsError,
    parse_alerts,
    parse_notifications,
)
from reconnect_hook.dedup import Disposition
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import GatewayController, HookSupervisor
from zapwatch.config import Report
from zapwatch.db import StateError
from zapwatch.metrics import render
from zapwatch.server import MAX_REQUEST_BYTES, SECURITY_HEADERS

_log = logging.getLogger("reconnect_hook")
_people = logging.getLogger("people")

_OPENAPI = Path(__file__).parent / "openapi.yaml"


def create_app(fleet: HookSupervisor, metrics: HookMetrics, *, token: str) -> Flask:
    """Make the application; ``token`` is what Alertmanager has to send."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.post("/alerts")
    def alerts() -> Response:
        """Answer when everything in the payload is on disk, and not before."""
        _check_token(token)
        services = fleet.services
        parsed = parse_alerts(request.get_data(), services)
        verdicts = _accept(services, parsed)
        metrics.count_alerts(
            (alert.status, verdict) for alert, verdict in zip(parsed, verdicts, strict=True)
        )
        return as_json(202, {str(verdict): verdicts.count(verdict) for verdict in Disposition})

    @app.post("/notifications")
    def notifications() -> Response:
        """Write what people are to be told to stderr, for as long as nobody set up e-mail."""
        _check_token(token)
        for told in parse_notifications(request.get_data()):
            level = logging.INFO if told.status is AlertStatus.RESOLVED else logging.WARNING
            line = f"{told.status} {told.name}: {told.summary}"
            _people.log(level, "%s", "".join(c if c.isprintable() else " " for c in line[:500]))
        return as_json(200, {})

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            # The page has some of its own.
            response.headers.setdefault(name, value)
        return response

    _add_open_pages(app, fleet, metrics)
    _answer_errors(app)
    return app


def add_reload(app: Flask, reload: Callable[[], str | None], *, token: str) -> None:
    """Add ``POST /-/reload``, which asks for the same token as ``POST /alerts``."""

    @app.post("/-/reload")
    def reload_settings() -> Response:
        _check_token(token)
        refusal = reload()
        return as_json(200, {}) if refusal is None else as_json(500, {"error": refusal})


def add_settings(app: Flask, report: Callable[[], Report], *, token: str) -> None:
    """Add ``/-/settings``, which asks for the same token too."""

    @app.get("/-/settings")
    def settings() -> Response:
        _check_token(token)
        return as_json(200, report().as_json())


def _accept(
    services: Mapping[str, GatewayController], alerts: Sequence[Alert]
) -> list[Disposition]:
    """Store each alert with its gateway; those of gateways that are not known are ignored.

    Where one cannot be stored StateError is raised, and all of them are sent again: those that were
    stored are coalesced then.
    """
    verdicts = [Disposition.IGNORED] * len(alerts)
    for name, service in services.items():
        mine = [index for index, alert in enumerate(alerts) if alert.gateway == name]
        stored = service.intake.accept([alerts[index] for index in mine])
        for index, verdict in zip(mine, stored, strict=True):
            verdicts[index] = verdict
        # As many as can begin; the others find their work themselves.
        for _ in range(min(stored.count(Disposition.ACCEPTED), service.workers.count)):
            service.workers.wake()
            service.prober.wake()
    return verdicts


def _add_open_pages(app: Flask, fleet: HookSupervisor, metrics: HookMetrics) -> None:
    """Add what needs no token."""

    @app.get("/metrics")
    def metrics_page() -> Response:
        headers = request.headers
        page = render(
            metrics.registry, headers.get("Accept", ""), headers.get("Accept-Encoding", "")
        )
        return Response(page.body, headers=page.headers)

    @app.get("/openapi.yaml")
    def openapi() -> Response:
        return Response(_OPENAPI.read_bytes(), mimetype="application/yaml")

    @app.get("/-/healthy")
    def healthy() -> Response:
        return Response("The reconnect hook runs.\n", mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        for service in fleet.services.values():
            service.memory.queue()
        return Response("The state can be read.\n", mimetype="text/plain")


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(StateError)
    def state_error(error: StateError) -> Response:
        _log.error("state: %s", error)
        return as_json(
            503, {"error": "the state cannot be read or written; the hook's log says why"}
        )

    @app.errorhandler(PayloadError)
    def payload_error(error: PayloadError) -> Response:
        status = 413 if isinstance(error, TooManyAlertsError) else 400
        return as_json(status, {"error": str(error)})

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if isinstance(error, RequestEntityTooLarge):
            return as_json(413, {"error": f"the body is larger than {MAX_REQUEST_BYTES} bytes"})
        return as_json(error.code or 500, {"error": error.name})


def _check_token(token: str) -> None:
    """Raise Unauthorized unless the request carries the token, found in constant time."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise Unauthorized


def as_json(status: int, body: Mapping[str, object]) -> Response:
    """Answer JSON."""
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")
