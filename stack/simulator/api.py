"""The gateway's own HTTP API, as the contract has it."""

import hmac
import socket
from collections.abc import Callable
from typing import cast

from flask import Blueprint, Response, request

from stack.simulator import answers
from stack.simulator.answers import Answer
from stack.simulator.faults import FaultBook
from stack.simulator.journal import Call, Journal
from stack.simulator.misbehaviour import carry_out
from stack.simulator.model import Gateway
from stack.simulator.responses import as_json

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class GatewayApi:
    """Checks the secret, keeps the journal, applies the faults and asks the gateway."""

    def __init__(self, gateway: Gateway, faults: FaultBook, journal: Journal, secret: str) -> None:
        self._gateway = gateway
        self._faults = faults
        self._journal = journal
        self._secret = secret.encode()

    def blueprint(self) -> Blueprint:
        """Make the routes. Paths arrive undecoded, so that `%2F` does not separate."""
        routes = Blueprint("api", __name__)
        add = routes.add_url_rule
        add("/api/channels", "list", self._list, methods=["GET"])
        add("/api/channels", "create", self._create, methods=["POST"])
        add("/api/channels/<encoded:channel>", "delete", self._delete, methods=["DELETE"])
        add("/api/channels/<encoded:channel>/qr", "qr", self._qr, methods=["GET"])
        add(
            "/api/channels/<encoded:channel>/start-session",
            "start_session",
            self._start_session,
            methods=["POST"],
        )
        add("/api/<path:rest>", "unknown", self._unknown, methods=_METHODS)
        add("/sim/elsewhere", "elsewhere", self._elsewhere, methods=_METHODS)
        return routes

    def _list(self) -> Response:
        return self._answer("list", None, self._gateway.list_channels)

    def _qr(self, channel: str) -> Response:
        root = f"{request.scheme}://{request.host}/sim/qr-images/"
        return self._answer("qr", channel, lambda: self._gateway.get_qr(channel, root))

    def _start_session(self, channel: str) -> Response:
        return self._answer("start_session", channel, lambda: self._gateway.start_session(channel))

    def _delete(self, channel: str) -> Response:
        return self._answer("delete", channel, lambda: self._gateway.delete(channel))

    def _create(self) -> Response:
        body = request.get_json(force=True, silent=True)
        named = body.get("channel") if isinstance(body, dict) else None
        channel = named if isinstance(named, str) else None
        return self._answer("create", channel, lambda: self._gateway.create(named))

    def _unknown(self, **_: str) -> Response:
        return self._answer("unknown", None, lambda: answers.UNKNOWN_CALL)

    def _elsewhere(self) -> Response:
        """Stand for another server, which must not be sent the secret."""
        call = self._begin("elsewhere", None)
        self._journal.finish(call, 200)
        return as_json(*answers.channel_list([]))

    def _answer(self, operation: str, channel: str | None, work: Callable[[], Answer]) -> Response:
        call = self._begin(operation, channel)
        ordinary = work if call.secret_right else lambda: answers.UNAUTHORIZED
        on = self._faults.take(operation, channel, trusted=call.secret_right)
        if on is None:
            answer = ordinary()
            self._journal.finish(call, answer.status)
            return as_json(*answer)
        call.fault = on.fault.name
        connection = cast("socket.socket", request.environ["werkzeug.socket"])
        outcome = carry_out(on, ordinary, connection)
        self._journal.finish(call, outcome.status)
        return outcome.response

    def _begin(self, operation: str, channel: str | None) -> Call:
        # WSGI hands header bytes over as Latin-1 text.
        given = request.headers.get("X-Gateway-Secret", "").encode("latin-1", "replace")
        return self._journal.begin(
            method=request.method,
            path=request.path,
            operation=operation,
            channel=channel,
            secret_right=hmac.compare_digest(given, self._secret),
            request_id=request.headers.get("X-Request-Id"),
        )
