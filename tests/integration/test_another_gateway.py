"""docs/gateways/README.md, "Another one", followed step by step with a gateway that is made up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from flask import Response

from demo.configuration import ROOT
from demo.simulator.apis.calls import (
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    png,
)
from demo.simulator.apis.registry import APIS
from demo.simulator.apis.wrapper_answers import WrapperAnswer
from demo.simulator.channel import SimulatedChannel
from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from reconnect_hook.dashboard.qr import QrState, QrWatches
from tests.support.waiting import wait_until
from zapwatch.config import Settings, parse
from zapwatch.gateways.registry import adapter_of, make_gateway
from zapwatch.messages.message import parse_event

_SECRET = "not-a-real-secret"
_STATES = {
    "connected": "open",
    "initializing": "starting",
    "qr_required": "scan",
    "disconnected": "closed",
}


def _no(status: int, words: str) -> WrapperAnswer:
    return WrapperAnswer(status, {"error": words})


class MadeUpApi(SimulatedApi):
    """The API of a gateway that nobody has."""

    key_header = "X-Api-Key"
    unauthorized = _no(401, "wrong key")
    unknown = missing = no_code = _no(404, "no such thing")

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        one = "/sessions/<encoded:channel>"
        return (
            ("GET", "/sessions", self._list),
            ("POST", f"{one}/start", self._start),
            ("POST", f"{one}/stop", self._stop),
            ("GET", f"{one}/qr", self._qr),
            ("POST", "/send", self._send),
        )

    @staticmethod
    def event(message: SimulatedMessage, at: float) -> Event:
        """Return the event of a message."""
        told = {"id": message.id, "from_me": message.outgoing, "timestamp": int(at)}
        return {"event": "message", "session": message.channel, "message": told}

    @staticmethod
    def other(channel: str) -> Event:
        """Return another event."""
        return {"event": "presence", "session": channel}

    def _list(self) -> Response:
        def session(one: SimulatedChannel) -> dict[str, str]:
            return {"name": one.id, "me": one.number, "state": _STATES[one.status]}

        return self.answer(
            "list", None, lambda: WrapperAnswer(200, {"sessions": self.gateway.each(session)})
        )

    def _start(self, channel: str) -> Response:
        def start(one: SimulatedChannel, now: float) -> WrapperAnswer:
            one.begin(now)
            return WrapperAnswer(200, {})

        return self.about("start_session", channel, start)

    def _stop(self, channel: str) -> Response:
        def stop(one: SimulatedChannel, now: float) -> WrapperAnswer:
            one.close(now)
            return WrapperAnswer(200, {})

        return self.about("close_session", channel, stop)

    def _qr(self, channel: str) -> Response:
        def show(one: SimulatedChannel, _: float) -> WrapperAnswer:
            if one.status != "qr_required":
                return _no(409, "it is paired")
            return WrapperAnswer(200, {"image": png(self.gateway.next_qr())})

        return self.about("qr", channel, show)

    def _send(self) -> Response:
        body = body_of_request()
        channel, to, text = (str(body.get(name)) for name in ("session", "to", "text"))

        def send() -> WrapperAnswer:
            sent = self.gateway.send(channel, to, text)
            return WrapperAnswer(200, {"id": sent.id}) if sent else _no(500, "not connected")

        return self.answer("send", channel, send)


class Guide:
    """The section's blocks, and a folder in which they are followed."""

    def __init__(self, folder: Path, url: str) -> None:
        page = (ROOT / "docs" / "gateways" / "README.md").read_text()
        section = page.partition("\n## Another one\n")[2]
        found = re.findall(r"^   ```(\w+)\n(.*?)^   ```$", section, re.DOTALL | re.MULTILINE)
        blocks = [(kind, re.sub("^   ", "", text, flags=re.MULTILINE)) for kind, text in found]
        self.types, gateways = (text for kind, text in blocks if kind == "yaml")
        self.commands = [text.strip() for kind, text in blocks if kind == "sh"]
        self._folder = folder
        (folder / "types.yaml").write_text(self.types)
        gateways = gateways.replace("http://127.0.0.1:3000", url)
        (folder / "gateways.yaml").write_text(gateways.replace("put-its-secret-here", _SECRET))
        # What is not of this page: where the state is, and how long a repair may take.
        (folder / ".env").write_text(
            "GATEWAYS_FILE=gateways.yaml\nHOOK_STATE_URL=sqlite:///state.sqlite3\n"
            "MESSAGES_STATE_URL=sqlite:///messages.sqlite3\n"
            "HOOK_LOG_FILE=hook.log\nRECONNECT_VERIFY_SECONDS=20\n"
        )

    def follow(self, command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command.split()
        assert program == ".venv/bin/python"
        return subprocess.run(
            [sys.executable, *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def settings(self) -> Settings:
        return parse({"GATEWAYS_FILE": "gateways.yaml"})


def test_a_gateway_is_added_by_a_description_of_at_most_40_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(APIS, "mygateway", MadeUpApi)
    monkeypatch.chdir(tmp_path)
    with SimulatorServer(_SECRET, api="mygateway", traffic_seconds=3600) as server:
        guide = Guide(tmp_path, server.url)
        assert len(guide.types.splitlines()) <= 40
        describe, look, repair, post = guide.commands
        simulator = Simulator(server.url)
        for channel in ("bem", "caiu", "sem par"):
            simulator.put_channel(channel, reconnect_seconds=0)
        simulator.drop("caiu")
        simulator.unpair("sem par")

        told = guide.follow(describe)
        assert "repair if down        POST /sessions/{id}/start\n" in told.stdout, told.stderr

        looked = guide.follow(look)
        assert "3 channels listed" in looked.stdout
        assert [line for line in looked.stdout.splitlines() if "would call" in line] == [
            "caiu: disconnected; would call POST /sessions/{id}/start",
            "sem par: disconnected; would call POST /sessions/{id}/start",
        ]
        assert not simulator.requests("start_session")

        repaired = guide.follow(repair)
        assert {"caiu: disconnected; reconnected", "sem par: disconnected; qr_required"} <= {
            *repaired.stdout.splitlines()
        }

        (gateway,) = guide.settings().gateways
        client = make_gateway(gateway, observe=lambda *_: None)
        watches = QrWatches(client, lambda _: None)
        wait_until(lambda: watches.look("sem par")[0] is QrState.CODE, 30, "the code")
        assert watches.image("sem par") is not None
        simulator.scan("sem par")
        wait_until(lambda: watches.look("sem par")[0] is QrState.CONNECTED, 30, "the scan")

        event = post.split("'")[-2].encode()
        (message,) = parse_event(adapter_of(gateway).read_event, event, 1_770_000_000.0)
        assert message.key == "shop"


def test_a_mistake_ends_the_program_with_one_line(tmp_path: Path) -> None:
    guide = Guide(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "types.yaml").write_text(guide.types.replace("/start", "/../start", 1))

    failed = guide.follow(guide.commands[1])

    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr == (
        "reconnect_hook: types.yaml: mygateway: calls: start: call must be a path without .. and "
        "//, not 'POST /sessions/{id}/../start'\n"
    )
