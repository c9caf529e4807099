"""A simulated gateway with quiet channels, and their probes with short waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from demo.simulator.apis.registry import APIS
from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from exporter.event_buffer import Inbox
from reconnect_hook import echo, probe, probe_limits
from reconnect_hook.echo import ProbeContext, QueryFailedOnceError
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.repository import add_gateways
from reconnect_hook.schema import open_state
from tests.support.message_logs import WrittenLog
from tests.support.states import state_url
from zapwatch.channels import Channel
from zapwatch.config import parse
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.event_store import EventStore, StoredMessages
from zapwatch.messages.message import parse_event
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import MessageLog

SECRET = "0123456789abcdef-not-a-real-secret"
CHANNELS = ("loja", "obra", "casa")


def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten a minute's wait to a second, and remove the gap between echoes."""
    monkeypatch.setattr(echo, "ECHO_SECONDS", 1.0)
    monkeypatch.setattr(echo, "DELIVERY_SECONDS", 0.5)
    monkeypatch.setattr(probe, "SECOND_QUERY_SECONDS", 0.02)
    monkeypatch.setattr(probe, "GAP_SECONDS", 0.02)
    monkeypatch.setattr(echo, "_LISTEN_PAUSE", 0.02)
    monkeypatch.setattr(probe_limits, "ECHO_GAP_SECONDS", 0.0)


class World:
    """A gateway with quiet channels, and the context that probes them."""

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
        self.database = open_state(state_url(folder))
        add_gateways(self.database, ["wpp"])
        self.book = ProbeRepository(self.database, "wpp", settings.probe)
        self.means = ProbeContext(
            client, LogMessages(MessageLog(log.reader), 0), self.book, settings.probe
        )

    def listed(self) -> dict[str, Channel]:
        return {one.key: one for one in self.means.client.list_channels().channels}

    def probe(
        self, name: str = "loja", kind: ProbeKind = ProbeKind.ECHO, *, resumes: bool = False
    ) -> Finding:
        """Probe a channel; ``resumes`` continues a probe that has already begun."""
        listed = self.listed()
        if not resumes:
            self.book.begin(listed[name])
        try:
            finding = ProbeRun(self.means, listed[name], listed).run(kind)
        except QueryFailedOnceError:
            run = ProbeRun(self.means, listed[name], listed, query_failed=True)
            finding = run.run(kind)
        self.book.end(name, finding.kind, finding.outcome, finding.suspended)
        return finding

    def found(self, name: str = "loja", *, resumes: bool = False) -> tuple[str, list[str]]:
        """Probe a channel; return the outcome, and the ids of dead channels."""
        finding = self.probe(name, resumes=resumes)
        return finding.outcome, [one.id for one in finding.dead]

    def sent(self) -> list[str | None]:
        return [call["channel"] for call in self.simulator.requests("send")]


def hear_by_events(world: World, store_url: sa.URL) -> None:
    """Store the gateway's events as an exporter does, and use them as the message source."""
    store = EventStore(store_url)
    inbox = Inbox(store, ["wpp"])
    client, kind = world.means.client, world.settings.type
    channels = client.list_channels().channels
    inbox.list_channels("wpp", channels)

    def take(message: SimulatedMessage) -> None:
        body = json.dumps(APIS[kind].event(message)).encode()
        for one in parse_event(client.read_event, body, time.time()):
            inbox.take("wpp", one)
            inbox.write()

    inbox.write()
    world.gateway.births.listen(take)
    messages = StoredMessages(store, "wpp", lambda: channels)
    world.means = replace(world.means, messages=messages)


@contextmanager
def world_of(
    folder: Path, log: WrittenLog, api: str = "wrapper", *names: str, set_numbers: bool = True
) -> Iterator[World]:
    """Create a world; without ``set_numbers`` only the gateway has the channels' numbers."""
    engine = open_message_log(log.engine.url.render_as_string(hide_password=False))
    server = SimulatorServer(SECRET, api=api, message_log=engine, traffic_seconds=3600)
    with server:
        made = World(server, folder, log, api, list(names or CHANNELS), set_numbers=set_numbers)
        yield made
        made.means.client.close()
        if made.means.messages is not None:
            made.means.messages.close()
        made.database.close()
