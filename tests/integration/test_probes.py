"""Probes of a simulated gateway's channels, by query and by echo, and who is found to be dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook.probes import examination
from reconnect_hook.probes.ear import Ear
from reconnect_hook.probes.examination import (
    Examination,
    Finding,
    PostponedError,
    ProbeMeans,
    UnableError,
)
from reconnect_hook.state import probes
from reconnect_hook.state.database import Database
from reconnect_hook.state.probes import ProbeBook, ProbeOutcome
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from stack.simulator.traffic import open_message_log
from tests.support.message_logs import WrittenLog
from tests.support.states import sqlite_url
from whatsapp.echo import make_token
from whatsapp.gateways.gateway import GatewayError
from whatsapp.gateways.registry import make_gateway
from whatsapp.message_log import MessageLog, MessageLogError
from whatsapp.probe_settings import ProbeKind
from whatsapp.settings import parse

_SECRET = "0123456789abcdef-not-a-real-secret"
_CHANNELS = ("loja", "obra", "casa")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "ECHO_SECONDS", 1.0)
    monkeypatch.setattr(examination, "SECOND_QUERY_SECONDS", 0.02)
    monkeypatch.setattr(examination, "GAP_SECONDS", 0.02)
    monkeypatch.setattr(examination, "_LISTEN_PAUSE", 0.02)
    monkeypatch.setattr(probes, "ECHO_GAP_SECONDS", 0.0)


class World:
    """A gateway whose channels are quiet, and what asks them."""

    def __init__(
        self, server: SimulatorServer, folder: Path, log: WrittenLog, api: str, names: list[str]
    ) -> None:
        self.simulator = Simulator(server.url)
        self.simulator.traffic(paused=True)
        for name in names:
            self.simulator.put_channel(name)
        self.numbers = {c["id"]: c["number"] for c in self.simulator.state()["channels"]}
        self.log = log
        listed = ",".join(f"{name}={number}" for name, number in self.numbers.items())
        settings = parse(
            {
                "WPP_GATEWAY_BASE_URL": server.url,
                "WPP_GATEWAY_SECRET": _SECRET,
                "MESSAGE_LOG_URL": "sqlite:///unused",
                "PROBE": "echo",
                "PROBE_ECHO_NUMBERS": listed,
            }
        ).gateways[0]
        client = make_gateway(replace(settings, type=api), connections=2, observe=lambda *_: None)
        self.database = Database(sqlite_url(folder))
        self.book = ProbeBook(self.database, "wpp", settings.probe)
        self.means = ProbeMeans(client, Ear(MessageLog(log.reader)), self.book, settings.probe)

    def probe(self, name: str = "loja", kind: ProbeKind = ProbeKind.ECHO) -> Finding:
        listed = {one.key: one for one in self.means.client.list_channels().channels}
        self.book.begin(name, name, None)
        return Examination(self.means, listed[name], listed).run(kind)

    def found(self, name: str = "loja", kind: ProbeKind = ProbeKind.ECHO) -> tuple[str, list[str]]:
        finding = self.probe(name, kind)
        return finding.outcome, [one.id for one in finding.dead]

    def sent(self) -> list[str | None]:
        return [call["channel"] for call in self.simulator.requests("send")]


@contextmanager
def _world(folder: Path, log: WrittenLog, api: str = "wrapper", *names: str) -> Iterator[World]:
    engine = open_message_log(log.engine.url.render_as_string(hide_password=False))
    server = SimulatorServer(_SECRET, api=api, message_log=engine, traffic_seconds=3600)
    with server:
        made = World(server, folder, log, api, list(names or _CHANNELS))
        yield made
        made.means.client.close()
        made.database.close()


@pytest.fixture
def world(tmp_path: Path, sqlite_log: WrittenLog) -> Iterator[World]:
    with _world(tmp_path, sqlite_log) as made:
        yield made


def test_a_healthy_quiet_channel_hears_the_echo(world: World) -> None:
    assert world.found() == (ProbeOutcome.PASSED, [])
    assert len(world.sent()) == 1
    assert world.sent() != ["loja"]
    assert world.simulator.requests("qr") == []


@pytest.mark.parametrize("names", [("loja", "obra"), _CHANNELS])
def test_who_no_longer_hears_is_found_and_nobody_else(
    tmp_path: Path, sqlite_log: WrittenLog, names: tuple[str, ...]
) -> None:
    with _world(tmp_path, sqlite_log, "wrapper", *names) as world:
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])


def test_a_dead_channel_is_told_from_its_sender_by_a_third(world: World) -> None:
    world.simulator.zombie("loja")
    assert world.found() == (ProbeOutcome.FAILED, ["loja"])
    assert len(world.sent()) <= 4


def test_a_dead_sender_is_found_and_not_the_quiet_channel(world: World) -> None:
    world.log.write("casa", age_seconds=20)
    world.log.write("obra", age_seconds=700)
    world.simulator.zombie("casa")
    outcome, dead = world.found()
    assert world.sent()[0] == "casa", "who was heard last writes first"
    assert (outcome, dead) == (ProbeOutcome.OTHER_FAILED, ["casa"])
    assert world.simulator.requests("qr") == []


def test_of_two_that_are_both_quiet_nobody_is_blamed_unproved(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with _world(tmp_path, sqlite_log, "wrapper", "loja", "obra") as world:
        world.simulator.zombie("loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        sent = len(world.sent())
        with pytest.raises(UnableError):
            world.probe()
        assert len(world.sent()) == sent, "no more echoes until it has been repaired"
        world.book.resume(["loja"])
        world.simulator.connect("loja")
        assert world.found() == (ProbeOutcome.PASSED, [])


def test_a_query_that_fails_twice_sends_no_echo(tmp_path: Path, sqlite_log: WrittenLog) -> None:
    with _world(tmp_path, sqlite_log, "wppconnect") as world:
        world.simulator.zombie("loja")
        finding = world.probe()
        assert (finding.kind, finding.outcome) == (ProbeKind.QUERY, ProbeOutcome.FAILED)
        assert len(world.simulator.requests("query", "loja")) >= 2
        assert world.sent() == []


def test_one_query_that_fails_proves_nothing(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _world(tmp_path, sqlite_log, "wppconnect") as world:
        world.simulator.zombie("loja")
        real = world.means.client.query

        def heal(*arguments: Any) -> None:
            try:
                real(*arguments)
            finally:
                world.simulator.connect("loja")

        monkeypatch.setattr(world.means.client, "query", heal)
        assert world.found(kind=ProbeKind.QUERY) == (ProbeOutcome.PASSED, [])


def test_a_query_passes_and_the_echo_is_lost(tmp_path: Path, sqlite_log: WrittenLog) -> None:
    with _world(tmp_path, sqlite_log, "wppconnect") as world:
        world.simulator.deafen("loja")
        assert world.found(kind=ProbeKind.QUERY) == (ProbeOutcome.PASSED, [])
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])


def test_a_gateway_that_cannot_be_reached_says_nothing_of_its_channels(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with _world(tmp_path, sqlite_log, "wppconnect") as world:
        listed = {one.key: one for one in world.means.client.list_channels().channels}
        world.simulator.fault("query", "reset")
        with pytest.raises(UnableError):
            Examination(world.means, listed["loja"], listed).run(ProbeKind.QUERY)


def test_a_log_that_cannot_be_read_loses_no_echo(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MessageLogError("gone away")

    monkeypatch.setattr(MessageLog, "head", fail)
    with pytest.raises(MessageLogError):
        world.probe()
    assert world.sent() == []


def test_a_send_that_times_out_after_it_was_sent_is_heard(world: World) -> None:
    for fault in ("html_504", "reset"):
        world.simulator.fault("send", fault, times=1, effect=True)
        assert world.found()[0] == ProbeOutcome.PASSED


def test_an_echo_whose_sender_died_is_heard_and_not_sent_again(world: World) -> None:
    token = "zapwatch-echo-"

    class DiedError(Exception):
        pass

    def die(_seconds: float) -> None:
        raise DiedError

    dying = replace(world.means, wait=die)
    listed = {one.key: one for one in world.means.client.list_channels().channels}
    world.simulator.deafen("loja")
    with pytest.raises(DiedError):
        Examination(dying, listed["loja"], listed).run(ProbeKind.ECHO)
    under_way = world.book.open_echo("loja", 600)
    assert under_way is not None
    assert under_way.token.startswith(token)
    world.simulator.connect("loja")
    world.log.write("loja", words=under_way.token)
    assert world.found() == (ProbeOutcome.PASSED, [])
    assert len(world.sent()) == 1


def test_a_channel_that_is_alone_is_not_blamed_for_what_its_gateway_never_reports(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    with _world(tmp_path, sqlite_log, "wrapper", "loja") as world:
        # The simulator reports the copy that arrives; a gateway that does not is like a deaf one.
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.UNDECIDED, [])
        world.book.resume(["loja"])
        world.simulator.connect("loja")
        assert world.found() == (ProbeOutcome.PASSED, [])
        world.book.end("loja", "loja", ProbeKind.ECHO, ProbeOutcome.PASSED)
        world.simulator.deafen("loja")
        assert world.found() == (ProbeOutcome.FAILED, ["loja"])


def test_no_echo_goes_where_none_may(world: World) -> None:
    probe = world.means.settings
    without = replace(world.means, settings=replace(probe, echo_numbers={}))
    listed = {one.key: one for one in world.means.client.list_channels().channels}
    with pytest.raises(UnableError):
        Examination(without, listed["loja"], listed).run(ProbeKind.ECHO)
    off = {"obra": ProbeKind.OFF, "casa": ProbeKind.QUERY}
    alone = replace(world.means, settings=replace(probe, overrides=off))
    Examination(alone, listed["loja"], listed).run(ProbeKind.ECHO)
    assert set(world.sent()) <= {"loja"}, "who takes no part writes to nobody"


def test_who_can_be_asked_depends_on_settings_and_gateway(
    tmp_path: Path, sqlite_log: WrittenLog
) -> None:
    for api, by_query in (("wrapper", False), ("waha", True)):
        folder = tmp_path / api
        folder.mkdir()
        with _world(folder, sqlite_log, api) as made:
            assert made.means.can_ask("loja")
            assert not replace(made.means, ear=None).can_ask("loja") or by_query
            for kind, can in ((ProbeKind.QUERY, by_query), (ProbeKind.OFF, False)):
                settings = replace(made.means.settings, overrides={"loja": kind})
                assert replace(made.means, settings=settings).can_ask("loja") is can


def test_the_bounds_stop_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ECHO_GAP_SECONDS", 3600.0)
    assert world.found() == (ProbeOutcome.PASSED, [])
    with pytest.raises(PostponedError):
        world.probe()
    assert len(world.sent()) == 1


def test_the_dead_socket_answers_no_send(world: World) -> None:
    world.simulator.zombie("obra")
    obra = next(c for c in world.means.client.list_channels().channels if c.id == "obra")
    began = time.monotonic()
    with pytest.raises(GatewayError):
        world.means.client.send_text(obra, world.numbers["loja"], "hello")
    assert time.monotonic() - began < 30


def test_two_hooks_at_once_send_no_more_than_one_may(database: sa.URL) -> None:
    settings = parse(
        {
            "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
            "WPP_GATEWAY_SECRET": _SECRET,
            "MESSAGE_LOG_URL": "none",
            "PROBE_ECHOES_PER_DAY": "5",
        }
    ).gateways[0]
    states = [Database(database) for _ in range(2)]
    hooks = [ProbeBook(one, "wpp", settings.probe) for one in states]
    hooks[0].begin("loja", "loja", None)
    allowed: list[bool] = []

    def send(hook: ProbeBook) -> None:
        tokens = [make_token("loja") for _ in range(10)]
        allowed.extend(hook.reserve("obra", "loja", token) is None for token in tokens)

    threads = [threading.Thread(target=send, args=(hook,)) for hook in hooks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 20
    assert allowed.count(True) == 5
    begun = [hook.begin("casa", "casa", number) for number, hook in enumerate(hooks, 1)]
    assert begun[0] == 0 < begun[1]
    for one in states:
        one.close()
