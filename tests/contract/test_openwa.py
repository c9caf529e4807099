"""The declared adapter for OpenWA."""

from __future__ import annotations

from typing import ClassVar

import pytest

from demo.simulator.apis.openwa import openwa_id
from tests.contract.suite import GatewayContract, World
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind


class TestOpenwa(GatewayContract):
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

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """It is the list that lacks it."""
        with pytest.raises(GatewayError, match="lists no such channel") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.HTTP

    def test_a_channel_is_called_by_its_name_and_known_to_events_by_its_id(
        self, world: World
    ) -> None:
        assert world.channel().alias == openwa_id("loja")

    def test_what_needs_a_person_is_left_to_one(self, world: World) -> None:
        world.simulator.put_channel("loja", status_text="action_required")
        channel = world.channel()
        world.simulator.clear_requests()

        with pytest.raises(GatewayError, match="a status that is for a person: action_required"):
            world.gateway.reconnect(channel, silent=False)
        assert world.asked == ["status"]

    def test_the_time_of_the_last_activity_is_read(self, world: World) -> None:
        at = world.clock.time()
        world.server.gateway.at("loja", lambda one, _: setattr(one, "active_at", at), None)
        assert world.channel().activity == pytest.approx(at)
