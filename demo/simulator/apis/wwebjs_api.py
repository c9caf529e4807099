"""The HTTP API of wwebjs-api, modelled on its source."""

from collections.abc import Iterable
from typing import Any

from flask import Response

from demo.simulator import qr_image
from demo.simulator.apis.calls import (
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    texts_of_request,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.knobs import AS_IT_IS
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

# State and message. A session that waits for a scan looks like one that loads.
_STATES: dict[str, tuple[str | None, str]] = {
    "connected": ("CONNECTED", "session_connected"),
    "initializing": ("OPENING", "session_not_connected"),
    "qr_required": (None, "session_not_connected"),
    "disconnected": (None, "session closed"),
}


def _ok(**more: Any) -> HttpAnswer:
    return HttpAnswer(200, {"success": True, **more})


def _no(words: str, status: int = 200) -> HttpAnswer:
    name = "message" if status == 200 else "error"
    return HttpAnswer(status, {"success": False, name: words})


_NOT_CONNECTED = _no("session_not_connected", 404)


class WwebjsApi(SimulatedApi):
    """Calls about sessions and their clients."""

    key_header = "x-api-key"
    unauthorized = _no("Invalid API key", 403)
    unknown = _no("Cannot find that", 404)
    missing = _no("session_not_found")
    no_code = _no("Evaluation failed", 500)

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "<encoded:channel>"
        return (
            ("GET", "/session/getSessions", self._list),
            ("GET", f"/session/status/{one}", self.on("status", _state)),
            ("GET", f"/session/restart/{one}", self.on("restart", self._restart)),
            ("GET", f"/session/start/{one}", self._start),
            ("GET", f"/session/qr/{one}/image", self.on("qr", self._image)),
            ("POST", f"/session/requestPairingCode/{one}", self._pair),
            ("GET", f"/session/terminate/{one}", self._terminate),
            ("GET", f"/client/getClassInfo/{one}", self.on("number", self._info)),
            ("POST", f"/client/isRegisteredUser/{one}", self.on("query", self._query)),
            ("POST", f"/client/sendMessage/{one}", self._send),
            ("GET", f"/client/getChats/{one}", self.on("chats", self._chats)),
            ("POST", f"/chat/fetchMessages/{one}", self.on("messages", self._messages)),
        )

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        event = {"dataType": "message_create", "data": {"message": _row(message)}}
        return event | {"sessionId": message.channel}

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of an acknowledgement."""
        return {"dataType": "message_ack", "data": {}, "sessionId": channel}

    def _list(self) -> Response:
        return self.answer("list", None, lambda: _ok(result=self.gateway.each(lambda c: c.id)))

    def _restart(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        one.restart(now)
        return _ok(message="Restarted successfully")

    def _start(self, channel: str) -> Response:
        def start() -> HttpAnswer:
            if not self.gateway.create(channel):
                return _no(f"Session already exists for: {channel}", 422)

            def begin(one: SimulatedChannel, now: float) -> HttpAnswer:
                one.begin(now)
                return _ok(message="Session initiated successfully")

            return self.gateway.at(channel, begin, self.missing)

        return self.answer("create", channel, start)

    def _image(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "qr_required":
            return _no("qr code not ready or already scanned")
        return HttpAnswer(200, qr_image.png(self.gateway.next_qr()))

    def _pair(self, channel: str) -> Response:
        (number,) = texts_of_request("phoneNumber")
        return self.issue_code(channel, number, lambda code: _ok(result=code.replace("-", "")))

    def _terminate(self, channel: str) -> Response:
        def terminate() -> HttpAnswer:
            gone = self.gateway.delete(channel)
            return _ok(message="Logged out successfully") if gone else self.missing

        return self.answer("delete", channel, terminate)

    def _info(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "connected":
            return _NOT_CONNECTED
        return _ok(sessionInfo={"pushname": "Example", "wid": {"user": one.number}})

    def _query(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        return _ok(result=True) if one.sends else _NOT_CONNECTED

    def _chats(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "connected":
            return _NOT_CONNECTED
        last = {m.chat: int(m.at) for m in self.gateway.messages_of(one)}
        chats = [{"id": {"_serialized": chat}, "timestamp": last[chat]} for chat in last]
        return _ok(chats=chats)

    def _messages(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        body = body_of_request()
        options = body.get("searchOptions")
        asked = options if isinstance(options, dict) else {}
        if one.status != "connected":
            return _NOT_CONNECTED
        rows = [
            _row(m)
            for m in self.gateway.messages_of(one)
            if m.chat == body.get("chatId") and asked.get("fromMe") in (None, m.outgoing)
        ]
        return _ok(messages=rows[-asked.get("limit", 50) :])

    def _send(self, channel: str) -> Response:
        chat, text = texts_of_request("chatId", "content")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            return _ok(message={"id": {"fromMe": True, "_serialized": f"true_{chat}_{sent.id}"}})

        return self.send(channel, chat, text, tell, lambda *_: _NOT_CONNECTED)


def _row(message: SimulatedMessage) -> Event:
    """Return a message as events and lists have it."""
    return {
        "id": {
            "fromMe": message.outgoing,
            "id": message.id,
            "_serialized": message.serialized,
        },
        "fromMe": message.outgoing,
        "timestamp": int(message.at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "body": message.words or WORDS,
        "type": message.kind,
    }


def _state(channel: SimulatedChannel, _: float) -> HttpAnswer:
    state, words = _STATES[channel.status]
    answer: dict[str, Any] = {"success": state == "CONNECTED"}
    if channel.knobs.status_text == AS_IT_IS:
        answer["message"] = words
    return HttpAnswer(200, answer | channel.knobs.shown("state", state))
