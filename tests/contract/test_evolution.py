"""The adapter for Evolution API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import chain, repeat
from threading import Barrier

import pytest

from demo.simulator.knobs import WhatsApp
from tests.contract.suite import (
    NUMBER,
    SECRET,
    Answers,
    GatewayContract,
    Phone,
    World,
    answering_as,
    meaning_of_qr,
)
from tests.support.raw_server import RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, GatewayResponse, QrKind
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.messages.message import Wanted

_IMAGE = "data:image/png;base64,iVBORw0KGgo"


def _store(world: World, status: str) -> None:
    world.server.gateway.at("loja", lambda c, _: setattr(c, "stored", status), None)


def _clients(world: World, name: str = "loja") -> int:
    return world.server.gateway.at(name, lambda c, _: c.clients, 0)


class TestEvolution(GatewayContract):
    kind = "evolution"
    statuses = {  # noqa: RUF012
        "open": Status.CONNECTED,
        "close": Status.DISCONNECTED,
        "connecting": Status.INITIALIZING,
    }
    qr_is_listed_as = Status.INITIALIZING
    heals_with = ["restart"]  # noqa: RUF012

    @pytest.mark.parametrize("stale", ["connected", "disconnected", "initializing"])
    def test_the_processs_own_view_counts_and_not_the_databases(
        self, world: World, stale: str
    ) -> None:
        _store(world, stale)
        assert world.channel().connected
        world.simulator.drop("loja")
        _store(world, stale)
        assert world.channel().status is Status.DISCONNECTED

    def test_an_instance_that_the_process_does_not_know_is_unknown(self, world: World) -> None:
        world.simulator.fault("status", "not_found", channel="loja")
        assert world.channel().status is Status.UNKNOWN
        assert world.channel("Pixel12 Digital/+").connected

    def test_where_the_process_answers_for_no_instance_the_gateway_fails(
        self, world: World
    ) -> None:
        world.simulator.fault("status", "html_502")
        with pytest.raises(GatewayError):
            world.gateway.list_channels()

    @pytest.mark.parametrize("how", ["refused", "unresolved"])
    def test_an_outage_of_ten_repairs_leaves_one_client(self, world: World, how: WhatsApp) -> None:
        world.simulator.put_channel("loja", whatsapp=how)
        channel = world.channel("loja")

        for _ in range(10):
            answers = [
                world.gateway.reconnect(channel, silent=False),
                world.gateway.reconnect(channel, silent=True, stuck=True),
                world.gateway.qr("loja"),
                world.gateway.qr("loja"),
            ]
            assert {answer.kind for answer in answers} == {QrKind.INITIALIZING}
            world.gateway.start_session("loja")
            world.clock.forward(3600)
        for _ in range(3):  # of which not all meet the same state
            with pytest.raises(GatewayError, match="its pairing is kept"):
                world.gateway.delete("loja")
            world.gateway.start_session("loja")

        assert _clients(world) == 1
        world.simulator.put_channel("loja", whatsapp="reachable")
        assert world.channel().connected

    @pytest.mark.parametrize("how", ["refused", "unresolved"])
    def test_a_new_instance_in_an_outage_has_at_most_one_client(
        self, world: World, how: WhatsApp
    ) -> None:
        world.simulator.put_channel("nova", session="unpaired", whatsapp=how)
        channel = world.channel("nova")
        for _ in range(10):
            with pytest.raises(GatewayError):
                world.gateway.pairing_code("nova", NUMBER)
            world.gateway.reconnect(channel, silent=False)
            world.gateway.qr("nova")
            world.gateway.start_session("nova")
        assert _clients(world, "nova") == 1
        world.simulator.put_channel("nova", whatsapp="reachable")
        assert world.gateway.qr("nova").kind is QrKind.QR

    def test_a_code_that_waits_is_shown_and_not_restarted(self, world: World) -> None:
        world.simulator.unpair("loja")
        world.gateway.reconnect(world.channel(), silent=False)
        for _ in range(3):
            assert world.gateway.reconnect(world.channel(), silent=False, stuck=True).image
            assert world.gateway.qr("loja").image
        assert _clients(world) == 1
        assert "restart" not in world.asked

    def test_an_instance_that_has_given_up_again_is_connected_again(self, world: World) -> None:
        for _ in range(2):
            world.simulator.drop("loja")
            world.gateway.reconnect(world.channel(), silent=False)
            world.clock.forward(1)
            assert world.channel().connected
        assert _clients(world) == 1

    @pytest.mark.parametrize("fault", ["html_502", "http_429", "unauthorized", "html_504", "reset"])
    def test_a_connect_that_was_refused_is_called_again(self, world: World, fault: str) -> None:
        """One whose answer was lost may have created a client, and is not."""
        world.simulator.drop("loja")
        world.simulator.fault("start_session", fault, times=1)
        for _ in range(2):
            with suppress(GatewayError):
                world.gateway.reconnect(world.channel(), silent=False)
        world.clock.forward(1)
        assert world.channel().connected is (fault not in {"html_504", "reset"})

    def test_of_two_connects_that_are_refused_at_once_each_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("zapwatch.gateways.evolution._STEADY_LOOKS", 1)
        gateway = EvolutionGateway("http://127.0.0.1:9", SECRET)
        both = Barrier(2, timeout=30)

        def answer(_: str, path: str, *__: object, **___: object) -> GatewayResponse:
            if "/connect/" in path:
                both.wait()
                return GatewayResponse(429, "application/json", b"{}")
            if "connectionState" in path:
                return GatewayResponse(200, "application/json", b'{"instance":{"state":"close"}}')
            row = b'[{"name":"loja","connectionStatus":"close"}]'
            return GatewayResponse(200, "application/json", row)

        monkeypatch.setattr(gateway._http, "request", answer)
        with ThreadPoolExecutor(2) as pool:
            started = [pool.submit(gateway.start_session, "loja") for _ in range(2)]
        assert {type(one.exception()) for one in started} == {GatewayError}

    def test_an_instance_that_is_not_loaded_yet_is_left_alone(self, world: World) -> None:
        world.simulator.put_channel("loja", loaded=False)
        channel = world.channel()
        assert channel.status is Status.UNKNOWN
        world.simulator.clear_requests()
        for call in (
            lambda: world.gateway.reconnect(channel, silent=False, stuck=True),
            lambda: world.gateway.qr("loja"),
            lambda: world.gateway.start_session("loja"),
        ):
            with pytest.raises(GatewayError, match="not loaded this instance yet"):
                call()
        assert set(world.asked) == {"status"}

    def test_a_licence_that_is_not_activated_is_named(self) -> None:
        body = {"code": "LICENSE_REQUIRED", "message": "service not activated"}
        with RawServer(answering(body, status=503)) as server:
            gateway = EvolutionGateway(server.url, SECRET)
            for call in (gateway.list_channels, lambda: gateway.qr("loja")):
                with pytest.raises(GatewayError, match="Evolution runs, but its licence") as caught:
                    call()
                assert caught.value.reason is GatewayErrorKind.HTTP

    def test_number_and_count_of_messages_are_told(self, world: World) -> None:
        channel = world.channel()
        assert channel.number == world.simulator.number("loja")
        assert channel.number not in repr(channel)
        assert channel.message_count == 0
        world.gateway.send_text(channel, "5500000000001", "hello")
        assert world.channel().message_count == 1

    def test_the_official_api_is_listed_and_never_called(self, world: World) -> None:
        world.simulator.put_channel("oficial", integration="WHATSAPP-BUSINESS")
        channel = world.channel("oficial")
        assert (channel.connected, channel.repairable) == (True, False)
        world.simulator.clear_requests()
        with pytest.raises(GatewayError):
            world.gateway.reconnect(channel, silent=True)
        assert world.asked == []

    def test_a_closed_instance_is_never_restarted(self, world: World) -> None:
        channel = world.channel()
        world.simulator.drop("loja")
        world.gateway.reconnect(channel, silent=True)
        assert "restart" not in world.asked

    @pytest.mark.parametrize("status", [200, 201])
    def test_an_error_within_a_success_is_one(self, status: int) -> None:
        body = {"error": True, "message": "Error: the socket is gone"}
        with RawServer(answering(body, status=status)) as server:
            gateway = EvolutionGateway(server.url, SECRET)
            for call in (
                gateway.list_channels,
                lambda: gateway.qr("loja"),
                lambda: gateway.start_session("loja"),
                lambda: gateway.query(Channel("loja", Status.CONNECTED)),
            ):
                with pytest.raises(GatewayError) as caught:
                    call()
                assert caught.value.reason is GatewayErrorKind.INVALID
                assert "the socket is gone" in caught.value.detail

    @pytest.mark.parametrize(
        "entry", [None, 7, "loja", {}, {"name": 7}, {"name": ".."}, {"instance": {"name": "a"}}]
    )
    def test_an_entry_that_is_no_instance_is_passed_over(self, entry: object) -> None:
        for count in ({"Message": True}, {"Message": -1}, {"Message": "3"}, 3):
            hostile = {"name": "loja", "_count": count, "ownerJid": {"a": 1}}
            hostile["integration"] = "WHATSAPP-BUSINESS"  # not asked for its status
            with RawServer(answering([entry, hostile])) as server:
                listed = EvolutionGateway(server.url, SECRET).list_channels()
            assert listed.channels == (Channel("loja", Status.UNKNOWN, repairable=False),)
            assert sum(listed.left_out.values()) == 1

    @pytest.mark.parametrize(
        ("state", "stored", "connect", "meaning"),
        [
            ("open", "close", None, QrKind.ACCEPTED),
            ("close", "close", None, QrKind.NOT_STARTED),
            ("close", "open", None, QrKind.INITIALIZING),
            ("connecting", "connecting", {"count": 0}, QrKind.INITIALIZING),
            ("connecting", "connecting", {"base64": _IMAGE}, QrKind.QR),
            ("connecting", "connecting", {"qrcode": {"base64": _IMAGE}}, QrKind.QR),
            ("connecting", "connecting", {"instance": {"state": "open"}}, QrKind.ACCEPTED),
            ("refused", "connecting", None, GatewayErrorKind.INVALID),
        ],
    )
    def test_each_answer_has_its_meaning(
        self,
        monkeypatch: pytest.MonkeyPatch,
        state: str,
        stored: str,
        connect: object,
        meaning: QrKind | GatewayErrorKind,
    ) -> None:
        # Without an integration, as in older releases; and beside another, as for the global key.
        rows = [
            {"name": "obra", "connectionStatus": "", "integration": "EVOLUTION"},
            {"name": "loja", "connectionStatus": stored},
        ]
        answers: Answers = {
            "GET /instance/fetchInstances": (200, rows),
            "GET /instance/fetchInstances?instanceName=loja": (200, rows),
            "GET /instance/connectionState/loja": (200, {"instance": {"state": state}}),
            "GET /instance/connect/loja": (200, connect),
        }
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        assert [one.repairable for one in gateway.list_channels().channels] == [False, True]
        assert meaning_of_qr(gateway) is meaning

    def test_a_number_is_sent_only_once_the_instance_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While it is connecting, Evolution ignores the number."""
        states = iter(["connecting"] * 7 + ["close"])
        row = {"name": "loja", "connectionStatus": "connecting"}
        answers: Answers = {
            "GET /instance/fetchInstances?instanceName=loja": (200, [row]),
            "GET /instance/connectionState/loja": (
                (200, {"instance": {"state": s}}) for s in states
            ),
            "GET /instance/connect/loja": (200, {"base64": _IMAGE}),
            "DELETE /instance/logout/loja": (200, {"error": False}),
            f"GET /instance/connect/loja?number={NUMBER}": (200, {"pairingCode": "WXYZ1234"}),
        }
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        assert gateway.pairing_code("loja", NUMBER).code == "WXYZ-1234"
        assert list(states) == []

    @pytest.mark.parametrize(
        ("first", "last", "is_kept"),
        [
            ("connecting", "close", True),
            ("close", "connecting", True),
            ("connecting", "connecting", False),
        ],
    )
    def test_a_state_that_changes_meanwhile_keeps_the_pairing(
        self, monkeypatch: pytest.MonkeyPatch, first: str, last: str, is_kept: bool
    ) -> None:
        """An instance that waits for a code stays in it; in an outage, two alternate."""
        states = chain([first] * 3, repeat(last))
        row = {"name": "loja", "connectionStatus": "close"}
        logout = "DELETE /instance/logout/loja"
        answers: Answers = {
            "GET /instance/connectionState/loja": (
                (200, {"instance": {"state": s}}) for s in states
            ),
            "GET /instance/fetchInstances?instanceName=loja": (200, [row]),
            logout: (200, {"error": False}),
        }
        gateway, asked = answering_as(self.kind, monkeypatch, answers)
        with pytest.raises(GatewayError, match="its pairing is kept") if is_kept else nullcontext():
            gateway.delete("loja")
        assert ((logout, None) in asked) is not is_kept

    def test_an_event_is_made_without_what_only_the_database_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = {"id": "A", "fromMe": False, "remoteJidAlt": f"{NUMBER}@s.whatsapp.net"}
        record = {"messageType": "conversation", "messageTimestamp": 5, "pushName": "Example"}
        stored = record | {"key": key | {"remoteJid": "1@lid"}, "id": "c1", "MessageUpdate": []}
        unread = stored | {"key": {"id": "B", "fromMe": False}, "messageStubType": 2}
        page = {"total": 2, "pages": 1, "records": [stored, unread]}
        answers = {"POST /chat/findMessages/loja": (200, {"messages": page})}
        gateway, _ = answering_as(self.kind, monkeypatch, answers)
        wanted = Wanted(0.0, 5.5, events=True)
        events = gateway.received(Channel("loja", Status.CONNECTED), wanted).events
        assert {id_: event["data"] for id_, event in events.items()} == {
            "A": record | {"key": key | {"remoteJid": f"{NUMBER}@s.whatsapp.net"}}
        }

    def test_its_messages_are_listed_while_the_session_is_down(self, world: World) -> None:
        phone = Phone(world)
        phone.gets("A")
        world.simulator.drop("loja")
        assert phone.ids() == {"A"}

    def test_a_time_without_messages_is_known_where_it_stores_any(self, world: World) -> None:
        phone = Phone(world)
        phone.gets("OLD", ago=5 * 3600)
        assert phone.ids() == set()

    def test_a_server_that_ignores_page_and_filter_is_noticed(self) -> None:
        records = [
            {
                "key": {"id": f"ID{number}", "fromMe": False, "remoteJid": "1@s.whatsapp.net"},
                "messageType": "conversation",
                "messageTimestamp": 1_700_000_000 + number,
            }
            for number in range(3)
        ]
        pages = {"total": 9000, "pages": 18, "currentPage": 1}
        with RawServer(answering({"messages": pages | {"records": records}})) as server:
            channel = Channel("loja", Status.CONNECTED)
            gateway = EvolutionGateway(server.url, SECRET)
            received = gateway.received(channel, Wanted(1_700_000_001, 1_700_000_001.5))

        assert [one.id for one in received.messages] == ["ID1"]
        assert received.cannot_know == "the gateway repeats a page of its list"
