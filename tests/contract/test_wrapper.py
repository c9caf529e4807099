"""The adapter for PixelHub's gateway-wrapper."""

from __future__ import annotations

import pytest

from tests.contract.suite import NUMBER, GatewayContract, World, answering_as
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError


class TestWrapper(GatewayContract):
    kind = "wrapper"
    statuses = {  # noqa: RUF012
        "connected": Status.CONNECTED,
        " CONNECTED\n": Status.CONNECTED,
        "Disconnected": Status.DISCONNECTED,
        "qr_required": Status.QR_REQUIRED,
        "initializing": Status.INITIALIZING,
        "unknown": Status.UNKNOWN,
        "notLogged": Status.UNKNOWN,
    }
    looks_with = "qr"
    tells_number = False
    heals_with = ["qr"]  # noqa: RUF012

    def test_no_session_yet_is_not_a_gateway_that_fails(self, world: World) -> None:
        """It may be: the wrapper lists nothing, too, where WPPConnect does not answer it."""
        for channel in ("loja", "Pixel12 Digital/+"):
            world.simulator.remove(channel)
        with pytest.raises(GatewayError, match="no channel found"):
            world.gateway.list_channels()

    @pytest.mark.parametrize("name", ["id", "messageId", "message_id", None])
    def test_the_messages_id_is_in_any_of_three_places(
        self, monkeypatch: pytest.MonkeyPatch, name: str | None
    ) -> None:
        body = {"success": True} | ({name: "3EB0"} if name else {})
        gateway, _ = answering_as(self.kind, monkeypatch, {"POST /api/messages": (200, body)})
        sent = gateway.send_text(Channel("loja", Status.CONNECTED), NUMBER, "hello")
        assert sent == ("3EB0" if name else None)
