"""The HTTP API of wuzapi, modelled on its API.md and its source."""

from collections.abc import Iterable
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    CUSTOMER,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    is_secret,
    png,
    rfc3339,
    texts_of_request,
)
from demo.simulator.apis.whapi import token_of
from demo.simulator.channel import SimulatedChannel
from demo.simulator.knobs import AS_IT_IS, MISSING
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_SHOWN_QR = "data:image/png;base64,"


def _ok(data: Any) -> HttpAnswer:
    return HttpAnswer(200, {"code": 200, "data": data, "success": True})


def _error(status: int, words: str) -> HttpAnswer:
    return HttpAnswer(status, {"code": status, "error": words, "success": False})


_NO_SESSION = _error(500, "no session")


class WuzapiApi(SimulatedApi):
    """The administrator's list, and the calls of a user, identified by a token."""

    unauthorized = _error(401, "unauthorized")
    unknown = _error(404, "Cannot find that")
    missing = unauthorized
    no_code = _error(500, "already paired")
    signature = ("x-hmac-signature", "")

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        return (
            ("GET", "/admin/users", self._list),
            ("POST", "/session/connect", self.on("start_session", self._connect)),
            ("POST", "/session/disconnect", self.on("close_session", self._disconnect)),
            ("GET", "/session/qr", self.on("qr", self._qr)),
            ("POST", "/session/pairphone", self._pair),
            ("POST", "/session/logout", self.on("delete", self._logout)),
            ("POST", "/user/check", self.on("query", self._query)),
            ("POST", "/chat/send/text", self._send),
        )

    def is_right(self) -> bool:
        """Whether the token is a user's, or for the list the administrator's."""
        if request.path == "/admin/users":
            return is_secret(request.headers.get("Authorization", ""), self.secret)
        return bool(self.named(""))

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        return {
            "type": "Message",
            "event": {
                "Info": {
                    "ID": message.id,
                    "IsFromMe": message.outgoing,
                    "Timestamp": rfc3339(message.at),
                    "Chat": f"{message.sender or CUSTOMER}@s.whatsapp.net",
                },
                "Message": {"conversation": message.words or WORDS},
            },
            "instanceName": message.channel,
            "userID": "0123456789abcdef",
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of a receipt."""
        return {"type": "ReadReceipt", "event": {}, "instanceName": channel}

    def _list(self) -> Response:
        return self.answer("list", None, lambda: _ok(self.gateway.each(self._entry)))

    def _connect(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if not request.get_data():
            return _error(400, "could not decode Payload")
        if one.status != "disconnected":
            return _error(500, "already connected")
        one.begin(now)
        return _ok({"details": "Connected!", "events": "Message", "jid": _jid(one)})

    def _disconnect(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status == "disconnected":
            return _NO_SESSION
        one.close()
        return _ok({"Details": "Disconnected"})

    def _qr(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status == "connected":
            return _error(500, "already logged in")
        if one.status != "qr_required":
            return _error(500, "not connected")
        return _ok({"QRCode": f"{_SHOWN_QR}{png(self.gateway.next_qr())}"})

    def _pair(self) -> Response:
        (number,) = texts_of_request("Phone")
        return self.issue_code(self.named(""), number, lambda code: _ok({"LinkingCode": code}))

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if one.status == "disconnected":
            return _NO_SESSION
        one.unpair(now)
        return _ok({"Details": "Logged out"})

    def _query(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        numbers = body_of_request().get("Phone")
        if not one.sends:
            return _NO_SESSION
        asked = numbers if isinstance(numbers, list) else []
        return _ok({"Users": [{"Query": number, "IsInWhatsapp": True} for number in asked]})

    def _send(self) -> Response:
        number, text = texts_of_request("Phone", "Body")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            return _ok({"Details": "Sent", "Id": sent.id})

        return self.send(self.named(""), number, text, tell, lambda *_: _NO_SESSION)

    def named(self, channel: str) -> str:  # noqa: ARG002 - no path has it
        """Return the token's user, an empty string for a wrong token."""
        given = request.headers.get("token", "")
        names = self.gateway.each(lambda one: one.id)
        return next((one for one in names if is_secret(given, token_of(self.secret, one))), "")

    def _entry(self, channel: SimulatedChannel) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "id": f"id-of-{channel.number}",
            "name": channel.id,
            "token": token_of(self.secret, channel.id),
            "jid": _jid(channel),
            "events": "Message",
        }
        shown = channel.knobs.status_text
        if shown == AS_IT_IS:
            entry["connected"] = channel.status != "disconnected"
            entry["loggedIn"] = channel.status == "connected"
            entry["qrcode"] = f"{_SHOWN_QR}AA==" if channel.status == "qr_required" else ""
        elif isinstance(shown, dict):
            entry |= shown
        elif shown != MISSING:
            entry["connected"] = shown
        return entry


def _jid(channel: SimulatedChannel) -> str:
    paired = channel.knobs.session == "paired"
    return f"{channel.number}.0:52@s.whatsapp.net" if paired else ""
