"""The hook's HTTP endpoints: alerts, notifications, metrics, health, reload and heartbeat."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, TooManyRequests

from reconnect_hook.alerts import (
    Alert,
    AlertStatus,
    Disposition,
    PayloadError,
    TooManyAlertsError,
    parse_alerts,
    parse_notifications,
)
from reconnect_hook.auth import TokenAuth
from reconnect_hook.metrics import HookMetrics, LatestPages
from reconnect_hook.supervisor import HookSupervisor
from zapwatch.clock import Clock
from zapwatch.config import Report
from zapwatch.db import StateError
from zapwatch.front import MAX_REQUEST_BYTES, SECURITY_HEADERS, Answer, json_answer
from zapwatch.http import HttpClient, HttpError
from zapwatch.server import health

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_log = logging.getLogger("reconnect_hook")
_people = logging.getLogger("people")
_REFUSAL = "zapwatch.refusal"  # key of why a request was refused in its WSGI environment

AUTH = "zapwatch_auth"
"""Key of the application's TokenAuth in ``app.extensions``."""

ANSWER_TOGETHER = "zapwatch_answer_together"
"""Key of the function that accepts the alerts of several requests at once, for ``Front``."""

_MOST_TOLD = 100  # unknown gateway names that are logged
_HEARTBEAT_SECONDS = 10.0  # timeout of the service

LATE_SECONDS = 300.0
"""A heartbeat is late after this time; Alertmanager sends one a minute."""
_OPENAPI = Path(__file__).parent / "openapi.yaml"


def create_app(
    supervisor: HookSupervisor,
    metrics: HookMetrics,
    *,
    token: str,
    clock: Clock | None = None,
) -> Flask:
    """Return the application. Alertmanager must send ``token``."""
    auth = TokenAuth(token, clock=clock)
    app = Flask(__name__, static_folder=None)
    intake = _Intake(supervisor, metrics)
    app.extensions[AUTH] = auth
    app.extensions[ANSWER_TOGETHER] = partial(_answer_together, auth, intake)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.post("/alerts")
    def alerts() -> Response:
        """Answer only after everything in the payload is on disk."""
        refusal: Exception | None = request.environ.get(_REFUSAL)
        if refusal is not None:
            raise refusal
        auth.check_token(request.environ)
        (payload,) = intake.accept([request.get_data()])
        if payload.error is not None:
            raise payload.error
        return as_json(202, payload.counts)

    @app.post("/notifications")
    def notifications() -> Response:
        """Log notifications to stderr: the default receiver until e-mail is configured."""
        auth.check_token(request.environ)
        for told in parse_notifications(request.get_data()):
            level = logging.INFO if told.status is AlertStatus.RESOLVED else logging.WARNING
            line = f"{told.status} {told.name}: {told.summary}"
            _people.log(level, "%s", "".join(c if c.isprintable() else " " for c in line[:500]))
        return as_json(200, {})

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            # The page sets its own content policy.
            response.headers.setdefault(name, value)
        return response

    _add_open_pages(app, supervisor, metrics)
    _answer_errors(app)
    return app


def _answer_together(
    auth: TokenAuth, intake: _Intake, environs: Sequence[WSGIEnvironment]
) -> list[Answer | None]:
    """Accept the alerts of all waiting requests at once; return None for what the view refuses."""
    mine = []
    for place, environ in enumerate(environs):
        is_post = environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/alerts"
        if is_post and int(environ.get("CONTENT_LENGTH") or 0) <= MAX_REQUEST_BYTES:
            try:
                auth.check_token(environ)
                mine.append(place)
            except HTTPException as error:
                environ[_REFUSAL] = error
    payloads = intake.accept([environs[place]["wsgi.input"].getvalue() for place in mine])
    answers: list[Answer | None] = [None] * len(environs)
    for place, payload in zip(mine, payloads, strict=True):
        if payload.error is None:
            answers[place] = json_answer(202, payload.counts)
        else:
            environs[place][_REFUSAL] = payload.error
    return answers


class _Payload:
    """One payload's alerts with their dispositions, or the error that it met."""

    def __init__(self, body: bytes, gateways: Collection[str]) -> None:
        self.alerts: list[Alert] = []
        self.error: PayloadError | StateError | None = None
        try:
            self.alerts = parse_alerts(body, gateways)
        except PayloadError as error:
            self.error = error
        self.verdicts = [Disposition.IGNORED] * len(self.alerts)

    @property
    def counts(self) -> dict[str, int]:
        """The number of alerts by disposition."""
        return {str(verdict): self.verdicts.count(verdict) for verdict in Disposition}

    def places_of(self, gateway: str) -> list[int]:
        """Return the indexes of a gateway's alerts."""
        if self.error is not None:
            return []
        return [place for place, alert in enumerate(self.alerts) if alert.gateway == gateway]


class _Intake:
    """Accepts the alerts of webhook payloads for all gateways."""

    def __init__(self, supervisor: HookSupervisor, metrics: HookMetrics) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._unknown: set[str] = set()

    def accept(self, bodies: Sequence[bytes]) -> list[_Payload]:
        """Store the alerts of all payloads together, each payload on its own; raise nothing.

        Alerts of unknown gateways are ignored. After a StateError, Alertmanager sends the payload
        again, and what was stored of it is coalesced.
        """
        controllers = self._supervisor.controllers
        payloads = [_Payload(body, controllers) for body in bodies]
        for name, controller in controllers.items():
            mine = [(one, places) for one in payloads if (places := one.places_of(name))]
            stored = controller.writer.accept_all(
                [[one.alerts[place] for place in places] for one, places in mine]
            )
            for (one, places), verdicts in zip(mine, stored, strict=True):
                if isinstance(verdicts, StateError):
                    one.error = verdicts
                    continue
                for place, verdict in zip(places, verdicts, strict=True):
                    one.verdicts[place] = verdict
                outages = [outage for place in places if (outage := one.alerts[place].outage)]
                try:
                    if outages:
                        controller.want_audits(outages)
                except StateError as error:
                    one.error = error
        accepted = [one for one in payloads if one.error is None]
        self._tell_unknown([alert for one in accepted for alert in one.alerts], controllers)
        self._metrics.count_alerts(
            (alert.status, verdict)
            for one in accepted
            for alert, verdict in zip(one.alerts, one.verdicts, strict=True)
        )
        return payloads

    def _tell_unknown(self, alerts: Sequence[Alert], gateways: Collection[str]) -> None:
        """Log each gateway that firing alerts name and the settings do not, once."""
        firing = {one.gateway for one in alerts if one.status is AlertStatus.FIRING}
        for name in firing - self._unknown - {*gateways, ""}:
            if len(self._unknown) < _MOST_TOLD:
                self._unknown.add(name)
                known = ", ".join(gateways)
                _log.warning("alerts of gateway %r are ignored: there is only %s", name[:63], known)


def add_settings(
    app: Flask, reload: Callable[[], str | None], report: Callable[[], Report]
) -> None:
    """Add ``POST /-/reload`` and ``/-/settings``, with the same token as ``POST /alerts``."""

    @app.get("/-/settings")
    def settings() -> Response:
        app.extensions[AUTH].check_token(request.environ)
        return as_json(200, report().as_json())

    @app.post("/-/reload")
    def reload_settings() -> Response:
        app.extensions[AUTH].check_token(request.environ)
        refusal = reload()
        return as_json(200, {}) if refusal is None else as_json(500, {"error": refusal})


class Heartbeat:
    """Calls HEARTBEAT_URL, and keeps the last heartbeat since the hook's start.

    Other threads may read each value at any time, but not all of one heartbeat together.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._client = HttpClient(url) if url else None
        self.is_set = bool(url)
        """Whether HEARTBEAT_URL is set."""
        self.since = self._clock.time()
        """When the hook started to wait for heartbeats, Unix seconds as the next two."""
        self.arrived_at: float | None = None
        """When Alertmanager last sent one."""
        self.sent_at: float | None = None
        """When the service last accepted one."""
        self.error = ""
        """Why it did not accept the last one; empty if it did."""

    def send(self) -> None:
        """Call the service. A failure is logged once and retried with the next heartbeat."""
        now = self._clock.time()
        error = _call(self._client) if self._client else ""
        if error and error != self.error:
            _log.warning("HEARTBEAT_URL: %s", error)
        if self.error and not error:
            _log.info("HEARTBEAT_URL: heartbeats are accepted again")
        if self._client and not error:
            self.sent_at = self._clock.time()
        self.error, self.arrived_at = error, now


def _call(client: HttpClient) -> str:
    """Return why the service did not accept a heartbeat; empty if it did.

    The URL is a secret, so the result holds no detail.
    """
    try:
        answer = client.request("GET", "", _HEARTBEAT_SECONDS)
    except HttpError as error:
        return error.kind
    return "" if answer.is_success else f"HTTP {answer.status}"


def add_heartbeat(app: Flask, heartbeat: Heartbeat) -> None:
    """Add ``POST /heartbeat``, the receiver of the alert that fires while all is well."""

    @app.post("/heartbeat")
    def beat() -> Response:
        app.extensions[AUTH].check_token(request.environ)
        if any(one.status is AlertStatus.FIRING for one in parse_notifications(request.get_data())):
            heartbeat.send()
        return as_json(200, {})


def _add_open_pages(app: Flask, supervisor: HookSupervisor, metrics: HookMetrics) -> None:
    """Add the endpoints without authentication."""
    pages = LatestPages(metrics.registry)

    @app.get("/metrics")
    def metrics_page() -> Response:
        headers = request.headers
        page = pages.get(headers.get("Accept", ""), headers.get("Accept-Encoding", ""))
        return Response(page.body, headers=page.headers)

    @app.get("/openapi.yaml")
    def openapi() -> Response:
        return Response(_OPENAPI.read_bytes(), mimetype="application/yaml")

    @app.get("/-/healthy")
    def healthy() -> Response:
        return Response(*health("The reconnect hook"), mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        for controller in supervisor.controllers.values():
            controller.history.unsettled()
        return Response("The state can be read.\n", mimetype="text/plain")


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(StateError)
    def state_error(error: StateError) -> Response:
        _log.error("state: %s", error)
        return as_json(503, {"error": "the state cannot be read or written; see the hook's log"})

    @app.errorhandler(PayloadError)
    def payload_error(error: PayloadError) -> Response:
        status = 413 if isinstance(error, TooManyAlertsError) else 400
        return as_json(status, {"error": str(error)})

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if isinstance(error, RequestEntityTooLarge):
            return as_json(413, {"error": f"the body is larger than {MAX_REQUEST_BYTES} bytes"})
        return as_json_error(error)


def as_json_error(error: HTTPException) -> Response:
    """Return the JSON response of an HTTP error; 429 carries Retry-After."""
    response = as_json(error.code or 500, {"error": error.name})
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def as_json(status: int, body: Mapping[str, object]) -> Response:
    """Return a JSON response that ends with a newline."""
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")
