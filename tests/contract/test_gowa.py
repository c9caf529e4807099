"""The declared adapter for go-whatsapp-web-multidevice."""

from __future__ import annotations

import base64
import re
from typing import ClassVar

import pytest

from tests.contract.suite import DeclaredContract, World, answering_as
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.messages.message import EventError


def _listed(**more: str) -> dict[str, tuple[int, object]]:
    return {"GET /devices": (200, {"code": "SUCCESS", "results": [{"id": "loja"} | more]})}


_CONNECTED = _listed(state="connected")


class TestGowa(DeclaredContract):
    kind = "gowa"
    statuses = {  # noqa: RUF012
        "logged_in": Status.CONNECTED,
        "connected": Status.QR_REQUIRED,
        "not paired": Status.QR_REQUIRED,
        "connecting": Status.INITIALIZING,
        "disconnected": Status.DISCONNECTED,
    }
    looks_with = "list"
    heals_with: ClassVar[list[str]] = ["list", "restart"]
    unheard_if = ""  # the event does not tell what the API has sent
    answers = (
        ("list", {"GET /devices": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("list", {"GET /devices": (200, {"results": None})}, GatewayErrorKind.INVALID),
        *(
            ("qr", {**_CONNECTED, "GET /devices/loja/login": login}, outcome)
            for login, outcome in (
                ((200, {"results": {"qr_link": "http://x/qr.png"}}), QrKind.QR),
                ((200, {"results": {"qr_link": "iVBORw0KGgo"}}), GatewayErrorKind.INVALID),
                ((400, {"code": "ALREADY_LOGGED_IN"}), QrKind.ACCEPTED),
                ((500, {"code": "SESSION_SAVED_ERROR"}), QrKind.INITIALIZING),
                ((401, {"code": "AUTHENTICATION_ERROR"}), GatewayErrorKind.INVALID),
                ((401, {"code": "UNAUTHORIZED"}), GatewayErrorKind.UNAUTHORIZED),
            )
        ),
        (
            "reconnect",
            {
                **_listed(state="disconnected", jid="5500000000001@s.whatsapp.net"),
                "POST /devices/loja/reconnect": (500, {"message": "not logged in"}),
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

    def test_a_link_below_the_path_of_the_base_url_is_fetched_there(self) -> None:
        with RawServer(answering(b"an image", content_type="image/png")) as server:
            gateway = ADAPTERS[self.kind](f"{server.url}/gowa", "a:b")
            assert gateway.get_image("http://127.0.0.1/gowa/statics/qr.png") == b"an image"
            for link in ("http://127.0.0.1/statics/qr.png", "/gowa/qr.png", "http://[", ""):
                with pytest.raises(GatewayError, match="some other server"):
                    gateway.get_image(link)
        assert [head.split()[1] for head in server.requests] == [b"/gowa/statics/qr.png"]

    def test_no_password_stands_in_what_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        header = base64.b64encode(b"not-a-real:secret").decode()
        said = f"secret is no password of not-a-real: {header}"
        answers = {"GET /devices": (401, {"message": said})}
        gateway, _ = answering_as(self.kind, monkeypatch, answers)  # not-a-real:secret
        with pytest.raises(GatewayError) as caught:
            gateway.list_channels()
        assert "[secret] is no password of not-a-real" in caught.value.detail
        assert header not in caught.value.detail

    def test_a_name_in_any_letters_can_be_probed(self, world: World) -> None:
        """The device is named in a header."""
        world.simulator.put_channel("S\u00e3o \u0141\u00f3d\u017a")
        channel = world.channel("S\u00e3o \u0141\u00f3d\u017a")
        world.gateway.query(channel)
        world.gateway.send_text(channel, "5500000000001", "hello")
        assert world.born[0].channel == channel.id

    def png_of(self, world: World, image: str) -> bytes:
        """Fetch the code from the link, which is of another scheme and port behind a proxy."""
        with pytest.raises(GatewayError):
            world.gateway.get_image(image.replace("127.0.0.1", "127.0.0.2"))
        return world.gateway.get_image(re.sub(r"http://([^:]*):\d+", r"https://\1", image))
