"""The declared adapter for wwebjs-api."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.contract.suite import NUMBER, Answers, DeclaredContract, World, answering_as
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.messages.message import Wanted, bare_id

_STATUS, _IMAGE = "GET /session/status/loja", "GET /session/qr/loja/image"
_PNG = b"\x89PNG\r\n\x1a\n..."


def _state(state: str | None, message: str) -> tuple[int, dict[str, object]]:
    return 200, {"success": state == "CONNECTED", "state": state, "message": message}


class TestWwebjsApi(DeclaredContract):
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
    unheard_if = "outgoing"  # they are reported before WhatsApp has them
    answers = (
        (
            "list",
            {"GET /session/getSessions": (403, {"success": False})},
            GatewayErrorKind.UNAUTHORIZED,
        ),
        ("reconnect", {_STATUS: _state(None, "session_not_found")}, GatewayErrorKind.INVALID),
        (
            "reconnect",
            {
                _STATUS: _state(None, "session closed"),
                "GET /session/restart/loja": _state(None, "session_not_found"),
            },
            GatewayErrorKind.INVALID,
        ),
        ("qr", {_STATUS: _state(None, "session_not_connected"), _IMAGE: (200, _PNG)}, QrKind.QR),
        (
            "qr",
            {_STATUS: _state(None, "session_not_connected"), _IMAGE: _state(None, "not ready")},
            QrKind.INITIALIZING,
        ),
    )
    events = (
        ({"dataType": "message", "sessionId": "loja", "data": {"message": {}}}, 1),
        ({"dataType": "message_create", "sessionId": "loja", "data": {"message": {}}}, 1),
        ({"dataType": "message_create", "sessionId": "loja", "data": {}}, 0),
        ({"dataType": "message_ack", "sessionId": "loja", "data": {"message": {}}}, 0),
        ({"dataType": "ready", "sessionId": "loja"}, 0),
    )

    def test_without_a_state_the_message_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for state, message, status in (
            ("CONNECTED", "session_connected", Status.CONNECTED),
            (None, "session_not_connected", Status.INITIALIZING),
            ("UNPAIRED", "session_not_connected", Status.INITIALIZING),
            ("CONFLICT", "session_not_connected", Status.DISCONNECTED),
            (None, "browser tab closed", Status.DISCONNECTED),
            (None, "session closed", Status.DISCONNECTED),
            (None, "Protocol error: target closed", Status.DISCONNECTED),
            (None, "", Status.UNKNOWN),
        ):
            answers = {
                "GET /session/getSessions": (200, {"success": True, "result": ["loja"]}),
                _STATUS: _state(state, message),
            }
            gateway, _ = answering_as(self.kind, monkeypatch, answers)
            (channel,) = gateway.list_channels().channels
            assert channel.status is status, message

    def test_a_sent_text_without_an_id_is_sent_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """WhatsApp Web of July 2026 hides the ids from whatsapp-web.js."""
        answers = {"POST /client/sendMessage/loja": (200, {"success": True})}
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        assert gateway.send_text(Channel("loja", Status.CONNECTED), NUMBER, "hello") is None

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

    def test_a_message_is_known_by_either_form_of_its_id(self) -> None:
        for id_ in ({"_serialized": "false_1@c.us_A"}, {"id": "A"}):
            data = {"message": {"id": id_, "fromMe": False}}
            (found,) = self.parse({"dataType": "message", "sessionId": "loja", "data": data})
            assert bare_id(found.id) == "A"

    def test_without_a_qr_code_no_pairing_code_is_asked_for(self, world: World) -> None:
        world.simulator.put_channel("loja", status="initializing")
        with pytest.raises(GatewayError, match="has the session in OPENING"):
            world.gateway.pairing_code("loja", NUMBER)
        assert world.asked == ["status", "qr"]

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """The server says so with HTTP 200; nothing starts what nobody has asked for."""
        with pytest.raises(GatewayError, match="session_not_found") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.INVALID
        assert world.asked == ["status"]

    @pytest.mark.parametrize(("oldest", "count"), [(1.0, 99), (3.0, 101)])
    def test_a_longer_list_is_asked_for_only_where_the_time_lacks_a_part(
        self, monkeypatch: pytest.MonkeyPatch, oldest: float, count: int
    ) -> None:
        row = {"timestamp": 5, "from": "1@c.us", "fromMe": False}
        rows = [row | {"id": {"id": f"A{n}"}} for n in range(101)]
        rows[1]["timestamp"] = oldest
        lists = [(200, {"messages": found}) for found in (rows[1:], rows)]
        chats = [{"id": {"_serialized": "1@c.us"}, "timestamp": 5}]
        answers: Answers = {
            "GET /client/getChats/loja": (200, {"chats": chats}),
            "POST /chat/fetchMessages/loja": iter(lists),
        }
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(2.0, 9.0))
        assert (received.count, received.cannot_know) == (count, "")

    def test_the_code_is_the_image_that_the_answer_is(self, world: World) -> None:
        world.simulator.put_channel("loja", status="qr_required")
        image = world.gateway.qr("loja").image
        assert image is not None
        assert image.startswith("data:image/png;base64,iVBORw0KGgo")
