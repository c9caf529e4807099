"""Common base of the APIs: a call is recorded, checked, subject to faults, and answered."""

import base64
import datetime as dt
import hmac
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, cast

from flask import Blueprint, Response, request

from demo.simulator import qr_image
from demo.simulator.channel import SimulatedChannel
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Call, Journal
from demo.simulator.messages import SimulatedMessage
from demo.simulator.misbehaviour import carry_out
from demo.simulator.model import SimulatedGateway
from demo.simulator.responses import HttpAnswer, as_json

WEBHOOK_SECRET = "a-secret-of-the-webhook"  # noqa: S105 - not a real secret
CUSTOMER = "5500000000001"
WORDS = "See you at nine?"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


Work = Callable[..., HttpAnswer]
"""Answers a call about a channel, from it, the current time and the rest of the path by name."""
View = Callable[..., Response]
Event = dict[str, Any]
Route = tuple[str, str, View]
"""HTTP method, path, view."""


class SimulatedApi(ABC):
    """One API of the simulated gateway: its calls, and the events that it posts."""

    unauthorized: ClassVar[HttpAnswer]
    """Answer to a wrong secret."""
    unknown: ClassVar[HttpAnswer]
    """Answer to an unknown path."""
    missing: ClassVar[HttpAnswer]
    """Answer about an unknown channel."""
    no_code: ClassVar[HttpAnswer]
    """Answer if no pairing code is issued."""
    key_header: ClassVar[str]
    paths: ClassVar[str] = "/"
    """Prefix of all paths."""
    signature: ClassVar[tuple[str, str] | None] = None
    """Header of each event's HMAC-SHA256 signature, and the prefix of its digits."""
    sends_header: ClassVar[bool] = False
    """Whether its webhooks have headers of the user's: the token, instead of a signature."""

    def __init__(
        self, gateway: SimulatedGateway, faults: FaultBook, journal: Journal, secret: str
    ) -> None:
        """Serve the gateway's channels to callers with the secret."""
        self.gateway = gateway
        self.secret = secret
        self._faults = faults
        self._journal = journal

    @abstractmethod
    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""

    def is_right(self) -> bool:
        """Whether the request contains the secret."""
        return is_secret(request.headers.get(self.key_header, ""), self.secret)

    @staticmethod
    @abstractmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""

    @staticmethod
    @abstractmethod
    def other(channel: str) -> Event:
        """Return the most frequent other event, which is posted for zombies too."""

    @classmethod
    def event_headers(cls, token: str, body: bytes) -> dict[str, str]:
        """Return the headers that authenticate an event; none if the URL has the token."""
        if cls.signature is None:
            return {"Authorization": f"Bearer {token}"} if cls.sends_header else {}
        name, prefix = cls.signature
        return {name: prefix + hmac.new(token.encode(), body, "sha256").hexdigest()}

    def blueprint(self) -> Blueprint:
        """Create the routes. Paths arrive undecoded, so that `%2F` is no separator."""
        made = Blueprint("api", __name__)
        for number, (method, path, view) in enumerate(self.routes()):
            made.add_url_rule(path, str(number), view, methods=[method])
        made.add_url_rule(f"{self.paths}<path:rest>", "unknown", self._unknown, methods=METHODS)
        return made

    def on(self, operation: str, work: Work, missing: HttpAnswer | None = None) -> View:
        """Return the view of a call about the channel that the request names."""

        def view(channel: str = "", **more: str) -> Response:
            return self.about(operation, self.named(channel), partial(work, **more), missing)

        return view

    def named(self, channel: str) -> str:
        """Return the channel of a request, from the name in its path if it has one."""
        return channel

    def no_such(self, channel: str) -> HttpAnswer:  # noqa: ARG002 - some APIs repeat the name
        """Return the answer about an unknown channel."""
        return self.missing

    def refusal(self) -> HttpAnswer:
        """Return the answer to a wrong secret."""
        return self.unauthorized

    def about(
        self, operation: str, channel: str, work: Work, missing: HttpAnswer | None = None
    ) -> Response:
        """Answer a call about a channel with `work`, or `missing` if it is unknown."""
        missing = missing or self.no_such(channel)
        return self.answer(operation, channel, lambda: self.gateway.at(channel, work, missing))

    def issue_code(self, channel: str, number: str, told: Callable[[str], HttpAnswer]) -> Response:
        """Issue a pairing code; ``told`` turns it into the answer."""

        def issue(one: SimulatedChannel, now: float) -> HttpAnswer:
            if one.status != "qr_required" or one.knobs.pairing == "refused":
                return self.no_code
            code = self.gateway.next_pairing_code()
            one.issue_code(number, code, now)
            return told(f"{code[:4]}-{code[4:]}")

        return self.about("pairing_code", channel, issue)

    def send(
        self,
        channel: str,
        number: str,
        text: str,
        told: Callable[[SimulatedMessage], HttpAnswer],
        unsent: Work,
    ) -> Response:
        """Send a text; ``told`` turns the message into the answer, ``unsent`` refuses it."""

        def send() -> HttpAnswer:
            sent = self.gateway.send(channel, number.removesuffix("@c.us"), text)
            if sent is not None:
                return told(sent)
            return self.gateway.at(channel, unsent, self.no_such(channel))

        return self.answer("send", channel, send)

    def take_back(
        self, channel: str, chat: str, message: str, done: HttpAnswer, unknown: HttpAnswer
    ) -> Response:
        """Delete a message of a chat at both ends; ids are WhatsApp Web's."""

        def take() -> HttpAnswer:
            bare = message.removeprefix(f"true_{chat}_")
            taken = self.gateway.take_back(channel, chat.removesuffix("@c.us"), bare)
            return done if taken else unknown

        return self.answer("take_back", channel, take)

    def answer(
        self,
        operation: str,
        channel: str | None,
        work: Callable[[], HttpAnswer],
        *,
        right: bool | None = None,
        refusal: HttpAnswer | None = None,
    ) -> Response:
        """Answer a call with `work` if its secret is `right` and no fault is on.

        `refusal` is the answer to a wrong secret if it is not the usual one.
        """
        right = self.is_right() if right is None else right
        request_id = request.headers.get("X-Request-Id")
        call = Call(request.method, request.path, operation, channel, right, request_id)
        self._journal.begin(call)
        ordinary = work if right else lambda: refusal or self.refusal()
        on = self._faults.take(operation, channel, trusted=right)
        if on is None:
            answer = ordinary()
            call.status = answer.status
            return as_json(*answer)
        call.fault = on.fault.name
        connection = cast("socket.socket", request.environ["werkzeug.socket"])
        outcome = carry_out(on, ordinary, connection)
        call.status = outcome.status
        return outcome.response

    def _unknown(self, **_: str) -> Response:
        return self.answer("unknown", None, lambda: self.unknown)


def is_secret(given: str, secret: str) -> bool:
    """Whether a header or path segment equals the secret, in constant time."""
    # WSGI hands header bytes over as Latin-1 text.
    return hmac.compare_digest(given.encode("latin-1", "replace"), secret.encode())


def texts_of_request(*names: str) -> list[str]:
    """Return the texts at the names in the request's JSON, empty ones for missing values."""
    body = body_of_request()
    return [str(body.get(name) or "") for name in names]


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


def rfc3339(at: float) -> str:
    """Return a time in whole seconds as Go writes it."""
    return dt.datetime.fromtimestamp(int(at), dt.UTC).isoformat()
