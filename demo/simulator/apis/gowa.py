"""The HTTP API of go-whatsapp-web-multidevice, modelled on its published document."""

import base64
from collections.abc import Iterable
from typing import Any

from flask import Response, request

from demo.simulator import qr_image
from demo.simulator.apis.calls import (
    CUSTOMER,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    is_secret,
    rfc3339,
    texts_of_request,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_STATES = {
    "connected": "logged_in",
    "initializing": "connecting",
    # The socket is connected without a login.
    "qr_required": "connected",
    "disconnected": "disconnected",
}


def _ok(results: Any) -> HttpAnswer:
    return HttpAnswer(
        200, {"status": 200, "code": "SUCCESS", "message": "Success", "results": results}
    )


def _error(status: int, code: str, words: str) -> HttpAnswer:
    return HttpAnswer(status, {"code": code, "message": words, "results": {}})


_TIMED_OUT = _error(500, "INTERNAL_SERVER_ERROR", "info query timed out")
# With the HTTP status of a wrong password.
_NOT_CONNECTED = _error(401, "AUTHENTICATION_ERROR", "you are not connect to services server")
_NOT_PAIRED = _error(500, "INTERNAL_SERVER_ERROR", "device is not logged in (session deleted)")


class GowaApi(SimulatedApi):
    """Calls about devices, contacts and texts."""

    unauthorized = _error(401, "UNAUTHORIZED", "Unauthorized")
    unknown = _error(404, "NOT_FOUND", "Cannot find that")
    missing = _error(404, "NOT_FOUND", "device not found")
    no_code = _error(500, "INTERNAL_SERVER_ERROR", "error when pairing")
    signature = ("X-Hub-Signature-256", "sha256=")

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "/devices/<encoded:channel>"
        return (
            ("GET", "/devices", self._list),
            ("POST", f"{one}/reconnect", self.on("restart", self._reconnect)),
            ("GET", f"{one}/login", self.on("qr", self._login)),
            ("POST", f"{one}/login/code", self._pair),
            ("POST", f"{one}/logout", self.on("delete", self._logout)),
            ("GET", "/user/check", self.on("query", self._query)),
            ("POST", "/send/message", self._send),
            ("GET", "/chats", self.on("chats", self._chats)),
            ("GET", "/chat/<encoded:chat>/messages", self.on("messages", self._messages)),
            ("GET", "/statics/qr-<int:number>.png", self._image),
        )

    def is_right(self) -> bool:
        """Whether basic authentication contains user and password."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme == "Basic" and is_secret(given, _basic(self.secret))

    def named(self, channel: str) -> str:
        """Return the device in the path, else in the header; WSGI hands that over as Latin-1."""
        given = request.headers.get("X-Device-Id", "")
        return channel or given.encode("latin-1").decode(errors="replace")

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        return {
            "event": "message",
            "device_id": f"{CUSTOMER}@s.whatsapp.net",
            "session_id": message.channel,
            "payload": {
                "id": message.id,
                "is_from_me": message.outgoing,
                "timestamp": rfc3339(message.at),
                "from": f"{message.sender or CUSTOMER}@s.whatsapp.net",
                "body": message.words or WORDS,
            },
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of an acknowledgement."""
        return {"event": "message.ack", "session_id": channel}

    def _list(self) -> Response:
        # Go writes an empty list as null.
        return self.answer("list", None, lambda: _ok(self.gateway.each(_device) or None))

    def _reconnect(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if not _is_paired(one):
            return _NOT_PAIRED
        one.restart(now)
        return _ok("Reconnect success")

    def _login(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if one.status == "connected":
            return _error(400, "ALREADY_LOGGED_IN", "you are already logged in")
        one.begin(now)
        if one.status != "qr_required":
            return _error(500, "SESSION_SAVED_ERROR", "your session have been saved")
        link = f"{request.host_url}statics/qr-{self.gateway.next_qr()}.png"
        return _ok({"device_id": one.id, "qr_link": link, "qr_duration": 30})

    def _pair(self, channel: str) -> Response:
        number = request.args.get("phone", "")
        return self.issue_code(
            channel, number, lambda code: _ok({"device_id": channel, "pair_code": code})
        )

    def _image(self, number: int) -> Response:
        return Response(qr_image.png(number), 200, mimetype="image/png")

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        one.unpair(now)
        return _ok("Logout success")

    def _chats(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        last = {_jid(m.chat): m.at for m in self.gateway.messages_of(one)}
        newest = sorted(last, key=lambda jid: -last[jid])
        rows = [{"jid": jid, "last_message_time": rfc3339(last[jid])} for jid in newest]
        return _page(rows)

    def _messages(self, one: SimulatedChannel, _: float, *, chat: str) -> HttpAnswer:
        found = [m for m in self.gateway.messages_of(one) if _jid(m.chat) == chat]
        own = request.args.get("is_from_me")
        rows = [
            {
                "id": m.id,
                "chat_jid": chat,
                "content": m.words or WORDS,
                "timestamp": rfc3339(m.at),
                "is_from_me": m.outgoing,
                "media_type": "" if m.kind == "chat" else m.kind,
            }
            for m in reversed(found)
            if m.kind not in {"protocol", "reaction", "ciphertext"}
            and own != str(not m.outgoing).lower()
        ]
        return _page(rows)

    def _query(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        return _ok({"is_on_whatsapp": True}) if one.sends else _cut_off(one)

    def _send(self) -> Response:
        number, text = texts_of_request("phone", "message")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            return _ok({"message_id": sent.id, "status": "Message sent"})

        return self.send(self.named(""), number, text, tell, lambda one, _: _cut_off(one))


def _jid(chat: str) -> str:
    """Return a chat as whatsmeow names it."""
    return chat.replace("@c.us", "@s.whatsapp.net")


def _page(rows: list[dict[str, Any]]) -> HttpAnswer:
    limit, offset = (int(request.args.get(name, 0)) for name in ("limit", "offset"))
    if not 1 <= limit <= 100:
        return _error(400, "VALIDATION_ERROR", "limit: must be from 1 to 100")
    pagination = {"limit": limit, "offset": offset, "total": len(rows)}
    return _ok({"data": rows[offset : offset + limit], "pagination": pagination})


def _basic(secret: str) -> str:
    return base64.b64encode(secret.encode()).decode()


def _is_paired(channel: SimulatedChannel) -> bool:
    return channel.knobs.session != "unpaired"


def _cut_off(channel: SimulatedChannel) -> HttpAnswer:
    return _TIMED_OUT if channel.status == "connected" else _NOT_CONNECTED


def _device(channel: SimulatedChannel) -> dict[str, Any]:
    jid = f"{channel.number}:7@s.whatsapp.net" if _is_paired(channel) else ""
    entry = {"id": channel.id, "display_name": "Example", "jid": jid}
    return entry | channel.knobs.shown("state", _STATES[channel.status])
