"""The declared adapter for go-whatsapp-web-multidevice."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.contract.suite import GatewayContract, World
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind


class TestGowa(GatewayContract):
    kind = "gowa"
    statuses = {  # noqa: RUF012
        "logged_in": Status.CONNECTED,
        "connected": Status.QR_REQUIRED,
        "connecting": Status.INITIALIZING,
        "disconnected": Status.DISCONNECTED,
    }
    looks_with = "list"
    heals_with: ClassVar[list[str]] = ["list", "restart"]

    def test_an_unpaired_channel_shows_a_qr_code_until_it_is_scanned(self, world: World) -> None:
        """The answer holds a link, from which the page fetches the code."""
        world.simulator.unpair("loja")
        world.gateway.reconnect(world.channel(), silent=False)

        answer = world.gateway.qr("loja")

        assert answer.kind is QrKind.QR
        assert answer.image is not None
        assert world.gateway.get_image(answer.image).startswith(b"\x89PNG")
        assert answer.image not in repr(answer)
        world.simulator.scan("loja")
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """It is the list that lacks it."""
        with pytest.raises(GatewayError, match="lists no such channel") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.HTTP

    def test_a_connected_socket_without_a_login_is_no_connection(self, world: World) -> None:
        world.simulator.put_channel("loja", status_text="connected")

        assert not world.channel().connected
