"""The declared adapter for wuzapi."""

from __future__ import annotations

from typing import ClassVar

import pytest

from demo.simulator.apis.whapi import token_of
from tests.contract.suite import NUMBER, SECRET, GatewayContract, World
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.gateways.registry import ADAPTERS

# What the list says for each of the description's words.
_FLAGS = {
    "logged in": {"connected": True, "loggedIn": True, "qrcode": ""},
    "shows a code": {"connected": True, "loggedIn": False, "qrcode": "data:image/png;base64,AA=="},
    "logging in": {"connected": True, "loggedIn": False, "qrcode": ""},
    "not connected": {"connected": False, "loggedIn": False, "qrcode": ""},
}


class TestWuzapi(GatewayContract):
    kind = "wuzapi"
    statuses = {  # noqa: RUF012
        "logged in": Status.CONNECTED,
        "shows a code": Status.QR_REQUIRED,
        "logging in": Status.INITIALIZING,
        "not connected": Status.DISCONNECTED,
    }
    looks_with = "list"
    heals_with: ClassVar[list[str]] = ["list", "close_session", "start_session"]

    def show(self, world: World, raw: object) -> None:
        flags = _FLAGS.get(raw, raw) if isinstance(raw, str) else raw
        world.simulator.put_channel("loja", status_text=flags)

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """It is the list that lacks it."""
        with pytest.raises(GatewayError, match="lists no such channel") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.HTTP

    def test_a_users_token_is_never_told(self, world: World) -> None:
        token = token_of(SECRET, "loja")
        assert token not in repr(world.channel())
        listed = {"name": "loja", "token": token, "connected": True, "loggedIn": True}
        with RawServer(answering({"data": [listed], "error": f"no {token}"})) as server:
            gateway = ADAPTERS["wuzapi"](server.url, SECRET)
            with pytest.raises(GatewayError) as caught:
                gateway.send_text(Channel("loja", Status.CONNECTED), NUMBER, "hello")
        assert token not in f"{caught.value!r} {caught.value.detail}"

    def test_a_token_that_was_changed_is_looked_up_again(self, world: World) -> None:
        channel, number = world.channel(), world.simulator.number("Pixel12 Digital/+")
        world.simulator.fault("send", "unauthorized", times=1)
        world.simulator.clear_requests()

        with pytest.raises(GatewayError):
            world.gateway.send_text(channel, number, "hello")
        assert world.gateway.send_text(channel, number, "hello") is not None
        operations = [call["operation"] for call in world.simulator.requests()]
        assert operations == ["send", "list", "send"]

    def test_one_that_is_connected_already_is_no_failure(self, world: World) -> None:
        """wuzapi answers 500 to it."""
        world.simulator.put_channel("loja", status_text=_FLAGS["not connected"])
        world.gateway.start_session("loja")
        assert world.simulator.requests("start_session")[0]["status"] == 500

    def test_paired_in_the_meantime_is_no_failure(self, world: World) -> None:
        world.simulator.put_channel("loja", status_text=_FLAGS["shows a code"])
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED
