"""The exporter's HTTP endpoints: its pages, and the receiver of posted events in front of them.

Requests never wait for the gateway or the database. The receiver is plain WSGI: a framework would
take most of the time of an event, and there can be a thousand a second.
"""

from __future__ import annotations

import enum
import hmac
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from flask import Flask, Response, jsonify, request

from zapwatch.clock import Clock
from zapwatch.config import Report
from zapwatch.front import MAX_REQUEST_BYTES, RETRY_LATER, LoginThrottle
from zapwatch.gateways.base import Gateway
from zapwatch.http import token_in
from zapwatch.messages.message import EventError, Message, parse_event
from zapwatch.metrics import MetricsPage
from zapwatch.server import health

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_log = logging.getLogger("exporter")

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


def create_app(metrics: MetricsPage, waiting: Callable[[], Sequence[str]]) -> Flask:
    """Create the pages; ``waiting`` returns the sources that have not been polled yet."""
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
        return Response(*health("The exporter"), mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        sources = waiting()
        text = (
            f"Waiting for {' and '.join(sources)}.\n" if sources else "Each source has been read.\n"
        )
        return Response(text, 503 if sources else 200, mimetype="text/plain")

    return app


def add_settings(
    app: Flask, reload: Callable[[], str | None], report: Callable[[], Report]
) -> None:
    """Add ``POST /-/reload`` and ``/-/settings``, without authentication: only on loopback."""

    @app.post("/-/reload")
    def reload_settings() -> Response:
        refusal = reload()
        text = "The settings were read again." if refusal is None else f"Refused: {refusal}"
        return Response(f"{text}\n", 200 if refusal is None else 500, mimetype="text/plain")

    @app.get("/-/settings")
    def settings() -> Response:
        return jsonify(report().as_json())


EVENTS_PATH = "/messages/"
"""Path prefix of events; the gateway's name follows."""

_TELL_AGAIN_SECONDS = 600.0  # between two log lines about the same problem of one gateway
_UNAUTHORIZED = (
    "the token is missing or wrong. It is what MESSAGES_TOKEN sets, as 'Authorization: Bearer "
    "TOKEN' or the password of the URL; as the HMAC key of a gateway that signs; or behind the URL "
    "as ?token=TOKEN, the only way of one that neither signs nor sends headers (WAHA Core of "
    "2024.10)"
)
_NOT_LISTED = (
    "the gateway lists no channel of this name: nothing is shown of it until the list has it"
)

Take = Callable[[str, Message], bool]
"""Takes a gateway's name and its message; returns whether the gateway's list lacks the channel."""


class EventResult(enum.StrEnum):
    """Result of an event: the label ``result`` of whatsapp_message_events_total."""

    MESSAGE = "message"
    UNDECRYPTABLE = "undecryptable"
    UNLISTED = "unlisted"
    OTHER = "other"
    UNAUTHORIZED = "unauthorized"
    INVALID = "invalid"
    TOO_LARGE = "too_large"


Count = Callable[[str, EventResult], None]
"""Called for each event with the gateway's name and the result."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A gateway that posts its events: its adapter, and the token that authorizes it."""

    adapter: type[Gateway]
    token: str = field(repr=False)


class _Refused(Exception):  # noqa: N818 - it is the sender's error
    def __init__(self, status: HTTPStatus, result: EventResult, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.result = result


class Receiver:
    """Receives events, and passes every other request to the application behind it."""

    def __init__(
        self,
        behind: WSGIApplication,
        senders: Mapping[str, Sender],
        take: Take,
        count: Count,
        on_state: Callable[[str], None],
    ) -> None:
        """``senders`` maps gateway names to gateways; it may change later.

        ``on_state`` is called with a gateway's name when a session's state may have changed.
        """
        self._behind = behind
        self._clock = Clock()
        self._senders = senders
        self._take = take
        self._count = count
        self._on_state = on_state
        self._told_at: dict[tuple[str, str], float] = {}
        self.throttle = LoginThrottle()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path: str = environ.get("PATH_INFO", "")
        if not path.startswith(EVENTS_PATH):
            return self._behind(environ, start_response)
        name, sender = self._sender(path)
        if sender is None:
            shown = path[len(EVENTS_PATH) :][:100]
            why = f"no gateway of this name posts its events here: {shown!r}"
            return _answer(start_response, HTTPStatus.NOT_FOUND, why)
        if environ["REQUEST_METHOD"] != "POST":
            why = "events are posted here"
            return _answer(start_response, HTTPStatus.METHOD_NOT_ALLOWED, why, ("Allow", "POST"))
        try:
            body = _read(environ, sender)
            messages = _parse(sender, body, self._clock.time())
        except _Refused as refused:
            why = f"an event of gateway {name} was refused: {refused}"
            self._tell(name, refused.result, why)
            self._count(name, refused.result)
            is_guess = refused.result is EventResult.UNAUTHORIZED and self.has_credentials(environ)
            if is_guess and self.throttle.note_wrong(environ.get("REMOTE_ADDR", "")):
                status = HTTPStatus.TOO_MANY_REQUESTS
                return _answer(start_response, status, str(refused), RETRY_LATER)
            return _answer(start_response, refused.status, str(refused))
        about_state = sender.adapter.state_events
        if not messages and about_state is not None and about_state.search(body):
            self._on_state(name)
        results = [self._taken(name, message) for message in messages]
        # EventResult lists the strongest proof first.
        result = next((one for one in EventResult if one in results), EventResult.OTHER)
        self._count(name, result)
        if result is EventResult.UNLISTED:
            return _answer(start_response, HTTPStatus.ACCEPTED, _NOT_LISTED)
        if result is EventResult.MESSAGE:
            start_response("202 Accepted", [("Content-Length", "0")])
        else:
            start_response("204 No Content", [])
        return ()

    def is_known(self, environ: WSGIEnvironment) -> bool:
        """Whether the headers allow the request to send an event: by a token or a signature.

        A signature covers the body, so it is verified after the body is read.
        """
        path: str = environ.get("PATH_INFO", "")
        _, sender = self._sender(path) if path.startswith(EVENTS_PATH) else ("", None)
        if sender is None:
            return False
        return bool(_signature(environ, sender)) or _has_token(environ, sender.token.encode())

    def has_credentials(self, environ: WSGIEnvironment) -> bool:
        """Whether the request has a token, a password or a signature, right or wrong."""
        _, sender = self._sender(environ.get("PATH_INFO", ""))
        is_signed = sender is not None and bool(_signature(environ, sender))
        return is_signed or "HTTP_AUTHORIZATION" in environ or bool(_token_in_query(environ))

    def _taken(self, gateway: str, message: Message) -> EventResult:
        """Store a message and return its result."""
        if self._take(gateway, message):
            self._tell(
                gateway,
                EventResult.UNLISTED,
                f"events of gateway {gateway} name a channel that it does not list: "
                f"{message.key!r}; no age is shown of it until it does",
            )
            return EventResult.UNLISTED
        return EventResult.MESSAGE if message.readable else EventResult.UNDECRYPTABLE

    def _sender(self, path: str) -> tuple[str, Sender | None]:
        """Return the name in the path, and its gateway or None.

        Evolution can append the event's name to the path.
        """
        name = path[len(EVENTS_PATH) :].encode("latin-1").decode("utf-8", "replace")
        for one in (name, name.rpartition("/")[0]):
            sender = self._senders.get(one)
            if sender is not None:
                return one, sender
        return name, None

    def _tell(self, gateway: str, result: EventResult, why: str) -> None:
        """Log a problem with a gateway's events, rate-limited: it is visible nowhere else."""
        now = self._clock.monotonic()
        if now - self._told_at.get((gateway, result), float("-inf")) > _TELL_AGAIN_SECONDS:
            self._told_at[gateway, result] = now
            _log.warning("%s", why)


def _read(environ: WSGIEnvironment, sender: Sender) -> bytes:
    """Return the body of an authorized request; raise _Refused."""
    token = sender.token.encode()
    signature = _signature(environ, sender)
    if not signature and not _has_token(environ, token):
        raise _unauthorized()
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_REQUEST_BYTES:
        why = f"an event may have {MAX_REQUEST_BYTES} bytes: let the gateway post no media"
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, EventResult.TOO_LARGE, why)
    body: bytes = environ["wsgi.input"].read(length)
    if signature and not _is_signed(environ, sender, signature, body):
        raise _unauthorized()
    return body


def _parse(sender: Sender, body: bytes, now: float) -> list[Message]:
    """Return the posted messages; raise _Refused."""
    try:
        return parse_event(sender.adapter.read_event, body, now)
    except EventError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, EventResult.INVALID, str(error)) from None


def _unauthorized() -> _Refused:
    return _Refused(HTTPStatus.UNAUTHORIZED, EventResult.UNAUTHORIZED, _UNAUTHORIZED)


def _signature(environ: WSGIEnvironment, sender: Sender) -> str:
    """Return the event's signature, or an empty string."""
    header = sender.adapter.signature_header
    return str(environ.get("HTTP_" + header.upper().replace("-", "_"), "")) if header else ""


def _is_signed(environ: WSGIEnvironment, sender: Sender, signature: str, body: bytes) -> bool:
    """Whether the token signs the body."""
    algorithm = sender.adapter.signature_algorithm
    if environ.get("HTTP_X_WEBHOOK_HMAC_ALGORITHM", algorithm) != algorithm:  # WAHA's
        return False
    right = hmac.new(sender.token.encode(), body, algorithm).hexdigest().encode()
    return hmac.compare_digest(_bytes(signature.lower().removeprefix("sha256=")), right)


def _has_token(environ: WSGIEnvironment, token: bytes) -> bool:
    """Whether the request carries the token.

    As a bearer token, a password, or in the query, for a gateway that only accepts a URL.
    """
    given = token_in(environ.get("HTTP_AUTHORIZATION", ""))
    if given is not None:
        return hmac.compare_digest(given.encode("utf-8", "replace"), token)
    text = _token_in_query(environ)
    # Evolution can append the event's name to the URL, here after the token.
    return any(hmac.compare_digest(_bytes(one), token) for one in (text, text.rpartition("/")[0]))


def _token_in_query(environ: WSGIEnvironment) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return dict(parse_qsl(query, encoding="latin-1")).get("token", "")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def _answer(
    start_response: StartResponse, status: HTTPStatus, why: str, *headers: tuple[str, str]
) -> list[bytes]:
    body = json.dumps({"error": why}).encode() + b"\n"
    length = ("Content-Length", str(len(body)))
    start_response(
        f"{status.value} {status.phrase}", [("Content-Type", "application/json"), length, *headers]
    )
    return [body]
