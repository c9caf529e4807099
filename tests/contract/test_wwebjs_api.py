"""The declared adapter for wwebjs-api."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.contract.suite import GatewayContract, World
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind


class TestWwebjsApi(GatewayContract):
    kind = "wwebjs-api"
    statuses = {  # noqa: RUF012
        "CONNECTED": Status.CONNECTED,
        "OPENING": Status.INITIALIZING,
        "PAIRING": Status.INITIALIZING,
        "TIMEOUT": Status.INITIALIZING,
        "UNLAUNCHED": Status.INITIALIZING,
        "UNPAIRED": Status.INITIALIZING,
        "UNPAIRED_IDLE": Status.INITIALIZING,
        "session_not_connected": Status.INITIALIZING,
        "CONFLICT": Status.DISCONNECTED,
        "browser lost": Status.DISCONNECTED,
        "TOS_BLOCK": Status.UNKNOWN,
    }
    qr_is_listed_as = Status.INITIALIZING
    heals_with: ClassVar[list[str]] = ["restart"]

    def test_a_start_that_the_caller_calls_stuck_is_repeated(self, world: World) -> None:
        """Unless a code waits for a person, which is asked for first."""
        world.simulator.put_channel("loja", status="initializing")
        channel = world.channel()
        world.simulator.clear_requests()
        world.gateway.reconnect(channel, silent=False, stuck=True)
        assert world.asked == ["status", "qr", "restart"]

        world.simulator.put_channel("loja", status="qr_required")
        world.simulator.clear_requests()
        answer = world.gateway.reconnect(channel, silent=False, stuck=True)
        assert answer.kind is QrKind.QR
        assert world.asked == ["status", "qr"]

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """The server says so with HTTP 200; nothing starts what nobody has asked for."""
        with pytest.raises(GatewayError, match="session_not_found") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.INVALID
        assert world.asked == ["status"]

    def test_the_code_is_the_image_that_the_answer_is(self, world: World) -> None:
        world.simulator.put_channel("loja", status="qr_required")

        image = world.gateway.qr("loja").image

        assert image is not None
        assert image.startswith("data:image/png;base64,iVBORw0KGgo")
