"""Exporter, hook, Prometheus and Alertmanager on a simulated gateway."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.configuration import ALERTMANAGER, Addresses
from demo.loop import Loop
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.past import Past, write_past
from tests.support.ports import free

TOKEN = "the-token-of-the-benchmarks"
"""The stack's HOOK_TOKEN."""

_SECRET = "a-secret-of-the-benchmarks"


@contextmanager
def whole_stack(
    channels: Sequence[str],
    settings: Mapping[str, str],
    past: Sequence[Past] = (),
    alertmanager: Path = ALERTMANAGER,
) -> Iterator[tuple[Loop, Simulator]]:
    """Run the stack with these channels, alive; ``past`` backfills a week of samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_url = f"sqlite:///{folder}/log.sqlite3"
        engine = open_message_log(log_url)
        with SimulatorServer(_SECRET, message_log=engine, traffic_seconds=4) as server:
            simulator = Simulator(server.url)
            for channel in channels:
                simulator.put_channel(channel, reconnect_seconds=1)
            env = {
                **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
                "WPP_GATEWAY_BASE_URL": server.url,
                "WPP_GATEWAY_SECRET": _SECRET,
                "MESSAGE_LOG_URL": log_url,
                "HOOK_STATE_URL": f"sqlite:///{folder}/state.sqlite3",
                "HOOK_LOG_FILE": f"{folder}/hook.log",
                **settings,
            }
            at = Addresses(*(free() for _ in range(4)))
            loop = Loop(folder / "loop", at, env, TOKEN, alertmanager=alertmanager)
            if past:
                write_past(folder / "loop" / "prometheus", time.time() - 30, past)
            with loop:
                loop.wait_until_ready()
                yield loop, simulator
