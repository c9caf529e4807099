"""Whapi.Cloud's HTTP API, modelled on its published OpenAPI document."""

import hashlib
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from demo.simulator.apis.calls import METHODS, SimulatedCalls, body_of_request, is_secret, png
from demo.simulator.apis.wrapper_answers import WrapperAnswer
from demo.simulator.channel import SimulatedChannel
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Journal
from demo.simulator.knobs import AS_IT_IS, MISSING
from demo.simulator.messages import SimulatedMessage
from demo.simulator.model import SimulatedGateway

_CODES = {"NOT_INIT": 0, "INIT": 1, "LAUNCH": 2, "QR": 3, "AUTH": 4, "ERROR": 5}
_STATUSES = {
    "connected": "AUTH",
    "initializing": "LAUNCH",
    "qr_required": "QR",
    "disconnected": "ERROR",
}

_Work = Callable[[SimulatedChannel, float], WrapperAnswer]


def token_of(secret: str, channel_id: str) -> str:
    """Return the token of a channel of the simulated account."""
    return f"{secret}.{hashlib.sha256(channel_id.encode()).hexdigest()[:12]}"


def whapi_id(channel_id: str) -> str:
    """Return Whapi's own id of a channel, as in its answers and events."""
    return f"ZAPSIM-{hashlib.sha256(channel_id.encode()).hexdigest()[:5].upper()}"


def whapi_row(message: SimulatedMessage, at: float) -> dict[str, Any]:
    """Return a message as events and lists have it."""
    kinds = {"chat": "text", "protocol": "system", "reaction": "action"}
    return {
        "id": message.id,
        "from_me": message.outgoing,
        "type": kinds.get(message.kind, message.kind),
        "chat_id": message.chat.replace("@c.us", "@s.whatsapp.net"),
        "timestamp": int(at),
        "source": "api" if message.by_api else "mobile",
        "text": {"body": message.words or "See you at nine?"},
        "from": message.sender or message.chat.partition("@")[0],
    }


def _error(status: int, words: str) -> WrapperAnswer:
    return WrapperAnswer(status, {"error": {"code": status, "message": words}})


_UNKNOWN = _error(404, "Not found")
_NO_CHANNEL = _error(404, "Channel not found")
_NOT_PAIRED = _error(401, "Need channel authorization for using this API method")
_FAILED = _error(500, "Internal server error")


class WhapiApi:
    """Calls of one channel, which the token identifies.

    The journal marks a read that would start a stopped channel as `careless`.
    """

    def __init__(
        self, gateway: SimulatedGateway, faults: FaultBook, journal: Journal, secret: str
    ) -> None:
        self._gateway = gateway
        self._calls = SimulatedCalls(faults, journal, _NO_CHANNEL)
        self._secret = secret

    def blueprint(self) -> Blueprint:
        """Create the routes."""
        routes = Blueprint("api", __name__)
        add = routes.add_url_rule
        add("/health", "health", self._health, methods=["GET"])
        add("/users/login", "qr", self._login, methods=["GET"])
        add("/users/logout", "delete", self._logout, methods=["POST"])
        add("/contacts", "query", self._query, methods=["POST"])
        add("/messages/text", "send", self._send, methods=["POST"])
        add("/messages/list", "messages", self._messages, methods=["GET"])
        add("/<path:rest>", "unknown", self._unknown, methods=METHODS)
        return routes

    def _health(self) -> Response:
        wakes = request.args.get("wakeup")
        operation = {"false": "status", "true": "restart"}.get(str(wakes), "careless")

        def tell(one: SimulatedChannel, now: float) -> WrapperAnswer:
            if wakes != "false":
                _wake(one, now)
            return WrapperAnswer(200, _state(one))

        return self._about(operation, tell)

    def _login(self) -> Response:
        looks = request.args.get("wakeup") == "false"

        def show(one: SimulatedChannel, now: float) -> WrapperAnswer:
            if not looks:
                _wake(one, now)
            if one.status == "connected":
                return _error(409, "Channel already authenticated")
            if one.status != "qr_required":
                return WrapperAnswer(200, {"status": "WAITING"})
            image = f"data:image/png;base64,{png(self._gateway.next_qr())}"
            return WrapperAnswer(200, {"status": "OK", "base64": image, "expire": 20})

        return self._about("qr" if looks else "careless", show)

    def _logout(self) -> Response:
        def logout(one: SimulatedChannel, now: float) -> WrapperAnswer:
            if one.status == "qr_required":
                return _error(409, "Channel already logged out")
            one.unpair(now)
            # The document describes one of the fields and requires the other.
            return WrapperAnswer(200, {"success": True, "result": "success"})

        return self._about("delete", logout)

    def _query(self) -> Response:
        asked = body_of_request()

        def ask(one: SimulatedChannel, _: float) -> WrapperAnswer:
            if one.status != "connected":
                return _NOT_PAIRED
            if asked.get("force_check") is True and not one.sends:
                return _FAILED
            numbers = asked.get("contacts")
            contacts = [
                {"input": number, "status": "valid", "wa_id": number}
                for number in (numbers if isinstance(numbers, list) else [])
            ]
            return WrapperAnswer(200, {"contacts": contacts})

        return self._about("query" if asked.get("force_check") is True else "cached", ask)

    def _send(self) -> Response:
        body = body_of_request()
        number, text = (str(body.get(name) or "") for name in ("to", "body"))
        channel = self._channel()

        def send() -> WrapperAnswer:
            sent = self._gateway.send(channel or "", number, text)
            if sent is None:
                return self._gateway.at(channel or "", _not_sent, _NO_CHANNEL)
            message = {
                "id": sent.id,
                "from_me": True,
                "type": "text",
                "chat_id": f"{number}@s.whatsapp.net",
                "timestamp": int(self._gateway.clock.time()),
                "source": "api",
                "text": {"body": text},
            }
            return WrapperAnswer(200, {"sent": True, "message": message})

        return self._calls.answer("send", channel, send, right=channel is not None)

    def _messages(self) -> Response:
        asked = request.args
        count, offset = (int(asked.get(*pair)) for pair in (("count", 100), ("offset", 0)))

        def tell(one: SimulatedChannel, _: float) -> WrapperAnswer:
            if one.status != "connected":
                return _NOT_PAIRED
            if not 1 <= count <= 500:
                return _error(400, "count must be from 1 to 500")
            found = [
                whapi_row(m, m.at or 0.0)
                for m in self._gateway.messages_of(one)
                if m.kind != "ciphertext" and asked.get("from_me") != str(not m.outgoing).lower()
            ]
            if asked.get("sort") == "desc":
                found.reverse()
            page = found[offset : offset + count]
            return WrapperAnswer(200, {"messages": page, "count": len(page), "total": len(found)})

        return self._about("messages", tell)

    def _unknown(self, **_: str) -> Response:
        right = self._channel() is not None
        return self._calls.answer("unknown", None, lambda: _UNKNOWN, right=right)

    def _about(self, operation: str, work: _Work) -> Response:
        channel = self._channel()

        def answer() -> WrapperAnswer:
            return self._gateway.at(channel or "", work, _NO_CHANNEL)

        return self._calls.answer(operation, channel, answer, right=channel is not None)

    def _channel(self) -> str | None:
        """Return the channel of the token, None for a wrong token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return None
        ids = self._gateway.each(lambda one: one.id)
        return next((one for one in ids if is_secret(given, token_of(self._secret, one))), None)


def _wake(channel: SimulatedChannel, now: float) -> None:
    if _text(channel) != "STOP":  # STOP ends only with a payment
        channel.begin(now)


def _text(channel: SimulatedChannel) -> Any:
    shown = channel.knobs.status_text
    return _STATUSES[channel.status] if shown == AS_IT_IS else shown


def _state(channel: SimulatedChannel) -> dict[str, Any]:
    text = _text(channel)
    status: dict[str, Any] = {}
    if text != MISSING:
        status = {"code": _CODES.get(text, 9) if isinstance(text, str) else 9, "text": text}
    state: dict[str, Any] = {
        "channel_id": whapi_id(channel.id),
        "start_at": 1_770_000_000,
        "uptime": 3600,
        "version": "1.8.7",
        "status": status,
    }
    if channel.status == "connected":
        state["user"] = {"id": channel.number, "name": "Example"}
    return state


def _not_sent(channel: SimulatedChannel, _: float) -> WrapperAnswer:
    if channel.status != "connected":
        return _NOT_PAIRED
    return WrapperAnswer(200, {"sent": False})
