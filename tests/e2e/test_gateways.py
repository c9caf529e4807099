"""Four gateways at once, one of each kind: each has a drop, a zombie and a QR code, all at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from stack.configuration import Addresses
from stack.loop import Loop
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from stack.simulator.traffic import open_message_log
from tests.e2e.world import SECRET, SILENT_SECONDS, free, shorter_alertmanager, shorter_rules
from tests.support.waiting import wait_until
from whatsapp.gateways.registry import ADAPTERS

_TOKEN = "the-token-of-the-tests"
_SECONDS = 120.0
_CHANNELS = ("caiu", "zumbi", "sem-par", "bem")


class Installation:
    """A loop with the shipped configuration, and a simulated gateway of each kind."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.of: dict[str, Simulator] = {}
        entries = []
        for kind in ADAPTERS:
            log = f"sqlite:///{folder / f'{kind}.sqlite3'}"
            server = SimulatorServer(
                SECRET, message_log=open_message_log(log), traffic_seconds=1.0, api=kind
            )
            running.enter_context(server)
            self.of[kind] = Simulator(server.url)
            for channel in _CHANNELS:
                self.of[kind].put_channel(channel, reconnect_seconds=1.0)
            entries.append(
                f"- name: the-{kind}\n  type: {kind}\n  url: {server.url}\n"
                f"  secret: {SECRET}\n  message_log_url: {log}\n"
            )
        file = folder / "gateways.yaml"
        file.write_text("gateways:\n" + "".join(entries))
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
            "GATEWAYS_FILE": str(file),
            "SILENT_HOURS": str(SILENT_SECONDS / 3600),
            "EXPORTER_POLL_SECONDS": "1",
            "RECONNECT_VERIFY_SECONDS": "20",
            "HOOK_STATE_URL": f"sqlite:///{folder / 'state.sqlite3'}",
            "HOOK_LOG_FILE": str(folder / "healthcheck-sessions.log"),
        }
        self.loop = running.enter_context(
            Loop(
                folder / "loop",
                Addresses(free(), free(), free(), free()),
                env,
                _TOKEN,
                rules=shorter_rules(folder / "rules"),
                alertmanager=shorter_alertmanager(folder / "alertmanager"),
            )
        )

    def api(self, path: str) -> Any:
        answer = requests.get(
            f"http://{self.loop.at.hook}/api/{path}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(self, wanted: dict[str, str]) -> None:
        """Wait until the channels of each gateway are as wanted, by the page's own words."""

        def now() -> bool:
            self.loop.children.check()
            found = {
                (one["gateway"], one["channel"]): one["status"]
                for one in self.api("channels")["channels"]
            }
            return found == {
                (f"the-{kind}", channel): wanted.get(channel, "connected")
                for kind in ADAPTERS
                for channel in _CHANNELS
            }

        wait_until(now, _SECONDS, f"{wanted} at each gateway")

    def outcome(self, kind: str, channel: str) -> tuple[str, str] | None:
        """Return reason and outcome of a channel's first repair."""
        attempts = self.api(f"attempts/{channel}?gateway=the-{kind}")["attempts"]
        return (attempts[-1]["reason"], attempts[-1]["outcome"]) if attempts else None


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as running:
        made = Installation(tmp_path, running)
        made.loop.wait_until_ready()
        yield made


def test_each_kind_of_gateway_has_its_drop_its_zombie_and_its_code(
    installation: Installation,
) -> None:
    installation.wait_for({})
    for simulator in installation.of.values():
        simulator.drop("caiu")
        simulator.zombie("zumbi")
        simulator.unpair("sem-par")
    expected = {
        "caiu": ("disconnected", "reconnected"),
        "zumbi": ("silent", "reconnected"),
        "sem-par": ("disconnected", "qr_required"),
        "bem": None,
    }
    wanted = {(kind, channel): one for kind in ADAPTERS for channel, one in expected.items()}
    wait_until(
        lambda: {place: installation.outcome(*place) for place in wanted} == wanted,
        _SECONDS,
        "every repair",
    )
    installation.wait_for({"sem-par": "needs-scan"})
    for simulator in installation.of.values():
        simulator.scan("sem-par")
    installation.wait_for({})
