"""The declared adapter for OpenWA."""

from __future__ import annotations

from typing import ClassVar

import pytest

from demo.simulator.apis.openwa import openwa_id
from tests.contract.suite import DeclaredContract, World, answering_as
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind

_LIST = "GET /api/sessions?limit=1000&offset="
_LISTED = {f"{_LIST}0": (200, [{"id": "u-1", "name": "loja", "status": "x"}])}
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
        ("list", {f"{_LIST}0": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("list", {f"{_LIST}0": (403, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("list", {f"{_LIST}0": (429, {})}, GatewayErrorKind.LIMIT),
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
        gateway, asked = answering_as(self.kind, monkeypatch, {f"{_LIST}0": (200, listed)})
        with pytest.raises(GatewayError):
            gateway.reconnect(Channel("loja", Status.DISCONNECTED), silent=False)
        assert [request for request, _ in asked] == [f"{_LIST}0"]

    @pytest.mark.parametrize(
        ("sizes", "asked_for"),
        [([1000, 1000, 7], [0, 1000, 2000]), ([1000, 0], [0, 1000]), ([7], [0])],
    )
    def test_sessions_of_all_pages_are_listed(
        self, monkeypatch: pytest.MonkeyPatch, sizes: list[int], asked_for: list[int]
    ) -> None:
        names = iter(map(str, range(3000)))
        pages = {
            f"{_LIST}{offset}": (200, [{"id": next(names), "status": "ready"} for _ in range(size)])
            for offset, size in zip(asked_for, sizes, strict=True)
        }
        for one in (entry for _, page in pages.values() for entry in page):
            one["name"] = f"loja {one['id']}"
        gateway, asked = answering_as(self.kind, monkeypatch, pages)
        assert len(gateway.list_channels().channels) == sum(sizes)
        assert [request for request, _ in asked] == list(pages)

    def test_a_list_whose_pages_repeat_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a release or a proxy ignores the offset."""
        entries = [{"id": str(n), "name": str(n), "status": "ready"} for n in range(1000)]
        pages = {f"{_LIST}{offset}": (200, entries) for offset in (0, 1000)}
        gateway, _ = answering_as(self.kind, monkeypatch, pages)
        assert gateway.list_channels().left_out == {}

    def test_the_list_tells_number_and_activity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = {"phone": "5500000000001", "lastActive": "2026-06-25T09:01:55.000Z"}
        entry = {"id": "u-1", "name": "loja", "status": "ready", **told}
        gateway, _ = answering_as(self.kind, monkeypatch, {f"{_LIST}0": (200, [entry])})
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
