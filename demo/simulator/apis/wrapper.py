"""The wrapper's HTTP API, modelled on the contract."""

from collections.abc import Iterable
from typing import Any

from flask import Response

from demo.simulator.apis.calls import (
    METHODS,
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    png,
    texts_of_request,
)
from demo.simulator.apis.wrapper_answers import (
    NOT_FOUND,
    UNAUTHORIZED,
    channel_list,
    error,
    ok,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.messages import SimulatedMessage
from demo.simulator.payloads import OTHER_EVENTS, message_payload, other_payload
from demo.simulator.responses import HttpAnswer


class WrapperApi(SimulatedApi):
    """Calls of PixelHub's gateway."""

    key_header = "X-Gateway-Secret"
    paths = "/api/"
    unauthorized = UNAUTHORIZED
    unknown = error(404, "No such call")
    missing = NOT_FOUND

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "/api/channels/<encoded:channel>"
        return (
            ("GET", "/api/channels", self._list),
            ("POST", "/api/channels", self._create),
            ("DELETE", one, self._delete),
            ("GET", f"{one}/qr", self.on("qr", self._qr)),
            ("POST", f"{one}/start-session", self.on("start_session", self._start_session)),
            ("POST", "/api/messages", self._send),
            *((method, "/sim/elsewhere", self._elsewhere) for method in METHODS),
        )

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the payload of a message."""
        own = "onselfmessage" if message.outgoing else "message"
        payload = message_payload(
            message.channel,
            "message.sent" if message.by_api else own,
            outgoing=message.outgoing,
            words=message.words or WORDS,
        )
        return payload | {"id": message.id, "timestamp": int(message.at), "type": message.kind}

    @staticmethod
    def other(channel: str) -> Event:
        """Return the payload of a connection's state."""
        return other_payload(channel, OTHER_EVENTS[0])

    def _list(self) -> Response:
        return self.answer("list", None, lambda: channel_list(self.gateway.each(_entry)))

    def _qr(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        reply = one.ask_qr(now)
        if reply == "qr":
            return ok(qr=one.knobs.qr_text or png(self.gateway.next_qr()))
        if reply == "not_started":
            words = "Session not started. Use POST /api/channels/{id}/start-session"
            return error(200, words)
        if reply == "initializing":
            return ok(qr=None, status="INITIALIZING")
        words = "The session is connected, no QR code is needed"
        return ok(qr=None, status="CONNECTED", message=words)

    def _start_session(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        one.start_session(now)
        return ok(message="The session is starting")

    def _delete(self, channel: str) -> Response:
        def work() -> HttpAnswer:
            gone = self.gateway.delete(channel)
            return ok(message="The session was thrown away") if gone else NOT_FOUND

        return self.answer("delete", channel, work)

    def _create(self) -> Response:
        named = body_of_request().get("channel")
        channel = named if isinstance(named, str) else None

        def work() -> HttpAnswer:
            if not channel:
                return error(400, "The field 'channel' is missing")
            if not self.gateway.create(channel):
                return error(409, "Channel already exists")
            return HttpAnswer(201, {"success": True, "channel": {"id": channel, "name": channel}})

        return self.answer("create", channel, work)

    def _send(self) -> Response:
        channel, number, text = texts_of_request("channel", "to", "text")

        if not number or not text:
            missing = error(400, "The fields 'to' and 'text' are missing")
            return self.answer("send", channel, lambda: missing)
        unsent = error(500, "WPPConnect could not send the message")
        return self.send(channel, number, text, lambda sent: ok(id=sent.id), lambda *_: unsent)

    def _elsewhere(self) -> Response:
        """Simulate another server, which must not receive the secret."""
        answer = channel_list([])
        return self.answer("elsewhere", None, lambda: answer, refusal=answer)


def _entry(channel: SimulatedChannel) -> dict[str, Any]:
    entry = {"id": channel.id, "name": channel.id} if channel.knobs.lists_id else {}
    return entry | channel.knobs.shown("status", channel.status)
