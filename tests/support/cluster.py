"""Two machines of deploy/ha/ as processes, with shared gateway, state and storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import sqlalchemy as sa

from demo.loop import PROGRAMS, Children, find_program, get
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.http_servers import Heartbeat
from tests.support.loop import SECRET
from tests.support.node import HEARTBEAT, STORE, Node, text
from tests.support.ports import free
from tests.support.waiting import wait_until


class Cluster:
    """All programs of one test; ``channels`` exist from the start.

    Unless ``shorter`` is False, all waits are shorter than the shipped ones.
    """

    def __init__(
        self, folder: Path, state: sa.URL, channels: Sequence[str], *, shorter: bool = True
    ) -> None:
        self._channels = channels
        self._stack = ExitStack()
        self._server = SimulatorServer(SECRET)
        self._engine = sa.create_engine(state)
        self._store_at = free()
        self._store = Children(folder)
        self._folder = folder
        self.simulator = Simulator(self._server.url)
        self.heartbeat = Heartbeat()
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
            "WPP_GATEWAY_BASE_URL": self._server.url,
            "WPP_GATEWAY_SECRET": SECRET,
            "MESSAGE_LOG_URL": "none",
            "EXPORTER_POLL_SECONDS": "1" if shorter else "5",
            "RECONNECT_VERIFY_SECONDS": "20",
        }
        words = {HEARTBEAT: self.heartbeat.url, STORE: f"http://{self._store_at}/api/v1/write"}
        self.a = Node("a", folder, state, self._stack, shorter=shorter)
        self.b = Node("b", folder, state, self._stack, shorter=shorter)
        self.nodes = (self.a, self.b)
        for node in self.nodes:
            node.join({"machine-a": self.a, "machine-b": self.b}, env, words)

    def calls(self, channel: str) -> int:
        return len(self.simulator.requests("qr", channel))

    def outcomes(self, channel: str) -> list[str]:
        """Return the channel's outcomes, oldest first; none while the state is unavailable."""
        try:
            with self._engine.connect() as connection:
                return list(connection.scalars(_OUTCOMES, {"channel": channel}))
        except sa.exc.OperationalError:
            return []

    def end_leases(self) -> None:
        """Expire all leases that are not renewed, without waiting ten seconds."""
        with self._engine.begin() as connection:
            connection.execute(sa.text("UPDATE gateway SET lease_until = 1 WHERE holder <> ''"))

    def stored(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of the long-term storage's series for an expression."""
        url = f"http://{self._store_at}/api/v1/query?query={quote(expression)}"
        found: list[dict[str, Any]] = get(url).json()["data"]["result"]
        return [one["metric"] for one in found]

    def wait_for_repair(self, channel: str) -> None:
        self.wait_for(lambda: self.outcomes(channel), f"a repair of {channel} to end")

    @staticmethod
    def wait_for(condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what)

    def wait_until_joined(self) -> None:
        self.wait_for(
            lambda: all(node.partners() == 1 for node in self.nodes), "the Alertmanagers to join"
        )

    def wait_until_nothing_fires(self) -> None:
        """Wait until no alert fires, so that earlier ones cause no more deliveries."""
        self.wait_for(lambda: not any(node.firing() for node in self.nodes), "all to be well")

    def __enter__(self) -> Self:
        with self._stack as running:
            running.enter_context(self._server)
            running.callback(self._engine.dispose)
            running.enter_context(self.heartbeat)
            for channel in self._channels:
                self.simulator.put_channel(channel, reconnect_seconds=1.0)
            running.callback(self._store.stop)
            self._store.start("store", self._store_command(), os.environ)
            for node in self.nodes:
                running.callback(node.children.stop)
                for program in PROGRAMS:
                    node.start(program)
            self.wait_for(lambda: text(self._store_at, "/-/ready"), "the storage to answer")
            for node in self.nodes:
                self.wait_for(node.answers, f"the programs of {node.name} to answer")
            self.wait_until_joined()
            self._stack = running.pop_all()
        return self

    def _store_command(self) -> list[str]:
        """Return the command of Mimir's substitute: a Prometheus that only stores."""
        config = self._folder / "store.yml"
        config.write_text("global: {}\n")
        return [
            find_program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'store'}",
            f"--web.listen-address={self._store_at}",
            "--web.enable-remote-write-receiver",
            "--log.level=warn",
        ]

    def __exit__(self, *_: object) -> None:
        self._stack.close()


_OUTCOMES = sa.text("SELECT outcome FROM repair_log WHERE channel = :channel ORDER BY id")
