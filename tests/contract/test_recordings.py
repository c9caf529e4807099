"""What real servers answered, to the adapters; and the simulators' answers beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from tests.contract.recordings.replay import ReplayServer, posts, recorded, shape
from tests.support.clock import HandMovedClock
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import (
    Gateway,
    GatewayError,
    GatewayErrorKind,
    QrKind,
    WebhookConfig,
)
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.gateways.wppconnect import WppconnectGateway
from zapwatch.messages.message import Wanted

NUMBER = "5500000000001"


def _error(call: Callable[[], object]) -> tuple[GatewayErrorKind, str]:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.reason, caught.value.detail


class Recorded:
    """What a server answered, to its adapter."""

    name: ClassVar[str]
    adapter: ClassVar[type[Gateway]]
    always: ClassVar[tuple[str, ...]] = ()

    @contextmanager
    def given(
        self, *names: str, secret: str = "SECRET", **changes: object
    ) -> Iterator[tuple[Any, ReplayServer]]:
        """Let the named calls be answered as recorded, but for the ``changes`` of the first."""
        answers = recorded(self.name)
        calls = [answers[name] for name in (*names, *self.always)]
        calls[0] = calls[0] | changes
        with ReplayServer(*calls) as server:
            yield self.adapter(server.url, secret), server


class TestEvolution(Recorded):
    name = "evolution-2.3.6"
    adapter = EvolutionGateway
    loja = Channel("evoloja", Status.DISCONNECTED)

    def test_the_list(self) -> None:
        with self.given("list", "state, Baileys, WhatsApp out of reach") as (gateway, server):
            listed = gateway.list_channels()
        assert [(c.id, c.status, c.repairable, c.number) for c in listed.channels] == [
            ("evochan", Status.CONNECTED, False, None),
            ("evobiz", Status.CONNECTED, False, None),
            ("evoloja", Status.DISCONNECTED, True, "15550000000"),
        ]
        assert listed.channels[2].message_count == 6
        assert ("GET", "/instance/connectionState/evobiz") not in server.asked

    def test_an_instance_that_reconnects_by_itself_is_not_connected(self) -> None:
        names = (
            "list",
            "state, Baileys, WhatsApp out of reach",
            "connect while closed or connecting",
        )
        with self.given(*names) as (gateway, server):
            assert gateway.reconnect(self.loja, silent=True).kind is QrKind.INITIALIZING
            assert gateway.qr("evoloja").kind is QrKind.INITIALIZING
            gateway.start_session("evoloja")
            assert _error(lambda: gateway.delete("evoloja"))[1].endswith("its pairing is kept")

        assert {path for _, path in server.asked} == {
            "/instance/fetchInstances",
            "/instance/connectionState/evoloja",
        }

    def test_refusals(self) -> None:
        key = ("wrong key", "state, unknown", "query while closed", "send while closed")
        with self.given(*key, "delete message while closed") as (gateway, _):
            missing = Channel("nope", Status.UNKNOWN)
            assert _error(gateway.list_channels) == (
                GatewayErrorKind.UNAUTHORIZED,
                "HTTP 401, wrong secret?: Unauthorized; Unauthorized",
            )
            kind, detail = _error(lambda: gateway.reconnect(missing, silent=False))
            assert kind is GatewayErrorKind.HTTP
            assert 'The \\"nope\\" instance does not exist' in detail
            for call in (
                lambda: gateway.query(self.loja),
                lambda: gateway.send_text(self.loja, NUMBER, "x"),
                lambda: gateway.take_back(self.loja, NUMBER, "X"),
            ):
                kind, detail = _error(call)
                assert kind is GatewayErrorKind.HTTP
                assert "Connection Closed" in detail

    def test_its_messages_and_the_events_made_of_them(self) -> None:
        wanted = Wanted(1_795_950_000.0, 1_795_953_000.0, events=True)
        with self.given("messages, both bounds") as (gateway, server):
            received = gateway.received(self.loja, wanted)
        assert [one.id for one in received.messages] == ["WAID5", "WAID4", "WAID2", "WAID1"]
        assert (received.cannot_know, len(server.asked)) == ("", 1)
        for record in recorded(self.name)["messages, both bounds"]["body"]["messages"]["records"]:
            if record["key"]["id"] in received.events:
                del record["id"], record["MessageUpdate"]
                assert received.events[record["key"]["id"]]["data"] == record
        with self.given("messages, seconds") as (gateway, _):
            assert "DATABASE_SAVE_DATA" in gateway.received(self.loja, wanted).cannot_know
        with self.given("messages, unknown instance") as (gateway, _):
            missing = Channel("nope", Status.UNKNOWN)
            kind, detail = _error(lambda: gateway.received(missing, wanted))
        assert (kind, "does not exist" in detail) == (GatewayErrorKind.HTTP, True)

    def test_its_webhook(self) -> None:
        with self.given("webhook set", "webhook never set") as (gateway, _):
            found = gateway.webhook(self.loja)
            assert found == WebhookConfig(("http://127.0.0.1:19861/messages/evo",))
            assert gateway.webhook(Channel("evobiz", Status.CONNECTED)) == WebhookConfig()

    def test_the_managers_page_is_no_list(self) -> None:
        path = {"method": "GET", "path": "/instance/fetchInstances"}
        with self.given("manager page", request=path) as (gateway, _):
            assert _error(gateway.list_channels)[0] is GatewayErrorKind.HTML

    def test_a_restart_that_is_refused_without_words(self) -> None:
        opened = {"instance": {"instanceName": "evoloja", "state": "open"}}
        names = ("state, Baileys, WhatsApp out of reach", "restart while closed or connecting")
        with self.given(*names, body=opened) as (gateway, _):
            kind, detail = _error(lambda: gateway.reconnect(self.loja, silent=True))
        assert (kind, "object" in detail) == (GatewayErrorKind.INVALID, False)
        assert "its log does" in detail


class TestWppconnect(Recorded):
    name = "wppconnect-server-2.10.4"
    adapter = WppconnectGateway
    always = ("token",)
    loja = Channel("loja", Status.DISCONNECTED)

    def test_the_list_and_its_states(self) -> None:
        for name, status in (
            ("status, closed", Status.DISCONNECTED),
            ("status, start failed", Status.INITIALIZING),
        ):
            with self.given("sessions", name, secret="SECRETKEY") as (gateway, _):
                assert gateway.list_channels().channels[0].status is status

    def test_a_stuck_session_is_closed_and_started_although_that_answers_500(self) -> None:
        names = ("status, start failed", "close after a failed start", "start after that close")
        with self.given(*names, secret="SECRETKEY") as (gateway, server):
            answer = gateway.reconnect(self.loja, silent=False, stuck=True)
        assert answer.kind is QrKind.INITIALIZING
        assert [path.rpartition("/")[2] for method, path in server.asked if method == "POST"] == [
            "generate-token",
            "close-session",
            "start-session",
        ]

    def test_a_session_that_is_not_closed_by_that_keeps_its_pairing(self) -> None:
        names = ("logout", "close after a failed start", "status, start failed", "clear data")
        with self.given(*names, secret="SECRETKEY") as (gateway, server):
            assert _error(lambda: gateway.delete("loja"))[1].endswith("its pairing is kept")
        assert not any("clear" in path for _, path in server.asked)

    def test_a_folder_that_cannot_be_cleared_is_a_failure(self) -> None:
        names = ("logout", "close after a failed start", "status after that close", "clear data")
        with self.given(*names, secret="SECRETKEY") as (gateway, _):
            kind, detail = _error(lambda: gateway.delete("loja"))
        assert kind is GatewayErrorKind.HTTP
        assert "Error on clear session data" in detail

    def test_a_session_that_is_down_has_no_list_of_messages(self) -> None:
        for name in ("chats, closed", "chats, initializing"):
            with self.given(name, secret="SECRETKEY") as (gateway, _):
                received = gateway.received(self.loja, Wanted(0.0, 1.0))
            assert "the session is down" in received.cannot_know

    def test_refusals(self) -> None:
        cases: list[tuple[str, str, Callable[[WppconnectGateway], object]]] = [
            ("sessions, wrong key", "wrong", WppconnectGateway.list_channels),
            ("token, wrong key", "wrong", lambda gateway: gateway.qr("loja")),
            ("status, wrong token", "SECRETKEY", lambda gateway: gateway.qr("loja")),
        ]
        for name, secret, call in cases:
            with self.given(name, secret=secret) as (gateway, _):
                assert _error(partial(call, gateway))[0] is GatewayErrorKind.UNAUTHORIZED, name
        with self.given("number, closed", "send, closed", secret="SECRETKEY") as (gateway, _):
            for ask in (
                lambda: gateway.query(self.loja),
                lambda: gateway.send_text(self.loja, NUMBER, "x"),
            ):
                assert _error(ask)[0] is GatewayErrorKind.HTTP


class TestWaha(Recorded):
    name = "waha-2024.10-core-noweb"
    adapter = WahaGateway
    channel = Channel("default", Status.DISCONNECTED)

    def test_the_list(self) -> None:
        for name, status in (
            ("list, no session", Status.DISCONNECTED),
            ("list with a wrong key", Status.DISCONNECTED),
            ("list, starting", Status.INITIALIZING),
        ):
            with self.given(name) as (gateway, _):
                listed = gateway.list_channels()
            stopped = status is Status.DISCONNECTED
            assert listed.channels == (Channel("default", status, stopped=stopped),)

    def test_a_stopped_session_is_started_also_where_it_has_started_already(self) -> None:
        for name in ("start", "start again"):
            with self.given("get, stopped", name) as (gateway, server):
                answer = gateway.reconnect(self.channel, silent=False)
            assert answer.kind is QrKind.INITIALIZING
            assert server.asked[-1] == ("POST", "/api/sessions/default/start")

    def test_a_starting_session_is_waited_for_or_restarted(self) -> None:
        with self.given("get, starting", "restart") as (gateway, server):
            assert gateway.qr("default").kind is QrKind.INITIALIZING
            gateway.reconnect(self.channel, silent=False, stuck=True)
        assert server.asked[-1] == ("POST", "/api/sessions/default/restart")

    def test_a_status_that_changed_before_the_code_was_asked_for(self) -> None:
        for name, kind in (
            ("qr, starting", QrKind.INITIALIZING),
            ("qr, stopped", QrKind.NOT_STARTED),
        ):
            waiting = {"status": "SCAN_QR_CODE"}
            with self.given("get, starting", name, body=waiting) as (gateway, _):
                assert gateway.qr("default").kind is kind
        with self.given("get, starting", "code, stopped", body=waiting) as (gateway, _):
            reason, detail = _error(lambda: gateway.pairing_code("default", NUMBER))
        assert (reason, "start it first" in detail) == (GatewayErrorKind.HTTP, True)

    def test_refusals(self) -> None:
        me = Channel("default", Status.DISCONNECTED, number=NUMBER)
        cases: list[tuple[str, Callable[[WahaGateway], object]]] = [
            ("unknown, get", lambda gateway: gateway.qr("nope")),
            ("send, stopped", lambda gateway: gateway.send_text(me, NUMBER, "x")),
            ("exists, stopped", lambda gateway: gateway.query(me)),
            ("exists, starting", lambda gateway: gateway.query(me)),
        ]
        for name, call in cases:
            with self.given(name) as (gateway, _):
                kind, detail = _error(partial(call, gateway))
            assert kind is GatewayErrorKind.HTTP, name
            assert str(recorded(self.name)[name]["status"]) in detail


def _evolution(simulator: Simulator) -> None:
    simulator.put_channel("evochan", integration="EVOLUTION")
    simulator.put_channel("evobiz", integration="WHATSAPP-BUSINESS", posting="global")
    simulator.put_channel("evoloja", whatsapp="unresolved")


def _wppconnect(simulator: Simulator) -> None:
    simulator.put_channel("obra")
    simulator.put_channel("loja", session="not_started", start="fails")


def _waha(simulator: Simulator) -> None:
    simulator.put_channel("default", old_core=True, session="dead")


_ARRANGED: Mapping[str, tuple[str, Callable[[Simulator], None]]] = {
    "evolution-2.3.6": ("evolution", _evolution),
    "wppconnect-server-2.10.4": ("wppconnect", _wppconnect),
    "waha-2024.10-core-noweb": ("waha", _waha),
}
_MAY_LACK = {
    # Of a session that the server has in mind; when it has is not told by the answers.
    ("wppconnect", "session"),
    # Only of a session that is paired, which none recorded was.
    ("waha", "me"),
    # What an error of the file system is made of.
    ("wppconnect", "error"),
}
_OTHERWISE = {
    # 200 where nothing writes into the folder at that moment, as was seen too.
    "clear data",
    # The body of a page.
    "manager page",
    "unknown path",
}


def _headers(call: Mapping[str, Any], api: str, server: SimulatorServer) -> dict[str, str]:
    names = call["request"]["auth"]
    wrong = "wrong" in call["name"] and api != "waha"
    if "Authorization" in names:
        made = requests.post(f"{server.url}/api/loja/SECRETKEY/generate-token", timeout=20).json()
        return {"Authorization": "Bearer " + ("wrong" if wrong else made["token"])}
    return dict.fromkeys(set(names) - {"Accept"}, "wrong" if wrong else "SECRETKEY")


def _assert_alike(simulated: object, real: object, api: str, where: str) -> None:
    """Compare two shapes. What was null may be anything, and the other way round."""
    if "NoneType" in (simulated, real):
        return
    if isinstance(simulated, dict) and isinstance(real, dict):
        lacking = {key for key in simulated.keys() ^ real.keys() if (api, key) not in _MAY_LACK}
        assert not lacking, (where, lacking)
        for key in simulated.keys() & real.keys():
            if (api, key) not in _MAY_LACK:
                _assert_alike(simulated[key], real[key], api, f"{where}.{key}")
    elif isinstance(simulated, list) and isinstance(real, list):
        assert bool(simulated) is bool(real), where
        for one, other in zip(simulated, real, strict=True):
            _assert_alike(one, other, api, where)
    else:
        assert simulated == real, where


@pytest.mark.parametrize("name", _ARRANGED)
def test_the_simulator_answers_in_the_shapes_of_the_real_server(name: str) -> None:
    api, arrange = _ARRANGED[name]
    with SimulatorServer("SECRETKEY", api=api, clock=HandMovedClock()) as server:
        arrange(Simulator(server.url))
        if api == "evolution":
            message = SimulatedMessage("evoloja", outgoing=False, at=1_795_952_220)
            server.gateway.births.bear(message)
        for call in recorded(name).values():
            where = f"{name}: {call['name']}"
            method, path = call["request"]["method"], call["request"]["path"]
            answer = requests.request(
                method,
                server.url + path,
                json=call["request"].get("body"),
                headers=_headers(call, api, server),
                timeout=20,
            )
            if call["name"] in _OTHERWISE:
                continue
            assert answer.status_code == call["status"], where
            assert answer.headers["Content-Type"].partition(";")[0] == "application/json", where
            _assert_alike(shape(answer.json()), shape(call["body"]), api, where)
            status = call["body"].get("status") if isinstance(call["body"], dict) else None
            if isinstance(status, str):
                assert answer.json()["status"] == status, where


def test_a_call_that_no_gateway_knows_is_answered_in_its_way() -> None:
    page = recorded("wppconnect-server-2.10.4")["unknown path"]
    with SimulatorServer("SECRETKEY", api="wppconnect") as server:
        answer = requests.get(server.url + page["request"]["path"], timeout=20)
    assert (answer.status_code, page["status"]) == (404, 404)
    assert answer.headers["Content-Type"].lower() == page["content_type"]


@pytest.mark.parametrize("api", ["evolution", "waha"])
def test_what_is_posted_is_as_what_was(api: str) -> None:
    named = {"evolution": "/messages/evo", "waha": "/messages/waha?token=TOKEN"}[api]
    real = next(post for post in posts() if post["path"] == named)
    with ReplayServer() as receiver, SimulatorServer("SECRETKEY", api=api) as server:
        simulator = Simulator(server.url)
        simulator.traffic(paused=True)
        simulator.put_channel("loja")
        url = f"{receiver.url}{named.partition('?')[0]}"
        simulator.webhook(url=url, token="TOKEN", flood=1, signed=False)
        server.gateway.send("loja", NUMBER, "hello")
        wait_until(lambda: len(receiver.bodies) == 2, "two events")
        posted = json.loads(receiver.bodies[0])

    _assert_alike(shape(posted), shape(real["body"]), api, named)
    assert receiver.headers[0].get("Authorization") == real["headers"].get("Authorization")
    assert not any(header.lower().startswith("x-webhook-hmac") for header in receiver.headers[0])
