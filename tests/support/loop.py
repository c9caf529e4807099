"""A complete installation: simulated gateway, MariaDB, and the loop as shipped."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import sqlalchemy as sa

from demo.configuration import ALERTMANAGER, RULES, Addresses
from demo.loop import Loop, get
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from demo.story import Event, Events
from tests.support.ports import free
from tests.support.waiting import wait_until
from zapwatch.config import Listen

SECRET = "a-secret-of-the-e2e-tests"
TOKEN = "the-token-of-the-tests"
SILENT_SECONDS = 8.0

_SHORTER = {"for: 15s": "for: 3s", "for: 2m": "for: 10s", "interval: 1m": "interval: 5s"}


def shorter_rules(folder: Path) -> Path:
    """Copy the shipped rules, with shorter intervals as the only change."""
    folder.mkdir()
    for path in RULES.glob("*.yml"):
        text = path.read_text()
        for shipped, shorter in _SHORTER.items():
            text = text.replace(shipped, shorter)
        (folder / path.name).write_text(text)
    return folder


def shorter_alertmanager(folder: Path) -> Path:
    """Copy the shipped configuration, with shorter waits for operators as the only change.

    Suspicions are repeated sooner too, as PROBE_PAUSE_MINUTES is shorter in the tests.
    """
    shutil.copytree(ALERTMANAGER, folder)
    config = folder / "alertmanager.yml"
    text = re.sub(r"group_wait: \dm", "group_wait: 2s", config.read_text())
    before, probe, after = text.partition('remediation="probe"')
    shorter = after.replace("repeat_interval: 15m", "repeat_interval: 1m", 1)
    assert shorter != after
    config.write_text(before + probe + shorter)
    return folder


def prometheus_query(at: Listen, expression: str) -> list[dict[str, Any]]:
    """Return the series of an expression with labels and value, from the Prometheus at ``at``."""
    body = get(f"http://{at}/api/v1/query?query={quote(expression)}").json()
    assert body["status"] == "success", body
    return list(body["data"]["result"])


def make_loop(
    folder: Path, at: Addresses, settings: Mapping[str, str], rules: Path | None = None
) -> Loop:
    """Create a loop with the shipped configuration and all its data in ``folder``."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
        "EXPORTER_POLL_SECONDS": "2",  # Prometheus asks each three seconds
        "HOOK_STATE_URL": f"sqlite:///{folder / 'state.sqlite3'}",
        "HOOK_LOG_FILE": str(folder / "logs" / "healthcheck-sessions.log"),
        **settings,
    }
    return Loop(
        folder / "loop",
        at,
        env,
        TOKEN,
        rules=rules or shorter_rules(folder / "rules"),
        alertmanager=shorter_alertmanager(folder / "alertmanager"),
    )


class World:
    """All programs of one test, in ``folder``.

    ``channels`` exist from the start; as ``zombies`` they have no messages until reconnected.
    """

    def __init__(
        self,
        folder: Path,
        log_url: sa.URL,
        channels: tuple[str, ...],
        settings: Mapping[str, str] | None = None,
        rules: Path | None = None,
        *,
        zombies: bool = False,
    ) -> None:
        self.log_file = folder / "logs" / "healthcheck-sessions.log"
        self._channels = channels
        self._zombies = zombies
        url = log_url.render_as_string(hide_password=False)
        self._server = SimulatorServer(
            SECRET, message_log=open_message_log(url), traffic_seconds=1.0
        )
        self.simulator = Simulator(self._server.url)
        self.births = self._server.gateway.births
        at = Addresses(free(), free(), free(), free())
        own = {
            "WPP_GATEWAY_BASE_URL": self._server.url,
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_LOG_URL": url,
            "SILENT_HOURS": str(SILENT_SECONDS / 3600),
            "RECONNECT_VERIFY_SECONDS": "20",
        }
        self.loop = make_loop(folder, at, {**own, **(settings or {})}, rules)
        self._events = Events(f"http://{at.alertmanager}", self.log_file)
        self.seen: list[Event] = []

    def query(self, expression: str) -> list[dict[str, Any]]:
        return prometheus_query(self.loop.at.prometheus, expression)

    def value(self, expression: str) -> float | None:
        """Return the value of an expression's only series, None without one."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def wait_for_event(self, kind: str, channel: str, what: str) -> Event:
        def find() -> Event | None:
            self.loop.children.check()
            self.seen += self._events.new(time.time())
            wanted = (kind, channel, what)
            return next((e for e in self.seen if (e.kind, e.channel, e.what) == wanted), None)

        found = wait_until(find, f"{kind} {what} of {channel or 'the gateway'}")
        assert found is not None
        return found

    def wait_for_notification(self, text: str) -> str:
        """Wait for a notification of operators, and return its log line."""
        path = self.loop.folder / "reconnect_hook.log"

        def find() -> str | None:
            lines = [line for line in path.read_text().splitlines() if " logger=people " in line]
            return next((line for line in lines if text in line), None)

        found = wait_until(find, f"people to be told: {text}")
        assert found is not None
        return found

    def qr_calls(self, channel: str | None = None) -> int:
        return len(self.simulator.requests("qr", channel))

    def log_lines(self, channel: str) -> list[str]:
        text = self.log_file.read_text() if self.log_file.exists() else ""
        return [line for line in text.splitlines() if re.search(f'channel="?{channel}"? ', line)]

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.enter_context(self._server)
            for channel in self._channels:
                self.simulator.put_channel(channel, reconnect_seconds=1.0, zombie=self._zombies)
            running.enter_context(self.loop).wait_until_ready()
            wait_until(self._all_heard, "Prometheus to know a message of each channel")
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _all_heard(self) -> bool:
        count = self.value("count(whatsapp_channel_seconds_since_last_message)")
        return count == len(self._channels)
