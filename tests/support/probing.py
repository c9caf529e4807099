"""A simulated gateway whose channels are quiet, and what asks them, with short waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from exporter.messages.inbox import Inbox
from reconnect_hook.probes import echoes, examination
from reconnect_hook.probes.ear import EventEar, LogEar
from reconnect_hook.probes.examination import Examination, Finding
from reconnect_hook.probes.means import ProbeMeans
from reconnect_hook.state import probes
from reconnect_hook.state.database import Database
from reconnect_hook.state.probes import ProbeBook
from stack.simulator.client import Simulator
from stack.simulator.event_shapes import MESSAGES
from stack.simulator.messages import Message
from stack.simulator.server import SimulatorServer
from stack.simulator.traffic import open_message_log
from tests.support.message_logs import WrittenLog
from tests.support.states import sqlite_url
from whatsapp.channels import channel_key
from whatsapp.events import parsing
from whatsapp.events.store import EventStore
from whatsapp.gateways.registry import make_gateway
from whatsapp.message_log import MessageLog
from whatsapp.probe_settings import ProbeKind
from whatsapp.settings import parse

SECRET = "0123456789abcdef-not-a-real-secret"
CHANNELS = ("loja", "obra", "casa")


def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a second where as shipped it is a minute, and let echoes follow each other at once."""
    monkeypatch.setattr(echoes, "ECHO_SECONDS", 1.0)
    monkeypatch.setattr(examination, "SECOND_QUERY_SECONDS", 0.02)
    monkeypatch.setattr(examination, "GAP_SECONDS", 0.02)
    monkeypatch.setattr(echoes, "_LISTEN_PAUSE", 0.02)
    monkeypatch.setattr(probes, "ECHO_GAP_SECONDS", 0.0)


class World:
    """A gateway whose channels are quiet, and what asks them."""

    def __init__(
        self,
        server: SimulatorServer,
        folder: Path,
        log: WrittenLog,
        api: str,
        names: list[str],
        *,
        set_numbers: bool,
    ) -> None:
        self.gateway = server.gateway
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
                "WPP_GATEWAY_SECRET": SECRET,
                "MESSAGE_LOG_URL": "sqlite:///unused",
                "PROBE": "echo",
                **({"PROBE_ECHO_NUMBERS": listed} if set_numbers else {}),
            }
        ).gateways[0]
        self.settings = replace(settings, type=api)
        client = make_gateway(self.settings, observe=lambda *_: None)
        self.database = Database(sqlite_url(folder))
        self.book = ProbeBook(self.database, "wpp", settings.probe)
        self.means = ProbeMeans(client, LogEar(MessageLog(log.reader)), self.book, settings.probe)

    def probe(
        self, name: str = "loja", kind: ProbeKind = ProbeKind.ECHO, job: int | None = None
    ) -> Finding:
        listed = {one.key: one for one in self.means.client.list_channels().channels}
        self.book.begin(name, name, job)
        finding = Examination(self.means, listed[name], listed).run(kind)
        self.book.end(name, name, finding.kind, finding.outcome, finding.halted)
        return finding

    def found(
        self, name: str = "loja", kind: ProbeKind = ProbeKind.ECHO, job: int | None = None
    ) -> tuple[str, list[str]]:
        finding = self.probe(name, kind, job)
        return finding.outcome, [one.id for one in finding.dead]

    def sent(self) -> list[str | None]:
        return [call["channel"] for call in self.simulator.requests("send")]


def hear_by_events(world: World, store_url: sa.URL) -> None:
    """Have the gateway's events taken, as an exporter does, and listen to those."""
    store = EventStore(store_url)
    inbox = Inbox(store, ["wpp"])
    inbox.list_channels("wpp", frozenset(map(channel_key, world.numbers)))

    def take(message: Message) -> None:
        event = MESSAGES[world.settings.type](message, time.time())
        found = parsing.parse(world.settings.type, json.dumps(event).encode(), time.time())
        if found is not None:
            inbox.take("wpp", found)
            inbox.write()

    inbox.write()
    world.gateway.births.listen(take)
    world.means = replace(world.means, ear=EventEar(store, "wpp"))


@contextmanager
def world_of(
    folder: Path, log: WrittenLog, api: str = "wrapper", *names: str, set_numbers: bool = True
) -> Iterator[World]:
    """Make one; without ``set_numbers`` only the gateway can tell the channels' numbers."""
    engine = open_message_log(log.engine.url.render_as_string(hide_password=False))
    server = SimulatorServer(SECRET, api=api, message_log=engine, traffic_seconds=3600)
    with server:
        made = World(server, folder, log, api, list(names or CHANNELS), set_numbers=set_numbers)
        yield made
        made.means.client.close()
        if made.means.ear is not None:
            made.means.ear.close()
        made.database.close()
