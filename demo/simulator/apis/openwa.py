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
    Work,
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
        one = "/api/sessions/<encoded:session>"
        return (
            ("GET", "/api/sessions", self._list),
            ("GET", one, self._status),
            ("POST", f"{one}/stop", self._stop),
            ("POST", f"{one}/start", self._start),
            ("GET", f"{one}/qr", self._qr),
            ("POST", f"{one}/pairing-code", self._pair),
            ("POST", f"{one}/logout", self._logout),
            ("GET", f"{one}/contacts/check/<encoded:number>", self._query),
            ("POST", f"{one}/messages/send-text", self._send),
            ("POST", f"{one}/messages/delete", self._take_back),
            ("GET", f"{one}/messages", self._messages),
        )

    @staticmethod
    def event(message: SimulatedMessage, at: float) -> Event:
        """Return the event of a message."""
        chat = f"{message.sender or CUSTOMER}@c.us"
        return {
            "event": "message.sent" if message.outgoing else "message.received",
            "timestamp": dt.datetime.fromtimestamp(at, dt.UTC).isoformat(),
            "sessionId": openwa_id(message.channel),
            "data": {
                "id": f"{str(message.outgoing).lower()}_{chat}_{message.id}",
                "chatId": chat,
                "from": chat,
                "timestamp": int(at),
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

    def _status(self, session: str) -> Response:
        return self._of("status", session, lambda one, _: HttpAnswer(200, _session(one)))

    def _stop(self, session: str) -> Response:
        def stop(one: SimulatedChannel, now: float) -> HttpAnswer:
            if not _has_engine(one):
                return _NOT_STARTED
            one.close(now)
            return HttpAnswer(200, _session(one))

        return self._of("stop", session, stop)

    def _start(self, session: str) -> Response:
        def start(one: SimulatedChannel, now: float) -> HttpAnswer:
            if _has_engine(one):
                return _STARTED
            one.begin(now)
            return HttpAnswer(200, _session(one))

        return self._of("start_session", session, start)

    def _qr(self, session: str) -> Response:
        def show(one: SimulatedChannel, _: float) -> HttpAnswer:
            if one.status != "qr_required":
                return _error(400, "QR code is not ready yet", "Bad Request")
            code = f"data:image/png;base64,{png(self.gateway.next_qr())}"
            return HttpAnswer(200, {"qrCode": code, "status": "qr_ready"})

        return self._of("qr", session, show)

    def _pair(self, session: str) -> Response:
        (number,) = texts_of_request("phoneNumber")
        return self.issue_code(
            self._name(session),
            number,
            lambda code: HttpAnswer(201, {"pairingCode": code.replace("-", "")}),
        )

    def _logout(self, session: str) -> Response:
        def logout(one: SimulatedChannel, now: float) -> HttpAnswer:
            if not _has_engine(one):
                return _NOT_STARTED
            one.unpair(now)
            return HttpAnswer(200, _session(one))

        return self._of("delete", session, logout)

    def _query(self, session: str, number: str) -> Response:
        def ask(one: SimulatedChannel, _: float) -> HttpAnswer:
            if not one.sends:
                return _NOT_READY
            found = {"number": number, "exists": True, "whatsappId": f"{number}@c.us"}
            return HttpAnswer(200, found)

        return self._of("query", session, ask)

    def _send(self, session: str) -> Response:
        chat, text = texts_of_request("chatId", "text")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            at = int(self.gateway.clock.time() * 1000)
            return HttpAnswer(201, {"messageId": f"true_{chat}_{sent.id}", "timestamp": at})

        return self.send(self._name(session), chat, text, tell, lambda *_: _NOT_READY)

    def _take_back(self, session: str) -> Response:
        chat, message = texts_of_request("chatId", "messageId")
        channel = self._name(session)

        def take() -> HttpAnswer:
            bare = message.removeprefix(f"true_{chat}_")
            if not self.gateway.take_back(channel, chat.removesuffix("@c.us"), bare):
                return _error(404, "Message not found", "Not Found")
            return HttpAnswer(200, {"success": True})

        return self.answer("take_back", channel, take)

    def _messages(self, session: str) -> Response:
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
                    "timestamp": int(m.at or 0),
                }
                for m in reversed(self.gateway.messages_of(one))
                if m.kind not in {"protocol", "reaction", "ciphertext"}
            ]
            page = {"messages": rows[offset : offset + limit], "total": len(rows)}
            return HttpAnswer(200, page)

        # Else each page may hold megabytes of pictures.
        return self._of("messages" if careful else "careless", session, tell)

    def _of(self, operation: str, session: str, work: Work) -> Response:
        return self.about(operation, self._name(session), work)

    def _name(self, session: str) -> str:
        """Return a session's name by its id, an empty string if it is unknown."""
        names = self.gateway.each(lambda one: one.id)
        return next((one for one in names if openwa_id(one) == session), "")


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
