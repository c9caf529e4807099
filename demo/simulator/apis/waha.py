"""WAHA's HTTP API, modelled on its published OpenAPI document."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    WEBHOOK_SECRET,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    Work,
    png,
    texts_of_request,
    webhook_url,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_STATUSES = {
    "connected": "WORKING",
    "initializing": "STARTING",
    "qr_required": "SCAN_QR_CODE",
    "disconnected": "STOPPED",
}
_START_WAIT = 5.0  # seconds until a call about a starting session is refused


def _refused(status: int, error: str, words: str) -> HttpAnswer:
    return HttpAnswer(status, {"statusCode": status, "message": words, "error": error})


_ONE_ONLY = _refused(
    422, "Unprocessable Entity", "WAHA Core support only 'default' session: get WAHA PLUS."
)


class WahaApi(SimulatedApi):
    """Calls about sessions, pairing, contacts and texts."""

    key_header = "X-Api-Key"
    unauthorized = HttpAnswer(401, {"message": "Unauthorized", "statusCode": 401})
    unknown = _refused(404, "Not Found", "Cannot find that")
    missing = _refused(404, "Not Found", "Session not found")

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "/api/sessions/<encoded:channel>"
        listed = "/api/<encoded:channel>/chats/<encoded:chat>/messages"
        return (
            ("GET", "/api/sessions", self._list),
            ("GET", one, self.on("status", self._status)),
            ("POST", f"{one}/start", self.on("start_session", self._start)),
            ("POST", f"{one}/restart", self.on("restart", self._restart)),
            ("POST", f"{one}/logout", self.on("delete", self._logout)),
            ("GET", "/api/<encoded:channel>/auth/qr", self.on("qr", self._qr)),
            (
                "POST",
                "/api/<encoded:channel>/auth/request-code",
                self.on("pairing_code", self._pairing_code),
            ),
            ("GET", "/api/contacts/check-exists", self.on("query", self._query)),
            ("POST", "/api/sendText", self._send),
            ("DELETE", f"{listed}/<encoded:message>", self._take_back),
            ("GET", "/api/<encoded:channel>/chats/overview", self.on("chats", self._overview)),
            ("GET", listed, self._messages),
            ("GET", f"{listed}/<encoded:message>", self.on("media", self._message)),
        )

    def named(self, channel: str) -> str:
        """Return the session in the path, else in the query."""
        return channel or request.args.get("session", "")

    def is_right(self) -> bool:
        """Whether the request contains the secret, or an old Core ignores it."""
        return super().is_right() or self._is_old_core()

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        return {
            "id": f"evt_{secrets.token_hex(13)}",
            "event": "message.any",
            "session": message.channel,
            "engine": "NOWEB",
            "timestamp": int(message.at * 1000),
            "payload": _content(message) | _media(message),
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of a session's status."""
        versions = {"version": "2024.10.8", "engine": "NOWEB", "tier": "CORE"}
        return {
            "event": "session.status",
            "session": channel,
            "me": None,
            "payload": {"name": channel, "status": "WORKING"},
            "engine": "NOWEB",
            "environment": versions | {"browser": "chromium"},
        }

    @classmethod
    def event_headers(cls, token: str, body: bytes) -> dict[str, str]:
        """Sign the body."""
        signature = hmac.new(token.encode(), body, hashlib.sha512).hexdigest()
        return {"X-Webhook-Hmac-Algorithm": "sha512", "X-Webhook-Hmac": signature}

    def _list(self) -> Response:
        def work() -> HttpAnswer:
            shown = request.args.get("all") == "true"
            entries = self.gateway.each(_listed)
            return HttpAnswer(200, [e for e in entries if shown or e.get("status") != "STOPPED"])

        return self.answer("list", None, work)

    def _status(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        return HttpAnswer(200, _session(one))

    def _start(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        runs = one.failed or one.status != "disconnected"
        if runs and one.knobs.old_core:
            words = f"Session '{one.id}' is already started."
            return _refused(422, "Unprocessable Entity", words)
        if not runs:
            one.begin(now)
        return HttpAnswer(201, _session(one))

    def _restart(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        one.restart(now)
        return HttpAnswer(201, _session(one))

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        runs = one.status != "disconnected"
        one.unpair(now)
        if runs:
            one.begin(now)
        return HttpAnswer(201, _session(one))

    def _qr(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "qr_required":
            return _unready(one, "SCAN_QR_CODE")
        number = self.gateway.next_qr()
        if request.args.get("format") == "raw":
            return HttpAnswer(200, {"value": f"2@{number}"})
        return HttpAnswer(200, {"mimetype": "image/png", "data": png(number)})

    def _pairing_code(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        (number,) = texts_of_request("phoneNumber")
        if one.status != "qr_required":
            return _unready(one, "SCAN_QR_CODE")
        if one.knobs.pairing == "refused" or not number.isdigit():
            return _refused(422, "Unprocessable Entity", f"Can't get a code for {number}")
        code = self.gateway.next_pairing_code()
        one.issue_code(number, code, now)
        return HttpAnswer(201, {"code": f"{code[:4]}-{code[4:]}"})

    def _query(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if not one.sends:
            return _not_sent(one, now)
        asked = request.args.get("phone", "")
        return HttpAnswer(200, {"numberExists": True, "chatId": f"{asked}@c.us"})

    def _send(self) -> Response:
        channel, chat, text = texts_of_request("session", "chatId", "text")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            return HttpAnswer(201, {"id": f"true_{chat}_{sent.id}", "fromMe": True, "body": text})

        return self.send(channel, chat, text, tell, _not_sent)

    def _take_back(self, channel: str, chat: str, message: str) -> Response:
        unknown = _failed("Message not found")
        return self.take_back(channel, chat, message, HttpAnswer(200, {}), unknown)

    def _overview(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        last = {message.chat: message for message in self.gateway.messages_of(one)}
        newest = sorted(last.values(), key=lambda message: message.at, reverse=True)
        rows: list[dict[str, Any]] = [
            {"id": message.chat, "name": None, "picture": None, "_chat": {}}
            | {"lastMessage": _row(message)}
            for message in newest
        ]
        return HttpAnswer(200, _cut(rows))

    def _messages(self, channel: str, chat: str) -> Response:
        """List messages; rows without content are removed after the page is cut."""
        asked = request.args

        def tell(one: SimulatedChannel, _: float) -> HttpAnswer:
            if chat == "all" and one.knobs.engine == "WEBJS":
                return _failed("Chat not found")
            rows = [m for m in self.gateway.messages_of(one) if chat in ("all", m.chat)]
            if one.knobs.engine != "WEBJS":
                bounds = (("filter.timestamp.gte", 1), ("filter.timestamp.lte", -1))
                for name, sign in bounds:
                    limit = float(asked.get(name, "-inf" if sign > 0 else "inf"))
                    rows = [m for m in rows if sign * m.at >= sign * limit]
            if asked.get("filter.fromMe") == "false":
                rows = [m for m in rows if not m.outgoing]
            if asked.get("sortOrder") == "desc":
                rows.reverse()
            return HttpAnswer(200, [_row(m) for m in _cut(rows) if m.kind != "protocol"])

        # Otherwise WAHA downloads each file in the list from WhatsApp.
        careful = asked.get("downloadMedia") == "false"
        return self.about("messages" if careful else "careless", channel, tell)

    def _message(self, one: SimulatedChannel, _: float, *, chat: str, message: str) -> HttpAnswer:
        """Return one message, with a link to its file."""
        for found in self.gateway.messages_of(one):
            if (found.chat, found.serialized) == (chat, message):
                return HttpAnswer(200, _row(found) | _media(found))
        return _failed("Message not found")

    def about(
        self, operation: str, channel: str, work: Work, missing: HttpAnswer | None = None
    ) -> Response:
        """Answer a call about a session; one that is starting delays the answer."""
        missing = missing or self.missing
        if self._is_old_core() and operation != "status":
            missing = _ONE_ONLY

        def answer() -> HttpAnswer:
            told = self.gateway.at(channel, work, missing)
            if told.status == 422 and told.body.get("status") == "STARTING":
                self.gateway.clock.sleep(_START_WAIT)
            return told

        return self.answer(operation, channel, answer)

    def _is_old_core(self) -> bool:
        return any(self.gateway.each(lambda channel: channel.knobs.old_core))


def _not_sent(channel: SimulatedChannel, _: float) -> HttpAnswer:
    up = channel.status == "connected"
    return _failed("Timed Out") if up else _unready(channel, "WORKING")


def _session(channel: SimulatedChannel) -> dict[str, Any]:
    """Return one session, with more fields than in the list."""
    runs = channel.failed or channel.status != "disconnected"
    config: dict[str, Any] = (
        {} if channel.knobs.old_core else {"noweb": {"store": {"enabled": channel.knobs.stores}}}
    )
    if channel.knobs.posting != "global" and not channel.knobs.old_core:
        config["webhooks"] = _webhooks(channel)
    engine = {"engine": channel.knobs.engine} if runs else {}
    return _listed(channel) | {"engine": engine} | ({"config": config} if config else {})


def _webhooks(channel: SimulatedChannel) -> list[dict[str, Any]]:
    if channel.knobs.posting == "wiped":
        return []
    events: dict[str, list[str]] = {"disabled": [], "unselected": ["session.status"]}
    return [
        {
            "url": webhook_url(channel),
            "events": events.get(channel.knobs.posting, ["message", "session.status"]),
            "hmac": {"key": WEBHOOK_SECRET},
            "retries": {"policy": "linear", "delaySeconds": 2, "attempts": 15},
            "customHeaders": [{"name": "Authorization", "value": f"Bearer {WEBHOOK_SECRET}"}],
        }
    ]


def _listed(channel: SimulatedChannel) -> dict[str, Any]:
    old = channel.knobs.old_core
    entry: dict[str, Any] = {"name": channel.id, "config": None if old else {}}
    status: Any = "FAILED" if channel.failed else _STATUSES[channel.status]
    entry |= channel.knobs.shown("status", status)
    if channel.knobs.session == "paired":
        entry["me"] = {"id": f"{channel.number}@c.us", "pushName": "Example"}
    if old:
        return {"me": None} | entry
    known = channel.knobs.tells_activity and channel.active_at is not None
    activity = int(channel.active_at * 1000) if known and channel.active_at else None
    return entry | {"presence": {}, "timestamps": {"activity": activity}}


def _unready(channel: SimulatedChannel, expected: str) -> HttpAnswer:
    if channel.status == "disconnected" and not channel.failed:
        words = f"We didn't find a session with name '{channel.id}'.\nPlease start it first"
        return _refused(404, "Not Found", words)
    return HttpAnswer(
        422,
        {
            "error": "Session status is not as expected",
            "session": channel.id,
            "status": "FAILED" if channel.failed else _STATUSES[channel.status],
            "expected": [expected],
        },
    )


def _failed(words: str) -> HttpAnswer:
    return HttpAnswer(500, {"statusCode": 500, "exception": {"message": words}})


def _cut(rows: list[Any]) -> list[Any]:
    offset = int(request.args.get("offset", 0))
    return rows[offset : offset + int(request.args.get("limit", 10))]


def _media(message: SimulatedMessage) -> dict[str, Any]:
    """Return the link to a message's file, which lists without a download omit."""
    url = f"http://gateway.example.com/api/files/{message.channel}/{message.id}.jpeg"
    return {"media": {"url": url, "mimetype": "image/jpeg"} if message.kind == "image" else None}


def _row(message: SimulatedMessage) -> dict[str, Any]:
    unused = {"to": "", "participant": "", "mediaUrl": "", "ack": 1, "ackName": "SERVER"}
    return unused | _content(message)


def _content(message: SimulatedMessage) -> dict[str, Any]:
    """Return a message as events and lists have it."""
    kind = "conversation" if message.kind == "chat" else f"{message.kind}Message"
    return {
        "source": "api" if message.by_api else "app",
        "id": message.serialized,
        "timestamp": int(message.at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "fromMe": message.outgoing,
        "hasMedia": message.kind == "image",
        "body": message.words or WORDS,
        "_data": {"message": {kind: {}}}
        | ({"messageStubType": 2} if message.kind == "ciphertext" else {}),
    }
