"""The declared adapter for go-whatsapp-web-multidevice."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.contract.suite import DeclaredContract, World
from zapwatch.channels import Status
from zapwatch.gateways.base import GatewayErrorKind, QrKind
from zapwatch.messages.message import EventError


class TestGowa(DeclaredContract):
    kind = "gowa"
    statuses = {  # noqa: RUF012
        "logged_in": Status.CONNECTED,
        "connected": Status.QR_REQUIRED,
        "connecting": Status.INITIALIZING,
        "disconnected": Status.DISCONNECTED,
    }
    looks_with = "list"
    heals_with: ClassVar[list[str]] = ["list", "restart"]
    unheard_if = ""  # the event does not tell what the API has sent
    answers = (
        ("list", {"GET /devices": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        (
            "qr",
            {
                "GET /devices": (200, {"results": [{"id": "loja", "state": "connected"}]}),
                "GET /devices/loja/login": (200, {"results": {"qr_link": "http://x/qr.png"}}),
            },
            QrKind.QR,
        ),
        (
            "reconnect",
            {
                "GET /devices": (200, {"results": [{"id": "loja", "state": "disconnected"}]}),
                "POST /devices/loja/reconnect": (500, {"message": "never paired"}),
            },
            GatewayErrorKind.HTTP,
        ),
    )
    events = (
        ({"event": "message", "session_id": "loja", "payload": {}}, 1),
        ({"event": "message", "session_id": "loja", "payload": None}, 0),
        ({"event": "message.ack", "session_id": "loja", "payload": {}}, 0),
        ({"event": "message.reaction", "session_id": "loja", "payload": {}}, 0),
    )

    def test_an_event_that_names_only_a_number_is_refused(self) -> None:
        """Where the device has no id."""
        with pytest.raises(EventError):
            self.parse({"event": "message", "device_id": "5500000000001", "payload": {}})

    def png_of(self, world: World, image: str) -> bytes:
        """Fetch the code from the link that the answer holds."""
        return world.gateway.get_image(image)
