"""The dead man's switch of one machine: each part of the chain killed, with the real servers."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from demo.configuration import ALERTMANAGER, Addresses
from demo.loop import PROGRAMS, Loop
from demo.simulator.server import SimulatorServer
from tests.support.http_servers import Heartbeat
from tests.support.loop import SECRET, TOKEN
from tests.support.ports import free
from tests.support.waiting import wait_until

_SILENCE = 5.0  # seconds; a beat comes each second


def _quick(folder: Path) -> Path:
    """Copy the shipped configuration, with a heartbeat each second and nothing else changed."""
    shutil.copytree(ALERTMANAGER, folder)
    config = folder / "alertmanager.yml"
    text, changed = re.subn(
        "group_interval: 30s\n(.*)repeat_interval: 50s",
        r"group_interval: 1s\n\1repeat_interval: 1s",
        config.read_text(),
    )
    assert changed == 1
    config.write_text(text)
    return folder


def test_the_heartbeat_stops_with_each_part_of_the_chain_and_comes_back(tmp_path: Path) -> None:
    with SimulatorServer(SECRET) as gateway, Heartbeat() as service:
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
            "WPP_GATEWAY_BASE_URL": gateway.url,
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_LOG_URL": "none",
            "HOOK_STATE_URL": f"sqlite:///{tmp_path / 'state.sqlite3'}",
            "HOOK_LOG_FILE": str(tmp_path / "log"),
            "HEARTBEAT_URL": service.url,
        }
        loop = Loop(
            tmp_path / "loop",
            Addresses(free(), free(), free(), free()),
            env,
            TOKEN,
            alertmanager=_quick(tmp_path / "alertmanager"),
        )
        # Alertmanager forgets an alert that Prometheus has not renewed for four times as long.
        loop.prometheus_options = ["--rules.alert.resend-delay=1s"]
        with loop:
            loop.wait_until_ready()
            for program in PROGRAMS:
                before = service.beats
                wait_until(lambda: service.beats > before + 1, "a beat")  # noqa: B023
                loop.children.kill(program)
                wait_until(lambda: service.silent_for() > _SILENCE, f"silence without {program}")
                loop.start_one(program)
            before = service.beats
            wait_until(lambda: service.beats > before, "a beat with all of them again")
            people = (loop.folder / "reconnect_hook.log").read_text()
            assert "Watchdog" not in people
