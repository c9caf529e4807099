"""OpenWA's HTTP API, modelled on its API specification."""

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    CUSTOMER,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    png,
    texts_of_request,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_STATUSES = {
    "connected": "ready",
    "initializing": "initializing",
    "qr_required": "qr_ready",
    "disconnected": "disconnected",
}


def openwa_id(channel_id: str) -> str:
    """Return OpenWA's own id of a session, as in its paths and events."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, channel_id))


def _error(status: int, words: str, kind: str) -> HttpAnswer:
    return HttpAnswer(status, {"statusCode": status, "message": words, "error": kind})


_NOT_STARTED = _error(400, "Session is not started", "Bad Request")
_STARTED = _error(400, "Session is already started", "Bad Request")
_NOT_READY = _error(409, "Engine is not ready", "Conflict")


class OpenwaApi(SimulatedApi):
    """Calls about sessions, contacts and messages."""

    key_header = "X-API-Key"
    unauthorized = _error(401, "Invalid API key", "Unauthorized")
    unknown = _error(404, "Cannot find that", "Not Found")
    missing = _error(404, "Session not found", "Not Found")
    no_code = _error(409, "Session is not waiting to be linked", "Conflict")
    signature = ("X-OpenWA-Signature", "sha256=")

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "/api/sessions/<encoded:channel>"
        return (
            ("GET", "/api/sessions", self._list),
            ("GET", one, self.on("status", self._status)),
            ("POST", f"{one}/stop", self.on("stop", self._stop)),
            ("POST", f"{one}/start", self.on("start_session", self._start)),
            ("GET", f"{one}/qr", self.on("qr", self._qr)),
            ("POST", f"{one}/pairing-code", self._pair),
            ("POST", f"{one}/logout", self.on("delete", self._logout)),
            ("GET", f"{one}/contacts/check/<encoded:number>", self.on("query", self._query)),
            ("POST", f"{one}/messages/send-text", self._send),
            ("POST", f"{one}/messages/delete", self._take_back),
            ("GET", f"{one}/messages", self._messages),
        )

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        chat = f"{message.sender or CUSTOMER}@c.us"
        return {
            "event": "message.sent" if message.outgoing else "message.received",
            "timestamp": dt.datetime.fromtimestamp(message.at, dt.UTC).isoformat(),
            "sessionId": openwa_id(message.channel),
            "data": {
                "id": f"{str(message.outgoing).lower()}_{chat}_{message.id}",
                "chatId": chat,
                "from": chat,
                "timestamp": int(message.at),
                "body": message.words or WORDS,
            },
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of an acknowledgement."""
        return {"event": "message.ack", "sessionId": openwa_id(channel), "data": {}}

    def _list(self) -> Response:
        limit, offset = (int(request.args.get(name, 0)) for name in ("limit", "offset"))
        end = offset + min(limit or 1000, 1000)
        return self.answer(
            "list", None, lambda: HttpAnswer(200, self.gateway.each(_session)[offset:end])
        )

    def _status(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        return HttpAnswer(200, _session(one))

    def _stop(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if not _has_engine(one):
            return _NOT_STARTED
        one.close()
        return HttpAnswer(200, _session(one))

    def _start(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if _has_engine(one):
            return _STARTED
        one.begin(now)
        return HttpAnswer(200, _session(one))

    def _qr(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "qr_required":
            return _error(400, "QR code is not ready yet", "Bad Request")
        code = f"data:image/png;base64,{png(self.gateway.next_qr())}"
        return HttpAnswer(200, {"qrCode": code, "status": "qr_ready"})

    def _pair(self, channel: str) -> Response:
        (number,) = texts_of_request("phoneNumber")

        def tell(code: str) -> HttpAnswer:
            return HttpAnswer(201, {"pairingCode": code.replace("-", "")})

        return self.issue_code(self.named(channel), number, tell)

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if not _has_engine(one):
            return _NOT_STARTED
        one.unpair(now)
        return HttpAnswer(200, _session(one))

    def _query(self, one: SimulatedChannel, _: float, *, number: str) -> HttpAnswer:
        if not one.sends:
            return _NOT_READY
        found = {"number": number, "exists": True, "whatsappId": f"{number}@c.us"}
        return HttpAnswer(200, found)

    def _send(self, channel: str) -> Response:
        chat, text = texts_of_request("chatId", "text")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            at = int(self.gateway.clock.time() * 1000)
            return HttpAnswer(201, {"messageId": f"true_{chat}_{sent.id}", "timestamp": at})

        return self.send(self.named(channel), chat, text, tell, lambda *_: _NOT_READY)

    def _take_back(self, channel: str) -> Response:
        chat, message = texts_of_request("chatId", "messageId")
        unknown = _error(404, "Message not found", "Not Found")
        done = HttpAnswer(200, {"success": True})
        return self.take_back(self.named(channel), chat, message, done, unknown)

    def _messages(self, channel: str) -> Response:
        limit = min(100, int(request.args.get("limit", 50)))
        offset = int(request.args.get("offset", 0))
        careful = request.args.get("inlineMedia") == "false"

        def tell(one: SimulatedChannel, _: float) -> HttpAnswer:
            rows = [
                {
                    "id": str(uuid.uuid5(uuid.NAMESPACE_URL, m.id)),
                    "waMessageId": m.serialized,
                    "chatId": m.chat,
                    "body": m.words or WORDS,
                    "type": "text" if m.kind == "chat" else m.kind,
                    "direction": "outgoing" if m.outgoing else "incoming",
                    "timestamp": int(m.at),
                }
                for m in reversed(self.gateway.messages_of(one))
                if m.kind not in {"protocol", "reaction", "ciphertext"}
            ]
            page = {"messages": rows[offset : offset + limit], "total": len(rows)}
            return HttpAnswer(200, page)

        # Else each page may hold megabytes of pictures.
        return self.about("messages" if careful else "careless", self.named(channel), tell)

    def named(self, channel: str) -> str:
        """Return a session's name by its id, an empty string if it is unknown."""
        names = self.gateway.each(lambda one: one.id)
        return next((one for one in names if openwa_id(one) == channel), "")


def _has_engine(channel: SimulatedChannel) -> bool:
    return channel.status != "disconnected"


def _session(channel: SimulatedChannel) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": openwa_id(channel.id),
        "name": channel.id,
        "phone": channel.number if channel.knobs.session == "paired" else None,
        "lastError": None,
        "restriction": None,
        "engineLoaded": _has_engine(channel),
    }
    entry |= channel.knobs.shown("status", _STATUSES[channel.status])
    if channel.active_at is not None and channel.knobs.tells_activity:
        entry["lastActive"] = dt.datetime.fromtimestamp(channel.active_at, dt.UTC).isoformat()
    return entry
