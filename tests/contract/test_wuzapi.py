"""The declared adapter for wuzapi."""

from __future__ import annotations

from typing import ClassVar

import pytest

from demo.simulator.apis.whapi import token_of
from tests.contract.suite import NUMBER, SECRET, DeclaredContract, World, answering_as
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.messages.message import EventError, parse_event

# What the list says for each of the description's words.
_FLAGS = {
    "logged in": {"connected": True, "loggedIn": True, "qrcode": ""},
    "shows a code": {"connected": True, "loggedIn": False, "qrcode": "data:image/png;base64,AA=="},
    "logging in": {"connected": True, "loggedIn": False, "qrcode": ""},
    "not connected": {"connected": False, "loggedIn": False, "qrcode": ""},
}
_USER = {"id": "0f", "name": "loja", "token": "t0k3n", "jid": "5500000000001.0:52@s.whatsapp.net"}


def _users(word: str, **more: object) -> dict[str, tuple[int, object]]:
    return {"GET /admin/users": (200, {"data": [_USER | _FLAGS[word] | more]})}


_DOWN, _SHOWS = _users("not connected"), _users("shows a code")


class TestWuzapi(DeclaredContract):
    kind = "wuzapi"
    statuses = {  # noqa: RUF012
        "logged in": Status.CONNECTED,
        "shows a code": Status.QR_REQUIRED,
        "logging in": Status.INITIALIZING,
        "not connected": Status.DISCONNECTED,
    }
    looks_with = "list"
    heals_with: ClassVar[list[str]] = ["list", "close_session", "start_session"]
    unheard_if = ""  # the event does not tell what the API has sent
    answers = (
        ("list", {"GET /admin/users": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        (
            "reconnect",
            {**_DOWN, "POST /session/connect": (200, {"data": {"details": "Connected!"}})},
            QrKind.INITIALIZING,
        ),
        (
            "reconnect",
            {**_DOWN, "POST /session/connect": (500, {"error": "already connected"})},
            QrKind.INITIALIZING,
        ),
        (
            "reconnect",
            {**_DOWN, "POST /session/connect": (400, {"error": "could not decode Payload"})},
            GatewayErrorKind.HTTP,
        ),
        (
            "qr",
            {**_SHOWS, "GET /session/qr": (200, {"data": {"QRCode": "data:image/png;base64,iV"}})},
            QrKind.QR,
        ),
        (
            "qr",
            {**_users("shows a code", token="\ud800"), "GET /session/qr": (404, {})},
            GatewayErrorKind.HTTP,
        ),
        (
            "qr",
            {**_SHOWS, "GET /session/qr": (500, {"error": "not connected"})},
            QrKind.INITIALIZING,
        ),
        (
            "qr",
            {**_SHOWS, "GET /session/qr": (500, {"error": "already logged in"})},
            QrKind.ACCEPTED,
        ),
    )
    events = (
        ({"type": "Message", "instanceName": "loja", "event": {}}, 1),
        ({"type": "Connected", "instanceName": "loja", "event": {}}, 0),
        ({"type": "ReadReceipt", "instanceName": "loja", "event": {}}, 0),
    )

    def test_a_form_is_refused(self) -> None:
        """It is what wuzapi posts where WEBHOOK_FORMAT is not json."""
        body = b"jsonData=%7B%22type%22%3A%22Message%22%7D&userID=0f"
        with pytest.raises(EventError):
            parse_event(ADAPTERS["wuzapi"].read_event, body, 0.0)

    def test_the_list_of_older_releases_is_bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = [_USER | _FLAGS["logged in"]]
        gateway, _ = answering_as(self.kind, monkeypatch, {"GET /admin/users": (200, listed)})
        (channel,) = gateway.list_channels().channels
        assert (channel.status, channel.number) == (Status.CONNECTED, "5500000000001")

    def test_flags_that_are_missing_are_no_status(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gateway, _ = answering_as(self.kind, monkeypatch, {"GET /admin/users": (200, [_USER])})
        (channel,) = gateway.list_channels().channels
        assert channel.status is Status.UNKNOWN

    def test_of_two_users_of_one_name_the_first_is_called(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second = _USER | _FLAGS["not connected"] | {"token": "another"}
        users = [_USER | _FLAGS["logged in"], second]
        answers = {
            "GET /admin/users": (200, {"data": users}),
            "POST /chat/send/text": (200, {"data": {"Id": "3EB0"}}),
        }
        gateway, asked = answering_as(self.kind, monkeypatch, answers)
        (channel,) = gateway.list_channels().channels
        assert channel.status is Status.CONNECTED
        assert gateway.send_text(channel, NUMBER, "hello") == "3EB0"
        assert [token for _, token in asked] == [None, "t0k3n"]

    def show(self, world: World, raw: object) -> None:
        flags = _FLAGS.get(raw, raw) if isinstance(raw, str) else raw
        world.simulator.put_channel("loja", status_text=flags)

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
