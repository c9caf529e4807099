"""A WAHA that posts its events to an exporter, and the commands ``audit`` and ``probe``."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from reconnect_hook.__main__ import main
from tests.support.hooks import SECRET
from tests.support.message_logs import WrittenLog
from tests.support.programs import Fork, Program
from tests.support.waiting import wait_until

_TOKEN = "not-a-real-token-for-messages"


class _Loop:
    """A WAHA whose webhook posts to an exporter, and the command that compares both."""

    def __init__(self, folder: Path, server: SimulatorServer) -> None:
        self.folder = folder
        self.server = server
        self.simulator = Simulator(server.url)
        self.settings = {
            "WPP_GATEWAY_TYPE": "waha",
            "WPP_GATEWAY_BASE_URL": server.url,
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_SOURCE": "events",
            "MESSAGES_TOKEN": _TOKEN,
            "MESSAGES_STATE_URL": f"sqlite:///{folder}/messages.sqlite3",
            "EXPORTER_LISTEN": "127.0.0.1:0",
            "EXPORTER_POLL_SECONDS": "0.1",
            "HOOK_STATE_URL": f"sqlite:///{folder}/state.sqlite3",
            "HOOK_LOG_FILE": f"{folder}/hook.log",
        }
        self.set()

    def set(self, **more: str) -> None:
        """Write the settings of the command, some of them changed."""
        self.settings |= more
        lines = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        (self.folder / "zapwatch.env").write_text(lines)

    def gets(self, *ids: str) -> None:
        """Let messages come in, ten minutes ago, and wait until the webhook has tried each."""
        before = self._posted()
        for one in ids:
            at = time.time() - 600
            message = SimulatedMessage("loja", outgoing=False, id=one, words="a text", at=at)
            self.server.gateway.births.bear(message)
        wait_until(lambda: self._posted() == before + len(ids), "all posted")

    def _posted(self) -> int:
        return sum(self.simulator.state()["webhook"]["answers"].values())

    def remember_for_an_hour(self) -> None:
        """Let the store have known ids for an hour."""
        with closing(sqlite3.connect(self.folder / "messages.sqlite3")) as store, store:
            store.execute("UPDATE hash_key SET since = since - 3600")

    def run(self, command: str, *arguments: str) -> int:
        """Run a command, and return its exit code."""
        return main([command, *arguments, "--env-file", str(self.folder / "zapwatch.env")])

    @contextmanager
    def exporter(self) -> Iterator[Program]:
        """Run an exporter, which the webhook posts to."""
        with Fork(self.folder, "exporter", settings=self.settings) as exporter:
            get = exporter.get
            wait_until(lambda: get("/-/ready").status_code == 200, "both sources")
            self.simulator.webhook(url=f"{exporter.url}/messages/wpp", token=_TOKEN)
            yield exporter


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Loop]:
    monkeypatch.setattr("reconnect_hook.__main__.end_on_signals", lambda **_: None)
    with SimulatorServer(SECRET, api="waha", traffic_seconds=3600) as server:
        server.gateway.put("loja", {"quiet": True})
        yield _Loop(tmp_path, server)


def test_exactly_what_a_broken_webhook_dropped_is_missing(
    loop: _Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> list[str]:
        (told,) = json.loads(capsys.readouterr().out)["audits"]
        return sorted(one["id"] for one in told["missed"])

    with loop.exporter() as exporter:
        loop.gets("A1", "A2")
        loop.remember_for_an_hour()
        loop.simulator.webhook(token="a-token-that-is-not-right")
        loop.gets("LOST1", "LOST2", "LOST3")
        loop.simulator.webhook(token=_TOKEN)
        loop.gets("A3")
        wait_until(lambda: _stored(loop) == 3, "all stored")

        assert loop.run("audit", "LOJA", "--json") == 3
        assert missing() == ["LOST1", "LOST2", "LOST3"]

        # The phone delivers one by itself, late.
        loop.gets("LOST2")
        wait_until(lambda: _stored(loop) == 4, "it is stored")
        assert loop.run("audit", "--json") == 3
        assert missing() == ["LOST1", "LOST3"]

        url = f"{exporter.url}/messages/wpp"
        loop.set(MESSAGE_REPLAY_URL=url, MESSAGE_REPLAY_TOKEN="a-token-that-is-not-right")
        assert loop.run("audit", "--replay") == 3
        assert "wpp: loja: delivery: 2 refused\n" in capsys.readouterr().out
        assert _stored(loop) == 4
        loop.set(MESSAGE_REPLAY_TOKEN=_TOKEN)
        assert loop.run("audit", "--replay") == 0
        assert "wpp: loja: delivery: 2 delivered\n" in capsys.readouterr().out
        wait_until(lambda: _stored(loop) == 6, "they are stored")
        assert loop.run("audit", "--gateway", "wpp", "--replay") == 0
        assert capsys.readouterr().out == "wpp: loja: complete: 6 received\n"

    log = (loop.folder / "hook.log").read_text()
    assert "audit=missed received=6 missed=3" in log
    for file in (*loop.folder.glob("*.sqlite3*"), *loop.folder.glob("*.log")):
        held = file.read_bytes()
        assert b"a text" not in held
        assert b"5500000000001" not in held


def _stored(loop: _Loop) -> int:
    with closing(sqlite3.connect(loop.folder / "messages.sqlite3")) as store:
        return int(store.execute("SELECT count(*) FROM arrived_ids").fetchone()[0])


def test_a_hook_that_has_just_started_knows_other_spellings_in_the_log(loop: _Loop) -> None:
    """It has needed no list of the channels yet, as one that does not lead the gateway."""
    log = WrittenLog(sa.make_url(f"sqlite:///{loop.folder}/log.sqlite3"))
    log.write_history("loja", [7200])
    message = SimulatedMessage("loja", outgoing=False, id="A1", at=time.time() - 600)
    loop.server.gateway.births.bear(message)
    log.write("LO JA", payload={"sessionId": "LO JA", "id": "A1"}, age_seconds=590)
    loop.set(MESSAGE_SOURCE="log", MESSAGE_LOG_URL=log.reader.render_as_string())
    settings = loop.settings | {"HOOK_LISTEN": "127.0.0.1:0", "HOOK_TOKEN": _TOKEN}

    with Fork(loop.folder, "reconnect_hook", "serve", settings=settings) as hook:
        api = partial(requests.request, url=f"{hook.url}/api/audit/loja", timeout=10)
        bearer = {"Authorization": f"Bearer {_TOKEN}"}
        wait_until(lambda: api("POST", headers=bearer).status_code == 202, "the state")

        def result() -> Any:
            audit = api("GET", headers=bearer).json()["audit"]
            return audit and audit["result"]

        assert wait_until(result, "the audit") == "complete"


def test_what_cannot_be_read_or_known_is_no_good_news(
    loop: _Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: Any) -> str:
        assert loop.run("audit", *arguments) == 1
        return capsys.readouterr().out

    assert "unknown" in said("loja")  # no exporter has ever run
    assert "no gateway lists such a channel" in said("nobody")
    loop.server.gateway.put("ob\u202era", {"quiet": True})
    lines = said().splitlines()
    assert "wpp: ob\\u202era: unknown" in "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    loop.simulator.fault("list", "html_502")
    assert "wpp: list: html" in said()

    for arguments, words in (
        (["--gateway", "another"], "there is no gateway 'another'"),
        (["--replay"], "--replay needs MESSAGE_REPLAY_URL, which is not set"),
    ):
        with pytest.raises(SystemExit) as ended:
            loop.run("audit", *arguments)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_the_probe_hears_its_echo_in_what_the_exporter_was_posted(
    loop: _Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.simulator.put_channel("obra", quiet=True)
    loop.set(PROBE="echo")
    with loop.exporter() as exporter:
        assert loop.run("probe", "loja") == 0
        assert capsys.readouterr().out == "loja: working, probed by echo\n"
        name = "whatsapp_channel_seconds_since_last_heard"
        heard = wait_until(lambda: exporter.metrics().all(name, gateway="wpp"), "it")
        assert list(heard) == [("loja",)], "not the sender's"
        traffic = exporter.metrics().all("whatsapp_channel_messages_total", gateway="wpp")
        assert sum(traffic.values()) == 0
    assert loop.server.gateway.still_there() == []
