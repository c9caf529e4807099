"""What every adapter must do, whatever its API: one class of tests that each adapter inherits."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

import pytest

from demo.simulator import knobs as simulated
from demo.simulator.apis.registry import APIS
from demo.simulator.apis.whapi import token_of
from demo.simulator.client import Simulator, SimulatorError
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from tests.support.clock import HandMovedClock
from tests.support.raw_server import RawServer, answering
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, NamedChannel, Status, channel_key
from zapwatch.config import GatewaySettings, parse
from zapwatch.gateways import NAMED_CHANNELS, PUBLIC_URLS
from zapwatch.gateways.base import (
    ChannelList,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.declaration import Declaration, read_file
from zapwatch.gateways.declared import adapter_for
from zapwatch.gateways.registry import ADAPTERS, make_gateway
from zapwatch.http import HttpResponse
from zapwatch.messages.message import (
    Direction,
    EventError,
    Message,
    Received,
    Wanted,
    bare_id,
    make_token,
    parse_event,
)

SECRET = "not/a real+secret"
_NOW = 1_770_000_000.0
NUMBER = "5500000000001"
CHANNELS = ("loja", "Pixel12 Digital/+")
DECLARED_WAHA = read_file(Path(__file__).with_name("declared_waha.yaml"))["described-waha"]
_WORDS = "Zapwatch asks: are you there?"
_LOSING = {"delete", "create"}
_LOOKS = {"status", "row", "token"}
_FAULTS = {
    "html_502": GatewayErrorKind.HTML,
    "html_504": GatewayErrorKind.HTML,
    "html_200": GatewayErrorKind.HTML,
    "reset": GatewayErrorKind.CONNECTION,
    "empty_body": GatewayErrorKind.INVALID,
    "not_json": GatewayErrorKind.INVALID,
    "wrong_shape_number": GatewayErrorKind.INVALID,
    "wrong_shape_string": GatewayErrorKind.INVALID,
    "wrong_shape_null": GatewayErrorKind.INVALID,
    "http_429": GatewayErrorKind.LIMIT,
    "http_500_json": GatewayErrorKind.HTTP,
    "redirect": GatewayErrorKind.HTTP,
}


def _settings(kind: str, **changed: Any) -> GatewaySettings:
    """Return settings, with the suite's channels where they must be named."""
    least = {"WPP_GATEWAY_BASE_URL": "http://127.0.0.1:9", "WPP_GATEWAY_SECRET": SECRET}
    (gateway,) = parse({**least, "MESSAGE_SOURCE": "none"}).gateways
    secret = changed.get("secret", SECRET)
    named = CHANNELS if kind in NAMED_CHANNELS else ()
    return replace(
        gateway,
        type=kind,
        channels=tuple(NamedChannel(one, token_of(secret, one)) for one in named),
        **{"webhook": "https://crm.example.com/{session}", "secret": secret} | changed,
    )


class World:
    """A simulated gateway, and the adapter for it."""

    def __init__(
        self,
        kind: str,
        server: SimulatorServer,
        clock: HandMovedClock,
        declaration: Declaration | None = None,
    ) -> None:
        self.kind = kind
        self.declaration = declaration
        self.server = server
        self.clock = clock
        self.simulator = Simulator(server.url)
        self.calls: list[tuple[Operation, GatewayErrorKind | None]] = []
        self.born: list[SimulatedMessage] = []
        server.gateway.births.listen(self.born.append)
        self.gateway = self.another()

    def another(self, **changed: Any) -> Gateway:
        """Make an adapter with other settings."""
        given = {"base_url": self.server.url, "declaration": self.declaration}
        return make_gateway(_settings(self.kind, **given | changed), observe=self._note)

    def _note(self, operation: Operation, _: float, reason: GatewayErrorKind | None) -> None:
        self.calls.append((operation, reason))

    def channel(self, name: str = "loja") -> Channel:
        """Return a channel as it is listed."""
        return next(c for c in self.gateway.list_channels().channels if c.id == name)

    @property
    def asked(self) -> list[str]:
        """What the simulator was asked, without the tokens that one API wants first."""
        return [call["operation"] for call in self.simulator.requests() if call["status"] != 401]


@contextmanager
def world_of(
    kind: str, declaration: Declaration | None = None, names: Sequence[str] = ("loja",)
) -> Iterator[World]:
    """Start a simulated gateway with these channels."""
    clock = HandMovedClock()
    with SimulatorServer(SECRET, api=kind, clock=clock, traffic_seconds=3600) as server:
        world = World(kind, server, clock, declaration)
        for name in names:
            world.simulator.put_channel(name, reconnect_seconds=1)
        yield world
        world.gateway.close()
        # What is answered without asking WhatsApp calls a zombie alive.
        assert "cached" not in world.asked
        # No look may start what was stopped, mark messages as read, or download each file.
        assert "careless" not in world.asked


class Phone:
    """Lets messages arrive at the channel ``loja`` of a simulated gateway."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.clock.time()

    def gets(self, id_: str, *, ago: float = 600, **more: Any) -> SimulatedMessage:
        """Let a message come in, so many seconds ago."""
        fields: dict[str, Any] = {"outgoing": False, "id": id_, "at": self.now - ago} | more
        message = SimulatedMessage("loja", **fields)
        self.world.server.gateway.births.bear(message)
        return message

    def received(self, hours: float = 1, *, newest: bool = False) -> Received:
        """Return the messages that the adapter lists for the last hours."""
        since = self.now - hours * 3600
        channel = self.world.channel()
        return self.world.gateway.received(channel, Wanted(since, self.now, newest=newest))

    def ids(self, hours: float = 1) -> set[str]:
        """Return their ids, where the adapter knows of all."""
        received = self.received(hours)
        assert received.cannot_know == ""
        assert len({one.id for one in received.messages}) == len(received.messages)
        return {one.id for one in received.messages}


def _failure(call: Callable[[], object]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        call()
    error = caught.value
    for hidden in (SECRET, quote(SECRET, safe=""), NUMBER, _WORDS):
        assert hidden not in f"{error!r} {error} {error.detail}"
    assert error.detail.isprintable()
    assert error.request_id
    return error


_ODD: tuple[Any, ...] = (None, True, 10**400, math.inf, "\ud800", {"a": []})


def _changed(value: Any) -> Iterator[Any]:
    """Return copies of a JSON value, each with one value in it replaced by an odd one."""
    yield from _ODD
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        for changed in _changed(one) if isinstance(one, dict | list) else _ODD:
            copy = value.copy()
            copy[key] = changed
            yield copy


class GatewayContract:
    """Inherit it, name the adapter and its words, and it is tested. See docs/gateways/README.md."""

    kind: ClassVar[str]
    declaration: ClassVar[Declaration | None] = None
    """Instead of the adapter of that kind."""
    statuses: ClassVar[Mapping[str, Status]]
    """The gateway's own words for a channel's status, and what they mean."""
    qr_is_listed_as: ClassVar[Status] = Status.QR_REQUIRED
    lists_with: ClassVar[str] = "list"
    """The simulator's name of the call that lists."""
    looks_with: ClassVar[str] = "status"
    """The simulator's name of the first call of a repair."""
    tells_number: ClassVar[bool] = True
    """Whether the gateway tells its sessions' own numbers."""
    heals_with: ClassVar[list[str]]
    """The simulator's names of the calls that bring a zombie back."""
    event_name: ClassVar[str] = "Loja 1"
    """The name of the channel ``Loja 1`` in events."""
    unheard_if: ClassVar[str] = "by_api"
    """The property of a message whose event proves no way to WhatsApp; empty for none."""

    @pytest.fixture
    def world(self) -> Iterator[World]:
        with world_of(self.kind, self.declaration, names=CHANNELS) as world:
            yield world

    def show(self, world: World, raw: object) -> None:
        """Let the gateway show a word as the status of the channel ``loja``."""
        world.simulator.put_channel("loja", status_text=raw)

    def png_of(self, _world: World, image: str) -> bytes:
        """Return a QR code's image."""
        return base64.b64decode(image.removeprefix("data:image/png;base64,"))

    def test_every_status_has_its_meaning(self, world: World) -> None:
        for raw, status in self.statuses.items():
            self.show(world, raw)
            assert world.channel().status is status, raw

    def test_a_status_that_is_none_is_unknown(self, world: World) -> None:
        odd: tuple[object, ...] = ("", "nonsense", None, 7, [], {}, True, "(missing)")
        for raw in odd:
            self.show(world, raw)
            channel = world.channel()
            assert (channel.status, channel.connected) == (Status.UNKNOWN, False), raw

    def test_the_list_tells_drop_qr_code_and_start(self, world: World) -> None:
        states: dict[simulated.Status, Status] = {
            "connected": Status.CONNECTED,
            "disconnected": Status.DISCONNECTED,
            "initializing": Status.INITIALIZING,
            "qr_required": self.qr_is_listed_as,
        }
        for state, status in states.items():
            world.simulator.put_channel("loja", status=state)
            assert world.channel().status is status

    def test_no_session_yet_is_not_a_gateway_that_fails(self, world: World) -> None:
        for channel in ("loja", "Pixel12 Digital/+"):
            world.simulator.remove(channel)
        assert world.gateway.list_channels() == ChannelList(())

    def test_a_dropped_channel_is_reconnected_without_a_qr_code(self, world: World) -> None:
        for channel in CHANNELS:
            world.simulator.drop(channel)
            kind = world.gateway.reconnect(world.channel(channel), silent=False).kind
            assert kind in {QrKind.INITIALIZING, QrKind.ACCEPTED}
            world.clock.forward(1)
            assert world.gateway.qr(channel).kind is QrKind.ACCEPTED
            assert world.channel(channel).connected
        assert not _LOSING & set(world.asked)

    def test_an_unpaired_channel_shows_a_qr_code_until_it_is_scanned(self, world: World) -> None:
        world.simulator.unpair("loja")
        world.gateway.reconnect(world.channel(), silent=False)
        answer = world.gateway.qr("loja")
        assert answer.kind is QrKind.QR
        assert answer.image is not None
        assert self.png_of(world, answer.image).startswith(b"\x89PNG")
        assert answer.image not in repr(answer)
        world.simulator.scan("loja")
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED
        assert not _LOSING & set(world.asked)

    def test_a_session_that_is_not_started_can_be(self, world: World) -> None:
        world.simulator.put_channel("loja", session="not_started", status="disconnected")
        assert world.gateway.qr("loja").kind is QrKind.NOT_STARTED
        world.gateway.start_session("loja")
        if world.gateway.qr("loja").kind is QrKind.INITIALIZING:
            world.clock.forward(2)
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED

    def test_a_zombie_is_listed_as_connected_and_brought_back(self, world: World) -> None:
        world.simulator.zombie("loja")
        channel = world.channel()
        assert channel.connected
        world.simulator.clear_requests()
        world.gateway.reconnect(channel, silent=True)
        assert [one for one in world.asked if one not in _LOOKS] == self.heals_with
        world.clock.forward(1)
        assert world.channel().connected
        assert world.simulator.state()["channels"][0]["zombie"] is False
        assert not _LOSING & set(world.asked)

    def test_a_channel_that_is_well_is_left_alone_and_cannot_be_stuck(self, world: World) -> None:
        channel = world.channel()
        world.simulator.clear_requests()
        for stuck in (False, True):
            answer = world.gateway.reconnect(channel, silent=False, stuck=stuck)
            assert answer.kind is QrKind.ACCEPTED
        assert set(world.asked) == {self.looks_with}

    def test_a_session_that_is_just_starting_is_waited_for(self, world: World) -> None:
        world.simulator.put_channel("loja", initializing_answers=1, reconnect_seconds=5)
        world.simulator.drop("loja")
        world.gateway.reconnect(world.channel(), silent=False)
        world.simulator.put_channel("loja", initializing_answers=1)
        channel = world.channel()
        assert channel.status is Status.INITIALIZING
        world.simulator.clear_requests()
        world.gateway.reconnect(channel, silent=False)
        assert set(world.asked) <= {self.looks_with, "row"}
        assert "restart" not in world.asked
        assert "close_session" not in world.asked

    def test_a_start_that_the_caller_calls_stuck_is_repeated(self, world: World) -> None:
        world.simulator.put_channel("loja", status="initializing")
        channel = world.channel()
        world.simulator.clear_requests()
        world.gateway.reconnect(channel, silent=False, stuck=True)
        assert [one for one in world.asked if one not in _LOOKS] == self.heals_with
        assert not _LOSING & set(world.asked)

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        missing = Channel("nobody", Status.DISCONNECTED)
        error = _failure(lambda: world.gateway.reconnect(missing, silent=False))
        assert (error.reason, error.http_status) == (GatewayErrorKind.HTTP, 404)

    def test_a_wrong_key_is_told_from_other_failures(self, world: World) -> None:
        gateway = world.another(secret="another one")
        channel = Channel("loja", Status.CONNECTED, number=NUMBER)
        for call in (
            gateway.list_channels,
            lambda: gateway.reconnect(channel, silent=True),
            lambda: gateway.qr("loja"),
            lambda: gateway.start_session("loja"),
            lambda: gateway.send_text(channel, NUMBER, _WORDS),
        ):
            assert _failure(call).reason is GatewayErrorKind.UNAUTHORIZED

    def test_a_failure_of_a_call_says_what_kind_it_is(self, world: World) -> None:
        channel = world.channel()
        calls: tuple[tuple[str, Callable[[], object]], ...] = (
            (self.lists_with, world.gateway.list_channels),
            (self.looks_with, lambda: world.gateway.reconnect(channel, silent=False)),
            (self.looks_with, lambda: world.gateway.qr("loja")),
            ("send", lambda: world.gateway.send_text(channel, NUMBER, _WORDS)),
        )
        for fault, reason in _FAULTS.items():
            for operation, call in calls:
                world.simulator.fault(operation, fault)
                world.calls.clear()
                error = _failure(call)
                assert error.reason is reason, (fault, operation)
                assert world.calls == [(error.operation, reason)], "it is counted once"
                world.simulator.clear_faults()

    def test_no_value_in_an_answer_is_a_fault_of_zapwatch(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each value of each answer, replaced by each odd one, is read or refused."""
        for name in CHANNELS:
            world.server.gateway.births.bear(SimulatedMessage(name, outgoing=False))
        gateway = world.another(messages="activity")
        channel = world.channel()
        calls = (
            gateway.list_channels,
            partial(gateway.qr, "loja"),
            partial(gateway.send_text, channel, NUMBER, _WORDS),
            partial(gateway.received, channel, Wanted(0.0, world.clock.time(), events=True)),
        )
        ask = gateway._http.request
        kept: dict[str, HttpResponse] = {}
        odd: dict[str, bytes] = {}

        def answer(method: str, path: str, *more: Any, **named: Any) -> HttpResponse:
            name = f"{method} {path}"
            if name not in kept:
                kept[name] = ask(method, path, *more, **named)
            return replace(kept[name], raw=odd.get(name, kept[name].raw))

        monkeypatch.setattr(gateway._http, "request", answer)
        for call in calls:
            before = set(kept)
            call()
            for name in kept.keys() - before:
                for changed in _changed(kept[name].parsed):
                    odd = {name: json.dumps(changed).encode()}
                    with suppress(GatewayError):
                        call()
            odd.clear()

    def test_a_call_that_hangs_is_given_up(self, world: World) -> None:
        channel = world.channel()
        gateway = world.another(timeout=0.3, qr_timeout=0.3)
        for operation, call in (
            (self.lists_with, gateway.list_channels),
            (self.looks_with, lambda: gateway.reconnect(channel, silent=False)),
            ("send", lambda: gateway.send_text(channel, NUMBER, _WORDS)),
        ):
            world.simulator.fault(operation, "hang")
            assert _failure(call).reason is GatewayErrorKind.TIMEOUT
            world.simulator.clear_faults()

    def test_a_query_passes_where_there_is_a_way_to_whatsapp(self, world: World) -> None:
        channel = world.channel()
        if not world.gateway.can_query:
            with pytest.raises(GatewayError):
                world.gateway.query(channel)
            return
        world.gateway.query(channel)
        world.simulator.deafen("loja")
        world.gateway.query(channel)
        world.simulator.zombie("loja")
        _failure(lambda: world.gateway.query(channel))
        world.simulator.drop("loja")
        _failure(lambda: world.gateway.query(channel))

    def test_a_query_that_is_not_answered_has_not_passed(self, world: World) -> None:
        channel = world.channel()
        for fault in ("html_502", "http_500_json", "wrong_shape_nested", "hang"):
            gateway = world.another(qr_timeout=0.3 if fault == "hang" else 20)
            if gateway.can_query:
                world.simulator.fault("query", fault)
                _failure(partial(gateway.query, channel))
            gateway.close()

    def test_what_is_sent_arrives_and_can_be_taken_back(self, world: World) -> None:
        channel, other = world.channel(), world.simulator.number("Pixel12 Digital/+")

        message_id = world.gateway.send_text(channel, other, _WORDS)

        sent, arrived = world.born
        assert (arrived.channel, arrived.words) == ("Pixel12 Digital/+", _WORDS)
        assert message_id is not None
        assert sent.id in message_id
        if world.gateway.can_take_back:
            assert world.server.gateway.still_there() == [sent]
            world.gateway.take_back(channel, other, message_id)
            assert world.server.gateway.still_there() == []
            _failure(lambda: world.gateway.take_back(channel, other, message_id))
        else:
            with pytest.raises(GatewayError):
                world.gateway.take_back(channel, other, message_id)

    def test_a_sessions_own_number_is_told(self, world: World) -> None:
        for name in CHANNELS:
            told = world.gateway.own_number(world.channel(name))
            assert told == (world.simulator.number(name) if self.tells_number else None)

    def test_a_text_that_was_sent_is_a_failure_where_the_answer_says_so(self, world: World) -> None:
        channel = world.channel()
        for fault in ("html_504", "success_false_text", "reset"):
            world.simulator.fault("send", fault, effect=True)
            _failure(lambda: world.gateway.send_text(channel, NUMBER, _WORDS))
            assert [message.words for message in world.born] == [_WORDS], fault
            world.born.clear()

    def test_a_text_may_have_gone_although_the_call_failed(self, world: World) -> None:
        channel = world.channel()
        gateway = world.another(qr_timeout=2)
        gateway.qr("loja")  # for the token that one API wants
        world.simulator.fault("send", "hang", effect=True)
        error = _failure(lambda: gateway.send_text(channel, NUMBER, _WORDS))
        assert error.reason is GatewayErrorKind.TIMEOUT
        wait_until(lambda: len(world.born) == 1, "the message")

    def test_a_channel_without_a_way_sends_nothing(self, world: World) -> None:
        channel = world.channel()
        for state in (world.simulator.zombie, world.simulator.drop):
            state("loja")
            _failure(lambda: world.gateway.send_text(channel, NUMBER, _WORDS))
        assert not world.born

    def test_what_a_gateway_repeats_of_number_text_and_secret_is_not_told(self) -> None:
        # As it stands, as it stands in the path of one API, and in a header for a proxy.
        header = base64.b64encode(f"ops:{SECRET}".encode()).decode()
        repeated = f"{NUMBER}: {_WORDS} ({SECRET}) {quote(SECRET, safe='')} {header}"
        body = {"message": repeated, "status": "error"}
        with RawServer(answering(body, status=500)) as server:
            given = {"declaration": self.declaration, "user": "ops", "password": SECRET}
            settings = _settings(self.kind, base_url=server.url, **given)
            gateway = make_gateway(settings, observe=lambda *_: None)
            channel = Channel("loja", Status.CONNECTED, number=NUMBER)
            error = _failure(lambda: gateway.send_text(channel, NUMBER, _WORDS))
        assert "[hidden]: [hidden] ([secret]) [secret] [secret]" in error.detail

    def test_a_pairing_is_lost_only_by_delete_and_create_makes_a_qr_code(
        self, world: World
    ) -> None:
        world.simulator.put_channel("loja", session="dead", status="disconnected")
        world.gateway.delete("loja")
        listed = {channel.id for channel in world.gateway.list_channels().channels}
        assert ("loja" in listed) is world.gateway.keeps_channel
        world.gateway.create("loja")
        world.gateway.reconnect(world.channel(), silent=False)
        assert world.gateway.qr("loja").kind is QrKind.QR

    def test_a_pairing_code_connects_the_phone_that_it_is_for(self, world: World) -> None:
        if not world.gateway.can_pair:
            with pytest.raises(GatewayError):
                world.gateway.pairing_code("loja", NUMBER)
            return
        show_qr(world)
        world.simulator.put_channel("loja", registered=NUMBER, code_seconds=120)
        dead = world.gateway.pairing_code("loja", "551100000002")
        assert re.fullmatch(r"[A-Z0-9]{4}-[A-Z0-9]{4}", dead.code)
        assert 0 < dead.seconds <= 120
        assert dead.code not in repr(dead)
        with pytest.raises(SimulatorError):
            world.simulator.enter_code("loja", dead.code)
        late = world.gateway.pairing_code("loja", NUMBER)
        world.clock.forward(120)
        with pytest.raises(SimulatorError):
            world.simulator.enter_code("loja", late.code)
        code = world.gateway.pairing_code("loja", NUMBER).code
        world.simulator.enter_code("loja", code)
        assert world.gateway.qr("loja").kind is QrKind.ACCEPTED
        sessions = [one["clients"] for one in world.simulator.state()["channels"]]
        assert sessions == [1, 1], "and no second client is left"

    def test_a_refused_pairing_code_says_why_and_not_for_whom(self, world: World) -> None:
        if not world.gateway.can_pair:
            return
        show_qr(world)
        world.simulator.put_channel("loja", pairing="refused")
        gateway = world.another(qr_timeout=1)  # one never answers
        error = _failure(lambda: gateway.pairing_code("loja", NUMBER))
        assert error.operation is Operation.PAIRING_CODE
        assert world.gateway.qr("loja").kind is not QrKind.ACCEPTED

    def test_no_pairing_is_lost_by_asking_for_a_code(self, world: World) -> None:
        if not world.gateway.can_pair:
            return
        gateway = world.another(qr_timeout=1)
        for happen in ("connect", "drop", "flap"):
            getattr(world.simulator, happen)("loja")
            _failure(lambda: gateway.pairing_code("loja", NUMBER))
        world.simulator.connect("loja")
        assert world.channel().connected
        assert world.simulator.state()["channels"][0]["session"] == "paired"
        assert not _LOSING & set(world.asked)

    def test_a_code_at_another_server_is_not_fetched(self, world: World) -> None:
        error = _failure(lambda: world.gateway.get_image("https://gateway.example.com/qr.png"))
        assert error.reason is GatewayErrorKind.INVALID
        assert not world.asked
        error = _failure(lambda: world.gateway.get_image(f"{world.server.url}/no-such-image.png"))
        assert error.reason is GatewayErrorKind.HTTP

    def test_an_id_that_no_path_can_hold_is_refused(self, world: World) -> None:
        gateway = world.gateway
        for call in (gateway.qr, gateway.start_session, gateway.delete):
            for channel in ("", " ", ".", "..", "a\nb", "\ud800"):
                with pytest.raises(GatewayError) as caught:
                    call(channel)
                assert caught.value.reason is GatewayErrorKind.INVALID, channel
        assert not world.asked

    def _read(self, message: SimulatedMessage) -> list[Message]:
        return self.parse(APIS[self.kind].event(replace(message, at=_NOW - 3)))

    def parse(self, event: object) -> list[Message]:
        """Return what is read of an event."""
        declared = self.declaration
        adapter = ADAPTERS[self.kind] if declared is None else adapter_for(declared)
        return parse_event(adapter.read_event, json.dumps(event).encode(), _NOW)

    def test_an_event_of_a_message_tells_channel_direction_and_time(self) -> None:
        for outgoing, by_api in ((False, False), (True, False), (True, True)):
            message = SimulatedMessage("Loja 1", outgoing=outgoing, by_api=by_api, id="3EB0")
            (found,) = self._read(message)
            assert found.key == channel_key(self.event_name)
            assert found.direction is (Direction.OUT if outgoing else Direction.IN)
            assert found.at == _NOW - 3
            assert bare_id(found.id) == "3EB0"
            unheard = self.unheard_if and getattr(message, self.unheard_if)
            assert found.heard is not bool(unheard), message

    def test_an_echo_is_told_by_its_token_and_the_senders_copy_is_no_message(self) -> None:
        token = make_token(self.event_name)
        words = f"Zapwatch: does this arrive? {token}"
        for channel, outgoing, by_api, echoes in (
            ("Loja 1", False, False, [(token, True)]),
            ("obra", True, False, []),
            ("obra", True, True, []),
            ("obra", False, False, []),
        ):
            message = SimulatedMessage(channel, outgoing, by_api, words=words)
            assert [(one.echo, one.heard) for one in self._read(message)] == echoes

    def test_no_value_in_an_event_is_a_fault_of_zapwatch(self) -> None:
        words = make_token("Loja 1")
        message = SimulatedMessage("Loja 1", outgoing=False, id="3EB0", words=words, at=_NOW)
        for event in _changed(APIS[self.kind].event(message)):
            with suppress(EventError):
                for found in self.parse(event):
                    assert 0 < len(found.key) <= 255
                    assert found.at <= _NOW

    def test_an_event_of_something_else_proves_nothing(self) -> None:
        assert self.parse(APIS[self.kind].other("loja")) == []

    def test_hints_and_port_are_there_for_each_failure(self) -> None:
        adapter = ADAPTERS[self.kind]
        assert set(adapter.hints) == set(GatewayErrorKind)
        assert all(re.fullmatch(r"[^\n]{20,100}", hint) for hint in adapter.hints.values())
        assert adapter.usual_port > 1023 or self.kind in PUBLIC_URLS


Answers = Mapping[str, tuple[int, Any] | Iterator[tuple[int, Any]]]
"""HTTP status and body by request, or those of one request after the other."""


def answering_as(
    kind: str, monkeypatch: pytest.MonkeyPatch, answers: Answers
) -> tuple[Gateway, list[tuple[str, str | None]]]:
    """Return an adapter of a gateway that gives these answers; each request, and its token."""
    gateway = ADAPTERS[kind]("http://127.0.0.1:9", "not-a-real:secret")
    asked: list[tuple[str, str | None]] = []

    def answer(
        method: str, path: str, *_: object, headers: Mapping[str, str], **__: object
    ) -> GatewayResponse:
        asked.append((f"{method} {path}", headers.get("token")))
        found = answers[f"{method} {path}"]
        status, body = found if isinstance(found, tuple) else next(found)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return GatewayResponse(status, "application/json", raw)

    monkeypatch.setattr(gateway._http, "request", answer)
    return gateway, asked


def meaning_of_qr(gateway: Gateway) -> QrKind | GatewayErrorKind:
    """Return what the gateway's answer to the call for a code means."""
    try:
        return gateway.qr("loja").kind
    except GatewayError as error:
        return error.reason


class DeclaredContract(GatewayContract):
    """The same for a gateway that a file describes: what its documents say, row by row."""

    answers: ClassVar[Sequence[tuple[str, Answers, QrKind | GatewayErrorKind]]]
    """A call about the channel ``loja``, what the gateway answers, and what that means."""
    events: ClassVar[Sequence[tuple[object, int]]]
    """Events, and how many messages each has."""

    def test_a_session_that_is_not_there_is_a_failure(self, world: World) -> None:
        """It is the list that lacks it."""
        with pytest.raises(GatewayError, match="lists no such channel") as caught:
            world.gateway.reconnect(Channel("nobody", Status.DISCONNECTED), silent=False)
        assert caught.value.reason is GatewayErrorKind.HTTP

    def test_each_answer_has_its_meaning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for call, answers, outcome in self.answers:
            gateway, _ = answering_as(self.kind, monkeypatch, answers)
            channel = Channel("loja", Status.DISCONNECTED)
            calls: dict[str, Callable[[], object]] = {
                "list": gateway.list_channels,
                "qr": partial(gateway.qr, "loja"),
                "reconnect": partial(gateway.reconnect, channel, silent=False),
            }
            found: object
            try:
                found = cast("QrAnswer", calls[call]()).kind
            except GatewayError as error:
                found = error.reason
            assert found is outcome, answers

    def test_each_event_has_its_meaning(self) -> None:
        for event, messages in self.events:
            assert len(self.parse(event)) == messages, event


def show_qr(world: World) -> None:
    """Let the channel ``loja`` show a QR code."""
    world.simulator.unpair("loja")
    world.gateway.reconnect(world.channel(), silent=False)
    assert world.gateway.qr("loja").kind is QrKind.QR
