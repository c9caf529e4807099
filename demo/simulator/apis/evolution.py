"""Evolution's HTTP API, modelled on its source; there is no published description."""

import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    CUSTOMER,
    WEBHOOK_SECRET,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    png,
    texts_of_request,
    webhook_url,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.knobs import BAILEYS
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_STATES = {
    "connected": "open",
    "initializing": "connecting",
    "qr_required": "connecting",
    "disconnected": "close",
}


def _refusal(status: int, error: str, words: str | list[str]) -> HttpAnswer:
    return HttpAnswer(status, {"status": status, "error": error, "response": {"message": words}})


# An error with HTTP 200, whose text is lost.
_UNNAMED = HttpAnswer(200, {"error": True, "message": "[object Object]"})
_CLOSED = _refusal(500, "Internal Server Error", "Connection Closed")


class EvolutionApi(SimulatedApi):
    """Calls about instances, privacy settings and texts."""

    key_header = "apikey"
    sends_header = True
    unauthorized = _refusal(401, "Unauthorized", "Unauthorized")
    unknown = _refusal(404, "Not Found", ["Cannot find that"])

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        name = "<encoded:channel>"
        return (
            ("GET", "/instance/fetchInstances", self._list),
            ("GET", f"/instance/connectionState/{name}", self.on("status", _status)),
            ("GET", f"/instance/connect/{name}", self._connect),
            ("POST", f"/instance/restart/{name}", self.on("restart", self._restart)),
            ("DELETE", f"/instance/logout/{name}", self.on("delete", self._logout)),
            ("GET", f"/chat/fetchPrivacySettings/{name}", self.on("query", self._query)),
            ("POST", f"/chat/whatsappNumbers/{name}", self.on("cached", self._numbers)),
            ("POST", f"/chat/fetchProfile/{name}", self.on("cached", self._profile)),
            ("POST", f"/message/sendText/{name}", self._send),
            ("POST", f"/chat/findMessages/{name}", self.on("messages", self._messages)),
            ("GET", f"/webhook/find/{name}", self.on("webhook", self._webhook)),
            ("DELETE", f"/chat/deleteMessageForEveryone/{name}", self._take_back),
        )

    def no_such(self, channel: str) -> HttpAnswer:
        """Return the answer about an unknown instance."""
        return _refusal(404, "Not Found", [f'The "{channel}" instance does not exist'])

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        return {
            "event": "send.message" if message.by_api else "messages.upsert",
            "instance": message.channel,
            "data": _row(message),
            "sender": f"{message.sender or CUSTOMER}@s.whatsapp.net",
            "apikey": "an-api-key-that-must-not-be-kept",
        }

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of an instance's state."""
        return {
            "event": "connection.update",
            "instance": channel,
            "data": {"instance": channel, "state": "connecting", "statusReason": 200},
            "destination": "http://127.0.0.1:9861/messages/evo",
            "date_time": "2026-01-01T00:00:00.000Z",
            "server_url": "http://127.0.0.1:8080",
            "apikey": None,
        }

    def _list(self) -> Response:
        """List all instances, or only the named one."""
        name = request.args.get("instanceName")

        def work() -> HttpAnswer:
            entries = self.gateway.each(_instance)
            if name is not None:
                entries = [entry for entry in entries if entry["name"] == name]
                if not entries:
                    return _refusal(404, "Not Found", [f'Instance "{name}" not found'])
            return HttpAnswer(200, entries)

        return self.answer("list" if name is None else "row", name, work)

    def _connect(self, channel: str) -> Response:
        number = request.args.get("number")

        def connect(one: SimulatedChannel, now: float) -> HttpAnswer:
            if not one.knobs.loaded:
                return _UNNAMED
            if _look(one) == "close":
                clients = one.clients
                one.begin(now)
                one.clients = clients + 1
                # While connecting, Evolution ignores the number.
                if number and one.status == "qr_required" and one.knobs.pairing == "issued":
                    one.issue_code(number, self.gateway.next_pairing_code(), now)
            return HttpAnswer(200, self._code(one))

        return self.about("pairing_code" if number else "start_session", channel, connect)

    def _restart(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if not one.knobs.loaded or _look(one) == "close":
            return _UNNAMED
        clients = one.clients
        one.restart(now)
        one.clients = clients
        return HttpAnswer(200, self._code(one))

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if _look(one) == "close":
            words = f'The "{one.id}" instance is not connected'
            return _refusal(400, "Bad Request", [words])
        one.unpair(now)
        done = {"status": "SUCCESS", "error": False}
        return HttpAnswer(200, done | {"response": {"message": "Instance logged out"}})

    def _query(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.knobs.integration != BAILEYS:
            return _refusal(400, "Bad Request", ["Not on the official Business API"])
        if not one.sends:
            return _CLOSED
        names = ("readreceipts", "profile", "status", "online", "last", "groupadd")
        return HttpAnswer(200, dict.fromkeys(names, "all"))

    def _numbers(self, *_: Any) -> HttpAnswer:
        """Answer from the cache that the numbers exist."""
        asked = body_of_request().get("numbers")
        numbers = asked if isinstance(asked, list) else []
        return HttpAnswer(200, [{"exists": True, "number": number} for number in numbers])

    def _profile(self, *_: Any) -> HttpAnswer:
        """Return a contact from the cache."""
        (number,) = texts_of_request("number")
        return HttpAnswer(200, {"wuid": f"{number}@s.whatsapp.net", "numberExists": True})

    def _send(self, channel: str) -> Response:
        number, text = texts_of_request("number", "text")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            key = {"remoteJid": f"{number}@s.whatsapp.net", "fromMe": True, "id": sent.id}
            return HttpAnswer(201, {"key": key, "status": "PENDING", "messageType": "conversation"})

        return self.send(channel, number, text, tell, lambda *_: _CLOSED)

    def _take_back(self, channel: str) -> Response:
        jid, message = texts_of_request("remoteJid", "id")

        def take() -> HttpAnswer:
            if not self.gateway.at(channel, lambda c, _: c.sends, otherwise=False):
                words = ["Error while deleting message for everyone", "Error: Connection Closed"]
                return _refusal(500, "Internal Server Error", words)
            if not self.gateway.take_back(channel, jid.partition("@")[0], message):
                return _refusal(400, "Bad Request", ["Message not found"])
            return HttpAnswer(201, {"status": "PENDING"})

        return self.answer("take_back", channel, take)

    def _messages(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        """List messages, the newest first, with the pitfalls of the real API.

        A time bound applies only together with the other one, `fromMe` only if it is true, and
        `offset` is the page size.
        """
        body: dict[str, Any] = body_of_request()
        where: dict[str, Any] = body.get("where") or {}
        bounds: dict[str, Any] = where.get("messageTimestamp") or {}
        size, number = int(body.get("offset") or 50), int(body.get("page") or 1)
        # Evolution does not store messages that it could not decrypt.
        rows = [m for m in self.gateway.messages_of(one)[::-1] if m.kind != "ciphertext"]
        if bounds.get("gte") and bounds.get("lte"):
            first, last = (_as_date(bounds[name]) for name in ("gte", "lte"))
            rows = [m for m in rows if first <= int(m.at) <= last]
        if (where.get("key") or {}).get("fromMe"):
            rows = [m for m in rows if m.outgoing]
        records: list[dict[str, Any]] = [
            {"id": f"c{secrets.token_hex(12)}", "pushName": "Example", "source": "android"}
            | {"instanceId": _id(one), "contextInfo": None, "MessageUpdate": []}
            | _row(m)
            for m in rows[(number - 1) * size : number * size]
        ]
        pages = {"total": len(rows), "pages": -(-len(rows) // size), "currentPage": number}
        return HttpAnswer(200, {"messages": pages | {"records": records}})

    def _webhook(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        posting = one.knobs.posting
        if posting == "global":
            return HttpAnswer(200, None)
        wiped = posting == "wiped"
        events = ["CONNECTION_UPDATE"] + ["MESSAGES_UPSERT"] * (posting != "unselected")
        row = {
            "id": f"c{secrets.token_hex(12)}",
            "url": "" if wiped else webhook_url(one),
            "headers": {"Authorization": f"Bearer {WEBHOOK_SECRET}"},
            "enabled": posting != "disabled",
            "events": [] if wiped else events,
            "webhookByEvents": False,
            "webhookBase64": False,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
            "instanceId": _id(one),
        }
        return HttpAnswer(200, row)

    def _code(self, channel: SimulatedChannel) -> dict[str, Any]:
        """Return the answer of connect: the state, a QR code, or a count while there is none."""
        if channel.status == "connected":
            return _state(channel, "open")
        if channel.status != "qr_required":
            return {"count": 0}
        number = self.gateway.next_qr()
        image = f"data:image/png;base64,{png(number)}"
        return {
            "pairingCode": channel.pairing_code,
            "code": f"2@{number}",
            "base64": image,
            "count": 1,
        }


def _row(message: SimulatedMessage) -> Event:
    """Return a message as events and lists have it."""
    return {
        "key": {
            "remoteJid": message.chat.replace("@c.us", "@s.whatsapp.net"),
            "fromMe": message.outgoing,
            "id": message.id,
        },
        # As in issue 91 of evolution-api.
        "message": {} if message.kind == "ciphertext" else {"conversation": message.words or WORDS},
        "messageType": "conversation" if message.kind == "chat" else f"{message.kind}Message",
        "messageTimestamp": int(message.at),
    }


def _id(channel: SimulatedChannel) -> str:
    return f"00000000-0000-4000-8000-{channel.number[1:]:0>12}"


def _look(channel: SimulatedChannel) -> str | None:
    """Return the process's state at one call; None while the instance is not loaded."""
    if not channel.knobs.loaded:
        return None
    if channel.reachable or channel.status == "disconnected":
        return _STATES[channel.status]
    channel.looks += 1
    turn = channel.knobs.whatsapp == "refused" and channel.looks % 2 == 0
    return "connecting" if turn else "close"


def _status(channel: SimulatedChannel, _: float) -> HttpAnswer:
    return HttpAnswer(200, _state(channel, _look(channel)))


def _state(channel: SimulatedChannel, state: str | None) -> dict[str, Any]:
    told = {} if state is None else channel.knobs.shown("state", state)
    return {"instance": {"instanceName": channel.id} | told}


def _instance(channel: SimulatedChannel) -> dict[str, Any]:
    paired = channel.knobs.session != "unpaired"
    entry: dict[str, Any] = {
        "id": _id(channel),
        "name": channel.id,
        "connectionStatus": _STATES[channel.stored],
        "ownerJid": f"{channel.number}@s.whatsapp.net" if paired else None,
        "profileName": None,
        "profilePicUrl": None,
        "integration": channel.knobs.integration,
        "number": None,
        "businessId": None,
        "token": "an-instance-token",
        "clientName": "evolution",
        "disconnectionReasonCode": None,
        "disconnectionObject": None,
        "disconnectionAt": None,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": f"2026-01-01T00:00:00.{channel.stored_changes % 1000:03}Z",
        **dict.fromkeys(("Chatwoot", "Proxy", "Rabbitmq", "Nats", "Sqs", "Websocket", "Setting")),
        "_count": {"Message": channel.messages, "Contact": 3, "Chat": 2},
    }
    return entry


def _as_date(value: object) -> float:
    """Return Unix seconds; a number is in milliseconds, as for JavaScript's Date."""
    if isinstance(value, int | float):
        return value / 1000
    return datetime.fromisoformat(str(value)).timestamp()
