"""The adapter for Whapi.Cloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from demo.simulator.apis.whapi import token_of, whapi_id
from tests.contract.suite import CHANNELS, NUMBER, SECRET, GatewayContract, World, meaning_of_qr
from tests.support.raw_server import Conversation, RawServer, answering
from zapwatch.channels import Channel, NamedChannel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, Operation, QrKind
from zapwatch.gateways.whapi import WhapiGateway
from zapwatch.messages.message import Wanted

_NAMED = (NamedChannel("loja", "a-token-that-is-none"),)


class TestWhapi(GatewayContract):
    kind = "whapi"
    statuses = {  # noqa: RUF012
        "AUTH": Status.CONNECTED,
        "NOT_INIT": Status.DISCONNECTED,
        "INIT": Status.INITIALIZING,
        "LAUNCH": Status.INITIALIZING,
        "QR": Status.QR_REQUIRED,
        "ERROR": Status.DISCONNECTED,
        "STOP": Status.DISCONNECTED,
        "SYNC_ERROR": Status.UNKNOWN,
    }
    lists_with = "status"
    event_name = whapi_id("Loja 1")
    heals_with: ClassVar[list[str]] = []

    def test_no_session_yet_is_not_a_gateway_that_fails(self, world: World) -> None:
        """Without channels at Whapi every token is wrong."""
        for channel in CHANNELS:
            world.simulator.remove(channel)
        with pytest.raises(GatewayError) as caught:
            world.gateway.list_channels()
        assert caught.value.reason is GatewayErrorKind.UNAUTHORIZED

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """The settings name the channels, so that nothing needs to be asked."""
        missing = Channel("nobody", Status.DISCONNECTED)
        with pytest.raises(GatewayError, match="name no such channel"):
            world.gateway.reconnect(missing, silent=False)
        assert not world.asked

    def test_a_zombie_is_listed_as_connected_and_brought_back(self, world: World) -> None:
        """It is not brought back: no call that keeps the pairing is known, and none is made."""
        world.simulator.zombie("loja")
        channel = world.channel()
        assert channel.connected
        world.simulator.clear_requests()
        with pytest.raises(GatewayError, match="has no call that reconnects such a channel"):
            world.gateway.reconnect(channel, silent=True)
        assert world.asked == ["status"]

    def test_a_start_that_the_caller_calls_stuck_is_repeated(self, world: World) -> None:
        for text in ("INIT", "LAUNCH"):
            world.simulator.put_channel("loja", status_text=text)
            channel = world.channel()
            world.simulator.clear_requests()
            world.gateway.reconnect(channel, silent=False)
            assert world.asked == ["status"]
            world.gateway.reconnect(channel, silent=False, stuck=True)
            assert world.asked == ["status", "status", "restart"]

    def test_a_list_asks_for_each_channel_and_starts_none(self, world: World) -> None:
        world.simulator.put_channel("loja", status="disconnected")
        world.simulator.clear_requests()
        listed = {channel.id: channel for channel in world.gateway.list_channels().channels}
        assert {name: one.status for name, one in listed.items()} == {
            "loja": Status.DISCONNECTED,
            "Pixel12 Digital/+": Status.CONNECTED,
        }
        assert world.asked == ["status", "status"]
        state = world.simulator.channel("loja")
        assert state is not None
        assert state["status"] == "disconnected"

    def test_the_name_in_log_and_events_is_learned(self, world: World) -> None:
        channel = world.channel()
        assert channel.alias == whapi_id("loja")
        assert channel.message_key == whapi_id("loja")

    def test_one_wrong_token_is_that_channels_alone(self, world: World) -> None:
        world.simulator.remove("loja")
        assert world.channel() == Channel("loja", Status.UNKNOWN)
        assert world.channel("Pixel12 Digital/+").connected
        with pytest.raises(GatewayError) as caught:
            world.gateway.reconnect(world.channel(), silent=False)
        assert caught.value.reason is GatewayErrorKind.UNAUTHORIZED
        assert caught.value.one_channel

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("STOP", "trial or subscription is over"),
            ("SYNC_ERROR", "only a logout and a new pairing help"),
            ("SOMETHING_NEW", "a status that is not known: SOMETHING_NEW"),
        ],
    )
    def test_what_only_a_person_can_mend_is_not_touched(
        self, world: World, text: str, words: str
    ) -> None:
        world.simulator.put_channel("loja", status_text=text)
        calls: list[Callable[[], object]] = [
            lambda: world.gateway.reconnect(world.channel(), silent=False),
            lambda: world.gateway.qr("loja"),
        ]
        for call in calls:
            with pytest.raises(GatewayError, match=words):
                call()
        assert set(world.asked) == {"status"}

    @pytest.mark.parametrize("text", ["NOT_INIT", "ERROR"])
    def test_one_that_is_down_is_woken(self, world: World, text: str) -> None:
        world.simulator.put_channel("loja", status_text=text)
        answer = world.gateway.reconnect(world.channel(), silent=False)
        assert answer.kind is QrKind.INITIALIZING
        assert world.asked[-1] == "restart"

    def test_the_newest_message_is_told_where_it_is_wanted(self, world: World) -> None:
        world.gateway.send_text(world.channel("Pixel12 Digital/+"), NUMBER, "hello")
        world.gateway.send_text(
            world.channel("Pixel12 Digital/+"), world.simulator.number("loja"), "hello"
        )
        assert world.channel().activity is None
        world.simulator.clear_requests()
        listed = world.another(messages="activity").list_channels().channels
        activity = {channel.id: channel.activity for channel in listed}
        assert activity["loja"] == pytest.approx(world.clock.time(), abs=1)
        assert sorted(world.asked) == ["messages", "messages", "status", "status"]

    def test_a_logout_of_one_that_is_logged_out_is_none_to_complain_of(self, world: World) -> None:
        world.simulator.put_channel("loja", status="qr_required")
        world.gateway.delete("loja")
        assert world.simulator.requests("delete")[0]["status"] == 409

    @pytest.mark.parametrize(
        ("status", "reason", "words"),
        [
            (401, GatewayErrorKind.HTTP, "the channel is not paired: So it is"),
            (402, GatewayErrorKind.LIMIT, "a limit of its trial or plan: So it is"),
            (403, GatewayErrorKind.HTTP, "Whapi forbids it, for this recipient perhaps: So it is"),
            (404, GatewayErrorKind.UNAUTHORIZED, "a wrong token.: So it is"),
            (429, GatewayErrorKind.LIMIT, "too many requests: So it is"),
        ],
    )
    def test_an_http_status_means_what_whapi_means_by_it(
        self, status: int, reason: GatewayErrorKind, words: str
    ) -> None:
        body = {"error": {"code": status, "message": "So it is"}}
        channel = Channel("loja", Status.CONNECTED, number=NUMBER)
        with RawServer(answering(body, status=status)) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            for call in (
                lambda: gateway.send_text(channel, NUMBER, "hello"),
                lambda: gateway.query(channel),
                lambda: gateway.qr("loja"),
            ):
                with pytest.raises(GatewayError, match=words) as caught:
                    call()
                assert caught.value.reason is reason

    @pytest.mark.parametrize("status", [401, 402, 403, 404])
    def test_the_page_of_a_proxy_is_not_whapis_answer(self, status: int) -> None:
        page = answering(b"<html>no</html>", status=status, content_type="text/html")
        with RawServer(page) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            with pytest.raises(GatewayError) as caught:
                gateway.qr("loja")
        assert caught.value.reason is GatewayErrorKind.HTML

    @pytest.mark.parametrize(
        ("contacts", "passes"),
        [
            ([{"status": "valid"}], True),
            ([{"status": "invalid"}], True),
            ([{"status": "processing"}], False),
            ([{}], False),
            ([], False),
            (None, False),
        ],
    )
    def test_a_query_passes_once_whatsapp_has_answered(
        self, contacts: object, passes: bool
    ) -> None:
        channel = Channel("loja", Status.CONNECTED, number=NUMBER)
        with RawServer(answering({"contacts": contacts})) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            if passes:
                gateway.query(channel)
            else:
                with pytest.raises(GatewayError, match="without the status of a contact"):
                    gateway.query(channel)

    def test_a_text_that_was_not_sent_is_a_failure_also_with_http_200(self) -> None:
        with RawServer(answering({"sent": False})) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            with pytest.raises(GatewayError, match="not sent"):
                gateway.send_text(Channel("loja", Status.CONNECTED), NUMBER, "hello")

    @pytest.mark.parametrize(
        ("status", "answer", "meaning"),
        [
            (200, {"status": "OK", "base64": "iVBORw0KGgo"}, QrKind.QR),
            (200, {"status": "OK", "base64": "data:image/png;base64,iVBORw0KGgo"}, QrKind.QR),
            (200, {"status": "WAITING"}, QrKind.INITIALIZING),
            (200, {"status": "TIMEOUT"}, QrKind.INITIALIZING),
            (200, {"status": "ERROR"}, GatewayErrorKind.INVALID),
            (406, {"error": {"code": 406}}, GatewayErrorKind.HTTP),
            (409, {"error": {"code": 409}}, QrKind.ACCEPTED),
            (422, {"error": {"code": 422}}, QrKind.INITIALIZING),
            (500, {"error": {"code": 500}}, GatewayErrorKind.HTTP),
        ],
    )
    def test_each_answer_to_the_call_for_a_code_has_its_meaning(
        self, status: int, answer: dict[str, Any], meaning: QrKind | GatewayErrorKind
    ) -> None:
        health = answering({"status": {"code": 3, "text": "QR"}})
        answers = iter([health, answering(answer, status=status)])

        def talk(conversation: Conversation) -> None:
            next(answers)(conversation)

        with RawServer(talk) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            assert meaning_of_qr(gateway) is meaning

    def test_no_event_is_made_before_whapis_own_name_of_the_channel_is_known(self) -> None:
        row = {"id": "A", "from_me": False, "timestamp": 5, "chat_id": "1@s.whatsapp.net"}
        answers = iter([answering({"messages": [row]}), answering({"messages": []})])

        def talk(conversation: Conversation) -> None:
            next(answers)(conversation)

        with RawServer(talk) as server:
            gateway = WhapiGateway(server.url, "", channels=_NAMED)
            wanted = Wanted(0.0, 9.0, events=True)
            received = gateway.received(Channel("loja", Status.CONNECTED), wanted)
        assert (received.count, received.events) == (1, {})
        assert "its own name of this channel" in received.cannot_know

    @pytest.mark.parametrize("user", [None, 7, {}, {"id": None}, {"id": "x@lid"}])
    def test_a_hostile_answer_tells_nothing(self, user: object) -> None:
        for channel_id in (None, "", "..", 7, "\x00"):
            body = {"status": {"text": "AUTH"}, "user": user, "channel_id": channel_id}
            with RawServer(answering(body)) as server:
                listed = WhapiGateway(server.url, "", channels=_NAMED).list_channels()
            assert listed.channels == (Channel("loja", Status.CONNECTED),), channel_id

    def test_no_token_stands_in_what_is_told(self) -> None:
        token = token_of(SECRET, "loja")
        body = {"error": {"code": 400, "message": f"You sent {token}"}}
        with RawServer(answering(body, status=400)) as server:
            gateway = WhapiGateway(
                server.url, "", channels=[NamedChannel("loja", token), NamedChannel("x", SECRET)]
            )
            with pytest.raises(GatewayError) as caught:
                gateway.start_session("loja")
        assert SECRET not in caught.value.detail
        assert "You sent [secret]" in caught.value.detail
        assert caught.value.operation is Operation.START_SESSION
