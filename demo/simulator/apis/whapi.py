"""Whapi.Cloud's HTTP API, modelled on its published OpenAPI document."""

import hashlib
from collections.abc import Iterable
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    is_secret,
    png,
    texts_of_request,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.knobs import MISSING
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_CODES = {"NOT_INIT": 0, "INIT": 1, "LAUNCH": 2, "QR": 3, "AUTH": 4, "ERROR": 5}
_STATUSES = {
    "connected": "AUTH",
    "initializing": "LAUNCH",
    "qr_required": "QR",
    "disconnected": "ERROR",
}


def token_of(secret: str, channel_id: str) -> str:
    """Return the token of a channel of the simulated account."""
    return f"{secret}.{hashlib.sha256(channel_id.encode()).hexdigest()[:12]}"


def whapi_id(channel_id: str) -> str:
    """Return Whapi's own id of a channel, as in its answers and events."""
    return f"ZAPSIM-{hashlib.sha256(channel_id.encode()).hexdigest()[:5].upper()}"


def _error(status: int, words: str) -> HttpAnswer:
    return HttpAnswer(status, {"error": {"code": status, "message": words}})


_NO_CHANNEL = _error(404, "Channel not found")
_NOT_PAIRED = _error(401, "Need channel authorization for using this API method")
_FAILED = _error(500, "Internal server error")


class WhapiApi(SimulatedApi):
    """Calls of one channel, which the token identifies.

    The journal marks a read that would start a stopped channel as `careless`.
    """

    sends_header = True
    unauthorized = missing = _NO_CHANNEL
    unknown = _error(404, "Not found")
    no_code = _error(409, "Channel already authenticated")

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        return (
            ("GET", "/health", self._health),
            ("GET", "/users/login", self._login),
            ("GET", "/users/login/<number>", self._pair),
            ("POST", "/users/logout", self.on("delete", self._logout)),
            ("POST", "/contacts", self._query),
            ("POST", "/messages/text", self._send),
            ("GET", "/messages/list", self.on("messages", self._messages)),
        )

    def is_right(self) -> bool:
        """Whether the token is a channel's."""
        return bool(self.named(""))

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        return {
            "messages": [_row(message)],
            "event": {"type": "messages", "event": "post"},
            "channel_id": whapi_id(message.channel),
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of a channel's status."""
        status = {"code": 4, "text": "AUTH"}
        return {
            "health": {"start_at": 1_770_000_000, "uptime": 60, "status": status},
            "event": {"type": "channel", "event": "post"},
            "channel_id": whapi_id(channel),
        }

    def _health(self) -> Response:
        wakes = request.args.get("wakeup")
        operation = {"false": "status", "true": "restart"}.get(str(wakes), "careless")

        def tell(one: SimulatedChannel, now: float) -> HttpAnswer:
            if wakes != "false":
                _wake(one, now)
            return HttpAnswer(200, _state(one))

        return self.about(operation, self.named(""), tell)

    def _login(self) -> Response:
        looks = request.args.get("wakeup") == "false"

        def show(one: SimulatedChannel, now: float) -> HttpAnswer:
            if not looks:
                _wake(one, now)
            if one.status == "connected":
                return _error(409, "Channel already authenticated")
            if one.status != "qr_required":
                return HttpAnswer(200, {"status": "WAITING"})
            image = f"data:image/png;base64,{png(self.gateway.next_qr())}"
            return HttpAnswer(200, {"status": "OK", "base64": image, "expire": 20})

        return self.about("qr" if looks else "careless", self.named(""), show)

    def _pair(self, number: str) -> Response:
        channel = self.named("")
        return self.issue_code(channel, number, lambda code: HttpAnswer(200, {"code": code}))

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if one.status == "qr_required":
            return _error(409, "Channel already logged out")
        one.unpair(now)
        # The document describes one of the fields and requires the other.
        return HttpAnswer(200, {"success": True, "result": "success"})

    def _query(self) -> Response:
        asked = body_of_request()
        checks = asked.get("force_check") is True

        def ask(one: SimulatedChannel, _: float) -> HttpAnswer:
            if one.status != "connected":
                return _NOT_PAIRED
            if checks and not one.sends:
                return _FAILED
            numbers = asked.get("contacts")
            contacts = [
                {"input": number, "status": "valid", "wa_id": number}
                for number in (numbers if isinstance(numbers, list) else [])
            ]
            return HttpAnswer(200, {"contacts": contacts})

        return self.about("query" if checks else "cached", self.named(""), ask)

    def _send(self) -> Response:
        number, text = texts_of_request("to", "body")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            message = {
                "id": sent.id,
                "from_me": True,
                "type": "text",
                "chat_id": f"{number}@s.whatsapp.net",
                "timestamp": int(self.gateway.clock.time()),
                "source": "api",
                "text": {"body": text},
            }
            return HttpAnswer(200, {"sent": True, "message": message})

        return self.send(self.named(""), number, text, tell, _not_sent)

    def _messages(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        asked = request.args
        count, offset = (int(asked.get(*pair)) for pair in (("count", 100), ("offset", 0)))
        if one.status != "connected":
            return _NOT_PAIRED
        if not 1 <= count <= 500:
            return _error(400, "count must be from 1 to 500")
        found = [
            _row(m)
            for m in self.gateway.messages_of(one)
            if m.kind != "ciphertext" and asked.get("from_me") != str(not m.outgoing).lower()
        ]
        if asked.get("sort") == "desc":
            found.reverse()
        page = found[offset : offset + count]
        return HttpAnswer(200, {"messages": page, "count": len(page), "total": len(found)})

    def named(self, channel: str) -> str:  # noqa: ARG002 - no path has it
        """Return the channel of the token, an empty string for a wrong token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        ids = self.gateway.each(lambda one: one.id) if scheme == "Bearer" else []
        return next((one for one in ids if is_secret(given, token_of(self.secret, one))), "")


def _row(message: SimulatedMessage) -> Event:
    """Return a message as events and lists have it."""
    kinds = {"chat": "text", "protocol": "system", "reaction": "action"}
    return {
        "id": message.id,
        "from_me": message.outgoing,
        "type": kinds.get(message.kind, message.kind),
        "chat_id": message.chat.replace("@c.us", "@s.whatsapp.net"),
        "timestamp": int(message.at),
        "source": "api" if message.by_api else "mobile",
        "text": {"body": message.words or WORDS},
        "from": message.sender or message.chat.partition("@")[0],
    }


def _wake(channel: SimulatedChannel, now: float) -> None:
    if _text(channel) != "STOP":  # STOP ends only with a payment
        channel.begin(now)


def _text(channel: SimulatedChannel) -> Any:
    return channel.knobs.shown("text", _STATUSES[channel.status]).get("text", MISSING)


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


def _not_sent(channel: SimulatedChannel, _: float) -> HttpAnswer:
    if channel.status != "connected":
        return _NOT_PAIRED
    return HttpAnswer(200, {"sent": False})
