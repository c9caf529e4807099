"""The adapter for PixelHub's gateway-wrapper."""

from __future__ import annotations

import pytest

from tests.contract.suite import NUMBER, GatewayContract, World
from zapwatch.channels import Status
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

    @pytest.mark.parametrize("fault", ["id_as_messageId", "id_as_message_id"])
    def test_the_messages_id_is_in_any_of_three_places(self, world: World, fault: str) -> None:
        world.simulator.fault("send", fault)
        message_id = world.gateway.send_text(world.channel(), NUMBER, "hello")
        assert message_id == world.born[0].id

    def test_a_message_without_an_id_was_sent_all_the_same(self, world: World) -> None:
        world.simulator.fault("send", "without_id")
        assert world.gateway.send_text(world.channel(), NUMBER, "hello") is None
        assert len(world.born) == 1
