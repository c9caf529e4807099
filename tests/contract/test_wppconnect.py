"""The adapter for WPPConnect Server."""

from __future__ import annotations

import pytest

from tests.contract.suite import (
    NUMBER,
    SECRET,
    GatewayContract,
    Phone,
    World,
    answering_as,
    show_qr,
)
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.gateways import wppconnect
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.messages.message import Wanted


def _fail_start(world: World) -> None:
    """Let the network fail for the moment of a start."""
    world.simulator.put_channel("loja", start="fails")
    world.simulator.drop("loja")
    world.gateway.start_session("loja")
    world.simulator.put_channel("loja", start="works")


class TestWppconnect(GatewayContract):
    kind = "wppconnect"
    statuses = {  # noqa: RUF012
        "CONNECTED": Status.CONNECTED,
        "CLOSED": Status.DISCONNECTED,
        "INITIALIZING": Status.INITIALIZING,
        "QRCODE": Status.QR_REQUIRED,
        "PHONECODE": Status.QR_REQUIRED,
    }
    heals_with = ["close_session", "start_session"]  # noqa: RUF012
    unheard_if = ""  # the event does not tell what the API has sent

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """It is not: the server knows no difference between one that is closed and none."""
        missing = Channel("nobody", Status.DISCONNECTED)
        assert world.gateway.reconnect(missing, silent=False).kind is QrKind.INITIALIZING

    def test_one_session_that_hangs_neither_holds_up_nor_fails_the_list(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wppconnect, "_STATUS_SECONDS", 2.0)
        world.simulator.put_channel("obra")
        world.simulator.fault("status", "hang", channel="loja")
        listed = {c.id: c.status for c in world.gateway.list_channels().channels}
        assert listed.pop("loja") is Status.UNKNOWN
        assert set(listed.values()) == {Status.CONNECTED}

    def test_sessions_that_all_fail_are_a_gateway_that_fails(self, world: World) -> None:
        world.simulator.fault("status", "html_502")
        with pytest.raises(GatewayError) as caught:
            world.gateway.list_channels()
        assert caught.value.reason is GatewayErrorKind.HTML

    def test_a_token_is_made_once_and_again_after_a_401(self, world: World) -> None:
        world.gateway.qr("loja")
        world.gateway.qr("loja")
        assert len(world.simulator.requests("token")) == 1
        world.simulator.fault("status", "unauthorized", times=1)
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED
        assert len(world.simulator.requests("token")) == 2

    def test_a_session_that_was_just_started_is_not_asked(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wppconnect, "_SETTLE_SECONDS", 3600.0)
        gateway = world.another()
        world.simulator.drop("loja")
        channel = world.channel()
        gateway.reconnect(channel, silent=False)
        world.simulator.clear_requests()

        assert gateway.qr("loja").kind is QrKind.INITIALIZING
        for stuck in (False, True):
            kind = gateway.reconnect(channel, silent=False, stuck=stuck).kind
            assert kind is QrKind.INITIALIZING
        listed = {c.id: c.status for c in gateway.list_channels().channels}

        assert listed["loja"] is Status.INITIALIZING
        assert not world.simulator.requests("status", "loja")

    def test_a_session_keeps_its_own_webhook_through_a_repair(self, world: World) -> None:
        gateway = world.another(webhook="")

        def webhook() -> str:
            return world.server.gateway.at("loja", lambda c, _: c.webhook, "")

        world.server.gateway.at(
            "loja", lambda c, _: setattr(c, "webhook", "http://own.example"), None
        )
        world.simulator.zombie("loja")
        gateway.reconnect(world.channel(), silent=True)
        assert webhook() == "http://own.example"

    def test_a_sessions_webhook_outlives_a_pairing_code_and_the_number_does_not(
        self, world: World
    ) -> None:
        def stored() -> tuple[str, str]:
            return world.server.gateway.at("loja", lambda c, _: (c.webhook, c.phone), ("", ""))

        world.simulator.put_channel("loja", qr_seconds=60)
        show_qr(world)
        world.gateway.pairing_code("loja", NUMBER)
        assert stored() == ("https://crm.example.com/loja", NUMBER)
        assert world.gateway.qr("loja").image is None, "the server shows the one or the other"
        world.clock.forward(60)
        assert world.gateway.qr("loja").kind is QrKind.NOT_STARTED
        world.gateway.start_session("loja")
        assert stored() == ("https://crm.example.com/loja", "")
        assert world.gateway.qr("loja").image, "the QR code is back"
        other = "Pixel12 Digital/+"
        world.simulator.drop(other)
        world.gateway.start_session(other)
        webhook = world.server.gateway.at(other, lambda c, _: c.webhook, "")
        assert webhook == "https://crm.example.com/Pixel12%20Digital%2F%2B"

    @pytest.mark.parametrize(
        ("end", "told"), [("?token=not-a-real-token", "[secret]"), ("/in", "/in")]
    )
    def test_no_part_of_the_webhook_stands_in_what_is_told(self, end: str, told: str) -> None:
        webhook = f"https://crm.example.com/{{session}}{end}"
        body = {"message": f"no host: {webhook.replace('{session}', 'loja')}"}
        with RawServer(answering(body, status=500)) as server:
            gateway = wppconnect.WppconnectGateway(server.url, SECRET, webhook=webhook)
            with pytest.raises(GatewayError) as caught:
                gateway.start_session("loja")
        assert caught.value.detail.endswith(f"no host: [secret]loja{told}")

    def test_without_its_webhook_no_session_gets_a_pairing_code(self, world: World) -> None:
        show_qr(world)
        gateway = world.another(webhook="")
        assert not gateway.can_pair
        with pytest.raises(GatewayError):
            gateway.pairing_code("loja", NUMBER)
        assert world.gateway.qr("loja").image, "the QR code is still there"

    def test_a_start_that_failed_is_repaired_once_a_person_has_ended_the_browser(
        self, world: World
    ) -> None:
        _fail_start(world)
        for _ in range(2):
            world.gateway.reconnect(world.channel(), silent=False, stuck=True)
            world.clock.forward(10)
            assert world.channel().status is Status.INITIALIZING, "the browser is still running"
        assert 'log says "The browser is already running"' in world.gateway.starting_hint
        world.simulator.kill_browser("loja")
        world.gateway.reconnect(world.channel(), silent=False, stuck=True)
        world.clock.forward(10)
        assert world.channel().connected
        assert not {"delete", "create"} & set(world.asked)

    def test_a_pairing_that_is_thrown_away_is_followed_by_a_start(self, world: World) -> None:
        _fail_start(world)
        world.gateway.delete("loja")
        world.gateway.create("loja")
        assert world.channel().status is Status.QR_REQUIRED
        assert world.gateway.qr("loja").kind is QrKind.QR

    @pytest.mark.parametrize("fault", ["hang", "http_500_json"])
    def test_a_session_that_cannot_be_closed_keeps_its_pairing(
        self, world: World, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        monkeypatch.setattr(wppconnect, "_CLOSE_SECONDS", 0.3)
        _fail_start(world)
        world.simulator.fault("close_session", fault)
        with pytest.raises(GatewayError, match="its pairing is kept"):
            world.gateway.delete("loja")
        paths = [call["path"] for call in world.simulator.requests("delete")]
        assert paths == ["/api/loja/logout-session"]

    @pytest.mark.parametrize("fault", ["hang", "http_500_json"])
    def test_a_page_that_cannot_be_closed_is_started_all_the_same(
        self, world: World, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        monkeypatch.setattr(wppconnect, "_CLOSE_SECONDS", 0.3)
        world.simulator.zombie("loja")
        channel = world.channel()
        world.simulator.fault("close_session", fault)
        world.gateway.reconnect(channel, silent=True)
        assert world.asked[-1] == "start_session"

    def test_the_own_number_is_that_of_the_phone_that_is_paired_now(self, world: World) -> None:
        channel = world.channel()
        assert channel.number is None, "the list does not tell it"
        before = world.gateway.own_number(channel)
        world.server.gateway.at("loja", lambda c, _: setattr(c, "number", NUMBER), None)
        assert world.gateway.own_number(channel) == NUMBER != before
        world.simulator.drop("loja")
        with pytest.raises(GatewayError):
            world.gateway.own_number(channel)

    def test_an_open_session_is_logged_out(self, world: World) -> None:
        world.gateway.delete("loja")
        assert [call["path"] for call in world.simulator.requests("delete")] == [
            "/api/loja/logout-session"
        ]

    def test_an_answer_that_is_no_success_is_none(self, world: World) -> None:
        channel = world.channel()
        world.simulator.fault("send", "wrong_shape_nested")
        with pytest.raises(GatewayError):
            world.gateway.send_text(channel, NUMBER, "hello")

    @pytest.mark.parametrize(
        ("status", "code", "kind", "image"),
        [
            ("CONNECTED", None, QrKind.ACCEPTED, None),
            ("INITIALIZING", None, QrKind.INITIALIZING, None),
            ("QRCODE", "data:image/png;base64,iV", QrKind.QR, "data:image/png;base64,iV"),
            ("QRCODE", "2@not-an-image", QrKind.QR, None),
            ("PHONECODE", None, QrKind.QR, None),
            ("CLOSED", None, QrKind.NOT_STARTED, None),
            (None, None, QrKind.NOT_STARTED, None),
        ],
    )
    def test_each_state_has_its_meaning(
        self,
        monkeypatch: pytest.MonkeyPatch,
        status: object,
        code: object,
        kind: QrKind,
        image: str | None,
    ) -> None:
        answers = {
            "POST /api/loja/not-a-real%3Asecret/generate-token": (201, {"token": "a-token"}),
            "GET /api/loja/status-session": (200, {"status": status, "qrcode": code}),
        }
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        answer = gateway.qr("loja")
        assert (answer.kind, answer.image) == (kind, image)

    @pytest.mark.parametrize("fault", ["html_502", "unauthorized"])
    def test_a_logout_that_was_not_refused_by_the_server_clears_nothing(
        self, world: World, fault: str
    ) -> None:
        world.simulator.fault("delete", fault)
        with pytest.raises(GatewayError):
            world.gateway.delete("loja")
        paths = {call["path"] for call in world.simulator.requests("delete")}
        assert paths == {"/api/loja/logout-session"}
        assert not world.simulator.requests("close_session")

    def test_each_row_of_a_list_is_a_message_of_a_person_or_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        people: tuple[dict[str, object], ...] = ({}, {"id": {"_serialized": "false_1@c.us_1"}})
        others: tuple[dict[str, object], ...] = (
            {"fromMe": True},
            {"fromMe": None},
            {"isNotification": True},
            {"type": "gp2"},
            {"type": "revoked"},
            {"id": "false_1@c.us_A B"},
        )
        rows = [
            {"id": f"false_1@c.us_{n}", "t": 5, "fromMe": False} | row
            for n, row in enumerate(people + others)
        ]
        chats = [
            {"id": {"_serialized": "1@c.us"}},  # of which no time is told
            {"id": {"_serialized": "2@c.us"}, "t": 1},
            {"id": {"_serialized": "status@broadcast"}, "t": 5},
            7,
        ]
        one = "/api/loja"
        answers: dict[str, tuple[int, object]] = {
            f"POST {one}/not-a-real%3Asecret/generate-token": (201, {"token": "a-token"}),
            f"POST {one}/list-chats": (200, chats),
            f"GET {one}/get-messages/1%40c.us?count=200": (
                200,
                {"status": "success", "response": rows},
            ),
        }
        gateway, asked = answering_as(self.kind, monkeypatch, answers)
        received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(2.0, 9.0))
        assert [one.id for one in received.messages] == [str(n) for n in range(len(people))]
        assert len(asked) == len(answers), "a page that is not full is the last"
        answers[f"POST {one}/list-chats"] = (200, [])
        received = gateway.received(Channel("loja", Status.CONNECTED), Wanted(2.0, 9.0))
        assert "loaded no chat yet" in received.cannot_know

    def test_a_chat_that_does_not_open_leaves_the_others(self, world: World) -> None:
        phone = Phone(world)
        phone.gets("A")
        world.simulator.fault("messages", "chat_not_open")
        assert "does not open" in phone.received().cannot_know
