"""Two of everything: gossiping Alertmanagers, Prometheus, exporters, and hooks on one state."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import requests
import sqlalchemy as sa

from stack.configuration import Addresses
from stack.loop import Loop, Partners, get
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from tests.e2e.world import SECRET, free, shorter_alertmanager, shorter_rules
from tests.support.programs import Metrics
from tests.support.relay import Relay
from tests.support.waiting import wait_until
from whatsapp.settings import Listen

_SECONDS = 90.0  # until what must happen has happened, on the slowest of machines
_TOKEN = "the-token-of-the-cluster"
# Shorter than Alertmanager's own, so that a dead partner is soon noticed, and a live one found.
_GOSSIP = (
    "--cluster.peer-timeout=2s",
    "--cluster.gossip-interval=50ms",
    "--cluster.pushpull-interval=2s",
    "--cluster.probe-interval=500ms",
    "--cluster.probe-timeout=250ms",
    "--cluster.reconnect-interval=1s",
    "--cluster.settle-timeout=10s",
)


class Node:
    """One machine of the cluster. Two of its wires can be cut: ``gossip`` and ``state``."""

    loop: Loop

    def __init__(self, name: str, folder: Path, state: sa.URL, stack: ExitStack) -> None:
        self.name = name
        self.at = Addresses(free(), free(), free(), free())
        self.gossips_at = free()
        self.gossip = stack.enter_context(Relay(self.gossips_at.port))
        assert state.port
        self.state = stack.enter_context(Relay(state.port))
        self.log_file = folder / name / "healthcheck-sessions.log"
        self._settings = {
            "HOOK_LOG_FILE": str(self.log_file),
            "HOOK_STATE_URL": state.set(port=self.state.at.port).render_as_string(
                hide_password=False
            ),
        }
        self._folder = folder

    def join(self, partner: Node, env: dict[str, str], rules: Path, alertmanager: Path) -> None:
        """Get ready to start, as one of two."""
        self.loop = Loop(
            self._folder / self.name,
            self.at,
            {**env, **self._settings},
            _TOKEN,
            rules=rules,
            alertmanager=alertmanager,
            partners=Partners(
                (partner.at,),
                (
                    f"--cluster.listen-address={self.gossips_at}",
                    # Where the partner finds this one, and this one the partner: behind the wires.
                    f"--cluster.advertise-address={self.gossip.at}",
                    f"--cluster.peer={partner.gossip.at}",
                    *_GOSSIP,
                ),
            ),
        )

    def kill(self, program: str) -> None:
        self.loop.children.kill(program)

    def start(self, program: str) -> None:
        self.loop.start_one(program)

    def partners(self) -> int | None:
        """Return how many Alertmanagers this one sees besides itself, None while it finds out."""
        cluster = _json(self.at.alertmanager, "/api/v2/status").get("cluster", {})
        return len(cluster["peers"]) - 1 if cluster.get("status") == "ready" else None

    def firing(self) -> set[str]:
        """Return the channels of which the Alertmanager knows that they are disconnected."""
        alerts = _json(self.at.alertmanager, "/api/v2/alerts")
        return {alert["labels"].get("channel", "") for alert in alerts}

    def delivered(self) -> float:
        """Return how many firing alerts its hook has been told of since it started."""
        page = _text(self.at.hook, "/metrics")
        told = Metrics(page).all("whatsapp_reconnect_alerts_total", status="firing")
        return sum(told.values())

    def is_ready(self) -> bool:
        """Whether its hook can read the state."""
        return bool(_text(self.at.hook, "/-/ready"))


class Cluster:
    """Everything that runs in one test; ``channels`` are there from the start."""

    def __init__(self, folder: Path, state: sa.URL, channels: Sequence[str]) -> None:
        self._channels = channels
        self._stack = ExitStack()
        self._server = SimulatorServer(SECRET)
        self._engine = sa.create_engine(state)
        self.simulator = Simulator(self._server.url)
        rules = shorter_rules(folder / "rules")
        alertmanager = shorter_alertmanager(folder / "alertmanager")
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
            "WPP_GATEWAY_BASE_URL": self._server.url,
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_LOG_URL": "none",
            "EXPORTER_POLL_SECONDS": "1",
            "RECONNECT_VERIFY_SECONDS": "20",
        }
        self.a = Node("a", folder, state, self._stack)
        self.b = Node("b", folder, state, self._stack)
        self.nodes = (self.a, self.b)
        self.a.join(self.b, env, rules, alertmanager)
        self.b.join(self.a, env, rules, alertmanager)

    def calls(self, channel: str) -> int:
        """Return how often getQr was called for a channel."""
        return len(self.simulator.requests("qr", channel))

    def outcomes(self, channel: str) -> list[str]:
        """Return how the channel's repairs ended, oldest first."""
        with self._engine.connect() as connection:
            return list(connection.scalars(_OUTCOMES, {"channel": channel}))

    def end_leases(self) -> None:
        """Let half a minute pass for those who do not renew what they hold."""
        with self._engine.begin() as connection:
            connection.execute(sa.text("UPDATE repairs SET lease_until = 1 WHERE holder <> ''"))

    def wait_for_repair(self, channel: str) -> None:
        self.wait_for(lambda: self.outcomes(channel), f"a repair of {channel} to end")

    @staticmethod
    def wait_for(condition: Callable[[], object], what: str) -> None:
        """Wait until something is the case; ``what`` as for wait_until()."""
        wait_until(condition, _SECONDS, what)

    def wait_until_joined(self) -> None:
        """Wait until the Alertmanagers see each other."""
        self.wait_for(
            lambda: all(node.partners() == 1 for node in self.nodes), "the Alertmanagers to join"
        )

    def wait_until_nothing_fires(self) -> None:
        """Wait until no delivery can come any more for what happened before."""
        self.wait_for(lambda: not any(node.firing() for node in self.nodes), "all to be well")

    def __enter__(self) -> Self:
        self._server.start()
        self._stack.callback(self._server.stop)
        self._stack.callback(self._engine.dispose)
        for channel in self._channels:
            self.simulator.put_channel(channel, reconnect_seconds=1.0)
        try:
            for node in self.nodes:
                self._stack.callback(node.loop.stop)
                node.loop.start()
            for node in self.nodes:
                node.loop.wait_until_ready()
            self.wait_until_joined()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


_OUTCOMES = sa.text(
    "SELECT outcome FROM repairs WHERE channel = :channel AND outcome <> '' ORDER BY id"
)


def _text(at: Listen, path: str) -> str:
    """Return a page, and nothing where nobody answers."""
    try:
        answer = get(f"http://{at}{path}")
    except requests.RequestException:
        return ""
    return answer.text if answer.ok else ""


def _json(at: Listen, path: str) -> Any:
    try:
        return get(f"http://{at}{path}").json()
    except (requests.RequestException, ValueError):
        return {}
