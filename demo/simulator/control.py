"""The simulator's HTTP control API under `/sim/`."""

from dataclasses import dataclass

from flask import Blueprint, Response, request

from demo.simulator import knobs, qr_image, rules, webhook
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Journal
from demo.simulator.model import SimulatedGateway
from demo.simulator.responses import as_json
from demo.simulator.traffic import Traffic
from demo.simulator.webhook import Webhook

_TRAFFIC = {"seconds": float, "paused": bool}


@dataclass
class Control:
    """Shows and changes the simulated gateway's behaviour, without a secret."""

    gateway: SimulatedGateway
    faults: FaultBook
    journal: Journal
    traffic: Traffic
    webhook: Webhook

    def blueprint(self) -> Blueprint:
        """Create the routes."""
        routes = Blueprint("control", __name__, url_prefix="/sim")
        add = routes.add_url_rule
        add("/state", "state", self._state, methods=["GET"])
        add("/channels/<encoded:channel>", "put", self._put, methods=["PUT"])
        add("/channels/<encoded:channel>/enter_code", "enter", self._enter, methods=["POST"])
        add("/channels/<encoded:channel>/<action>", "act", self._act, methods=["POST"])
        add("/faults", "clear_all", self._clear, methods=["DELETE"])
        add("/faults/<operation>", "switch_on", self._switch_on, methods=["PUT"])
        add("/faults/<operation>", "clear", self._clear, methods=["DELETE"])
        add("/requests", "requests", self._requests, methods=["GET"])
        add("/requests", "forget", self._forget, methods=["DELETE"])
        add("/traffic", "traffic", self._set_traffic, methods=["PUT"])
        add("/webhook", "webhook", self._set_webhook, methods=["PUT"])
        add("/qr-images/<int:number>.png", "qr_image", self._qr_image, methods=["GET"])
        return routes

    def _state(self) -> Response:
        state = {
            "channels": self.gateway.snapshot(),
            "faults": self.faults.snapshot(),
            "traffic": self.traffic.snapshot(),
            "webhook": self.webhook.snapshot(),
        }
        return as_json(200, state)

    def _put(self, channel: str) -> Response:
        settings = rules.check(_body(), knobs.SETTINGS, f"channel {channel!r}")
        return as_json(200, self.gateway.put(channel, settings))

    def _act(self, channel: str, action: str) -> Response:
        return as_json(200, self.gateway.act(channel, action))

    def _enter(self, channel: str) -> Response:
        code = rules.check(_body(), {"code": str}, "pairing code")["code"]
        return as_json(200, self.gateway.enter_code(channel, code))

    def _switch_on(self, operation: str) -> Response:
        return as_json(200, self.faults.switch_on(operation, _body()))

    def _clear(self, operation: str | None = None) -> Response:
        self.faults.clear(operation)
        return as_json(200, {"faults": self.faults.snapshot()})

    def _requests(self) -> Response:
        wanted = request.args
        return as_json(200, self.journal.calls(wanted.get("operation"), wanted.get("channel")))

    def _forget(self) -> Response:
        self.journal.clear()
        return as_json(200, [])

    def _set_webhook(self) -> Response:
        self.webhook.set(**rules.check(_body(), webhook.SETTINGS, "webhook"))
        # The traffic has not started yet if there is no message log.
        self.traffic.start(also_without_log=True)
        return as_json(200, self.webhook.snapshot())

    def _set_traffic(self) -> Response:
        self.traffic.set(**rules.check(_body(), _TRAFFIC, "traffic"))
        return as_json(200, self.traffic.snapshot())

    def _qr_image(self, number: int) -> Response:
        return Response(qr_image.png(number), mimetype="image/png")


def _body() -> object:
    return request.get_json(force=True, silent=True)
