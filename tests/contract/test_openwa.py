"""The declared adapter for OpenWA."""

from __future__ import annotations

from typing import ClassVar

import pytest

from demo.simulator.apis.openwa import openwa_id
from tests.contract.suite import DeclaredContract, World, answering_as
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind

_LISTED = {"GET /api/sessions": (200, [{"id": "u-1", "name": "loja", "status": "x"}])}
_ONE = "GET /api/sessions/u-1"
_STOP, _START = "POST /api/sessions/u-1/stop", "POST /api/sessions/u-1/start"
_QR = "GET /api/sessions/u-1/qr"


def _event(name: str) -> dict[str, object]:
    return {"event": name, "sessionId": "u-1", "data": {}}


class TestOpenwa(DeclaredContract):
    kind = "openwa"
    statuses = {  # noqa: RUF012
        "ready": Status.CONNECTED,
        "created": Status.DISCONNECTED,
        "disconnected": Status.DISCONNECTED,
        "failed": Status.DISCONNECTED,
        "initializing": Status.INITIALIZING,
        "authenticating": Status.INITIALIZING,
        "qr_ready": Status.QR_REQUIRED,
        "action_required": Status.UNKNOWN,
    }
    heals_with: ClassVar[list[str]] = ["stop", "start_session"]
    unheard_if = "outgoing"  # they are reported before WhatsApp has them
    event_name = openwa_id("Loja 1")
    answers = (
        ("list", {"GET /api/sessions": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("list", {"GET /api/sessions": (403, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("list", {"GET /api/sessions": (429, {})}, GatewayErrorKind.LIMIT),
        (
            "reconnect",
            {
                **_LISTED,
                _ONE: (200, {"status": "disconnected"}),
                _STOP: (400, {"message": "not started"}),
                _START: (200, {"status": "initializing"}),
            },
            QrKind.INITIALIZING,
        ),
        (
            "reconnect",
            {
                **_LISTED,
                _ONE: (200, {"status": "failed"}),
                _STOP: (200, {}),
                _START: (400, {"message": "already started"}),
            },
            GatewayErrorKind.HTTP,
        ),
        (
            "qr",
            {
                **_LISTED,
                _ONE: (200, {"status": "qr_ready"}),
                _QR: (200, {"qrCode": "data:image/png;base64,iVBORw0KGgo"}),
            },
            QrKind.QR,
        ),
        (
            "qr",
            {**_LISTED, _ONE: (200, {"status": "qr_ready"}), _QR: (400, {"message": "not ready"})},
            QrKind.INITIALIZING,
        ),
    )
    events = (
        (_event("message.received"), 1),
        (_event("message.sent"), 1),
        (_event("message.failed"), 0),
        (_event("message.ack"), 0),
        (_event("session.status"), 0),
    )

    def test_an_id_that_no_path_can_hold_is_never_called(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = [{"id": "..", "name": "loja", "status": "disconnected"}]
        gateway, asked = answering_as(self.kind, monkeypatch, {"GET /api/sessions": (200, listed)})
        with pytest.raises(GatewayError):
            gateway.reconnect(Channel("loja", Status.DISCONNECTED), silent=False)
        assert [request for request, _ in asked] == ["GET /api/sessions"]

    def test_the_list_tells_number_and_activity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = {"phone": "5500000000001", "lastActive": "2026-06-25T09:01:55.000Z"}
        entry = {"id": "u-1", "name": "loja", "status": "ready", **told}
        gateway, _ = answering_as(self.kind, monkeypatch, {"GET /api/sessions": (200, [entry])})
        (channel,) = gateway.list_channels().channels
        assert channel == Channel(
            "loja", Status.CONNECTED, number="5500000000001", activity=1782378115.0, alias="u-1"
        )

    def test_what_needs_a_person_is_left_to_one(self, world: World) -> None:
        world.simulator.put_channel("loja", status_text="action_required")
        channel = world.channel()
        world.simulator.clear_requests()
        with pytest.raises(GatewayError, match="a status that is for a person: action_required"):
            world.gateway.reconnect(channel, silent=False)
        assert world.asked == ["status"]
