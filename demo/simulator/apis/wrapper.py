"""The wrapper's HTTP API, modelled on the contract."""

from collections.abc import Iterable

from flask import Response

from demo.simulator.apis import wrapper_answers as answers
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
from demo.simulator.channel import SimulatedChannel
from demo.simulator.messages import SimulatedMessage
from demo.simulator.payloads import OTHER_EVENTS, message_payload, other_payload
from demo.simulator.responses import HttpAnswer


class WrapperApi(SimulatedApi):
    """Calls of PixelHub's gateway."""

    key_header = "X-Gateway-Secret"
    paths = "/api/"
    unauthorized = answers.UNAUTHORIZED
    unknown = answers.UNKNOWN_CALL
    missing = answers.NOT_FOUND

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
    def event(message: SimulatedMessage, at: float) -> Event:
        """Return the payload of a message."""
        own = "onselfmessage" if message.outgoing else "message"
        payload = message_payload(
            message.channel,
            "message.sent" if message.by_api else own,
            outgoing=message.outgoing,
            words=message.words or WORDS,
        )
        return payload | {"id": message.id, "timestamp": int(at), "type": message.kind}

    @staticmethod
    def other(channel: str) -> Event:
        """Return the payload of a connection's state."""
        return other_payload(channel, OTHER_EVENTS[0])

    def _list(self) -> Response:
        def work() -> HttpAnswer:
            return answers.channel_list(
                self.gateway.each(lambda c: answers.list_entry(c.id, c.knobs, c.status))
            )

        return self.answer("list", None, work)

    def _qr(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        reply = one.ask_qr(now)
        if reply == "qr":
            return answers.qr_code(one.knobs.qr_text or png(self.gateway.next_qr()))
        return {
            "connected": answers.CONNECTED,
            "initializing": answers.INITIALIZING,
            "not_started": answers.NOT_STARTED,
        }[reply]

    def _start_session(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        one.start_session(now)
        return answers.STARTED

    def _delete(self, channel: str) -> Response:
        def work() -> HttpAnswer:
            return answers.DELETED if self.gateway.delete(channel) else answers.NOT_FOUND

        return self.answer("delete", channel, work)

    def _create(self) -> Response:
        named = body_of_request().get("channel")
        channel = named if isinstance(named, str) else None

        def work() -> HttpAnswer:
            if not channel:
                return answers.NO_CHANNEL_NAMED
            made = self.gateway.create(channel)
            return answers.created(channel) if made else answers.ALREADY_THERE

        return self.answer("create", channel, work)

    def _send(self) -> Response:
        channel, number, text = texts_of_request("channel", "to", "text")

        if not number or not text:
            return self.answer("send", channel, lambda: answers.NO_MESSAGE)
        return self.send(
            channel,
            number,
            text,
            lambda sent: answers.sent(sent.id),
            lambda *_: answers.NOT_SENT,
        )

    def _elsewhere(self) -> Response:
        return self.elsewhere(answers.channel_list([]))
