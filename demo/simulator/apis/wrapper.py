"""The wrapper's HTTP API, modelled on the contract."""

from flask import Blueprint, Response, request

from demo.simulator.apis import wrapper_answers as answers
from demo.simulator.apis.calls import METHODS, SimulatedCalls, body_of_request, is_secret, png
from demo.simulator.apis.wrapper_answers import WrapperAnswer
from demo.simulator.channel import SimulatedChannel
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Journal
from demo.simulator.model import SimulatedGateway


class WrapperApi:
    """Calls of PixelHub's gateway."""

    def __init__(
        self, gateway: SimulatedGateway, faults: FaultBook, journal: Journal, secret: str
    ) -> None:
        self._gateway = gateway
        self._calls = SimulatedCalls(faults, journal, answers.UNAUTHORIZED)
        self._secret = secret

    def blueprint(self) -> Blueprint:
        """Create the routes. Paths arrive undecoded, so that `%2F` is no separator."""
        routes = Blueprint("api", __name__)
        add = routes.add_url_rule
        one = "/api/channels/<encoded:channel>"
        add("/api/channels", "list", self._list, methods=["GET"])
        add("/api/channels", "create", self._create, methods=["POST"])
        add(one, "delete", self._delete, methods=["DELETE"])
        add(f"{one}/qr", "qr", self._qr, methods=["GET"])
        add(f"{one}/start-session", "start_session", self._start_session, methods=["POST"])
        add("/api/messages", "send", self._send, methods=["POST"])
        add("/api/<path:rest>", "unknown", self._unknown, methods=METHODS)
        add("/sim/elsewhere", "elsewhere", self._elsewhere, methods=METHODS)
        return routes

    def _list(self) -> Response:
        def work() -> WrapperAnswer:
            return answers.channel_list(
                self._gateway.each(lambda c: answers.list_entry(c.id, c.knobs, c.status))
            )

        return self._calls.answer("list", None, work, right=self._right())

    def _qr(self, channel: str) -> Response:
        root = f"{request.scheme}://{request.host}/sim/qr-images/"

        def ask(one: SimulatedChannel, now: float) -> WrapperAnswer:
            reply = one.ask_qr(now)
            knobs = one.knobs
            if reply == "qr":
                value = _qr_value(self._gateway.next_qr(), knobs.qr_form, root)
                return answers.qr_code(knobs.qr_field, value)
            if reply == "not_started":
                return answers.not_started(knobs.not_started_http)
            return {
                "connected": answers.CONNECTED,
                "initializing": answers.INITIALIZING,
                "invalid_qr": answers.INVALID_QR,
            }[reply]

        return self._calls.answer(
            "qr",
            channel,
            lambda: self._gateway.at(channel, ask, answers.NOT_FOUND),
            right=self._right(),
        )

    def _start_session(self, channel: str) -> Response:
        def start(one: SimulatedChannel, now: float) -> WrapperAnswer:
            one.start_session(now)
            return answers.STARTED

        return self._calls.answer(
            "start_session",
            channel,
            lambda: self._gateway.at(channel, start, answers.NOT_FOUND),
            right=self._right(),
        )

    def _delete(self, channel: str) -> Response:
        def work() -> WrapperAnswer:
            return answers.DELETED if self._gateway.delete(channel) else answers.NOT_FOUND

        return self._calls.answer("delete", channel, work, right=self._right())

    def _create(self) -> Response:
        named = body_of_request().get("channel")
        channel = named if isinstance(named, str) else None

        def work() -> WrapperAnswer:
            if not channel:
                return answers.NO_CHANNEL_NAMED
            made = self._gateway.create(channel)
            return answers.created(channel) if made else answers.ALREADY_THERE

        return self._calls.answer("create", channel, work, right=self._right())

    def _send(self) -> Response:
        body = body_of_request()
        channel, number, text = (str(body.get(name) or "") for name in ("channel", "to", "text"))

        def work() -> WrapperAnswer:
            if not number or not text:
                return answers.NO_MESSAGE
            if not self._gateway.at(channel, lambda *_: True, otherwise=False):
                return answers.NOT_FOUND
            sent = self._gateway.send(channel, number, text)
            return answers.NOT_SENT if sent is None else answers.sent(sent.id)

        return self._calls.answer("send", channel, work, right=self._right())

    def _unknown(self, **_: str) -> Response:
        return self._calls.answer(
            "unknown", None, lambda: answers.UNKNOWN_CALL, right=self._right()
        )

    def _elsewhere(self) -> Response:
        return self._calls.elsewhere(answers.channel_list([]), right=self._right())

    def _right(self) -> bool:
        return is_secret(request.headers.get("X-Gateway-Secret", ""), self._secret)


def _qr_value(number: int, form: str, image_root: str) -> str:
    if form == "http_url":
        return f"{image_root}{number}.png"
    bare = png(number)
    return f"data:image/png;base64,{bare}" if form == "data_url" else bare
