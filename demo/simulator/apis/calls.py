"""Common handling of a call: record it, check the secret, apply a fault, answer."""

import base64
import hmac
import socket
from collections.abc import Callable
from typing import Protocol, cast

from flask import Blueprint, Response, request

from demo.simulator import qr_image
from demo.simulator.apis.wrapper_answers import WrapperAnswer
from demo.simulator.channel import SimulatedChannel
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Call, Journal
from demo.simulator.misbehaviour import carry_out
from demo.simulator.model import SimulatedGateway
from demo.simulator.responses import as_json

WEBHOOK_SECRET = "a-secret-of-the-webhook"  # noqa: S105 - not a real secret
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class SimulatedApi(Protocol):
    """One API of the simulated gateway."""

    def __init__(
        self, gateway: SimulatedGateway, faults: FaultBook, journal: Journal, secret: str
    ) -> None:
        """Serve the gateway's channels to callers with the secret."""

    def blueprint(self) -> Blueprint:
        """Create the routes. Paths arrive undecoded, so that `%2F` is no separator."""


class SimulatedCalls:
    """Answers the calls of one API; `unauthorized` is the answer to a wrong secret."""

    def __init__(self, faults: FaultBook, journal: Journal, unauthorized: WrapperAnswer) -> None:
        self._faults = faults
        self._journal = journal
        self._unauthorized = unauthorized

    def answer(
        self, operation: str, channel: str | None, work: Callable[[], WrapperAnswer], *, right: bool
    ) -> Response:
        """Answer a call with `work`, if its secret is `right` and no fault is on."""
        call = self._begin(operation, channel, right=right)
        ordinary = work if right else lambda: self._unauthorized
        on = self._faults.take(operation, channel, trusted=right)
        if on is None:
            answer = ordinary()
            self._journal.finish(call, answer.status)
            return as_json(*answer)
        call.fault = on.fault.name
        connection = cast("socket.socket", request.environ["werkzeug.socket"])
        outcome = carry_out(on, ordinary, connection)
        self._journal.finish(call, outcome.status)
        return outcome.response

    def elsewhere(self, answer: WrapperAnswer, *, right: bool) -> Response:
        """Simulate another server, which must not receive the secret."""
        call = self._begin("elsewhere", None, right=right)
        self._journal.finish(call, 200)
        return as_json(*answer)

    def _begin(self, operation: str, channel: str | None, *, right: bool) -> Call:
        return self._journal.begin(
            method=request.method,
            path=request.path,
            operation=operation,
            channel=channel,
            secret_right=right,
            request_id=request.headers.get("X-Request-Id"),
        )


def is_secret(given: str, secret: str) -> bool:
    """Whether a header or path segment equals the secret, in constant time."""
    # WSGI hands header bytes over as Latin-1 text.
    return hmac.compare_digest(given.encode("latin-1", "replace"), secret.encode())


def body_of_request() -> dict[str, object]:
    """Return the request's JSON object, or an empty one."""
    body = request.get_json(force=True, silent=True)
    return body if isinstance(body, dict) else {}


def png(number: int) -> str:
    """Return a QR code's PNG image in base64."""
    return base64.b64encode(qr_image.png(number)).decode()


def webhook_url(channel: SimulatedChannel) -> str:
    """Return the URL of a channel's webhook, as in the answers of its API."""
    host = "other" if channel.knobs.posting == "moved" else "crm"
    secret = WEBHOOK_SECRET
    return f"https://user:{secret}@{host}.example.com:8443/hooks/{secret}?token={secret}"
