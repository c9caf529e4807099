"""A world with a simulated gateway behind the real adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.simulator.apis.whapi import token_of
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.world import GATEWAY, Options, World, WorldClock
from zapwatch.channels import NamedChannel
from zapwatch.gateways import NAMED_CHANNELS
from zapwatch.gateways.registry import ADAPTERS


class SimulatedWorld(World):
    """World with a simulated gateway and its real adapter; no log may contain ``secret``."""

    secret = "0123456789abcdef-not-a-real-secret"

    def __init__(
        self,
        folder: Path,
        options: Options | None = None,
        *,
        api: str = "wrapper",
        timeout: float = 20.0,
    ) -> None:
        """A gateway call may take ``timeout`` seconds of real time."""
        self.api = api
        clock = WorldClock()
        self._server = SimulatorServer(self.secret, api=api, clock=clock, traffic_seconds=3600)
        self._server.start()
        self.simulator = Simulator(self._server.url)
        self.simulator.put_channel("loja", reconnect_seconds=2)
        named = api in NAMED_CHANNELS
        channels = (NamedChannel("loja", token_of(self.secret, "loja")),) if named else ()
        client = ADAPTERS[api](
            self._server.url,
            self.secret,
            channels=channels,
            qr_timeout=timeout,
            observe=self._observe,
        )
        super().__init__(folder, options, clock=clock, client=client)

    def _observe(self, *call: Any) -> None:
        self.hook.metrics.calls.of(GATEWAY)(*call)

    def close(self) -> None:
        super().close()
        self._server.stop()
        self.client.close()

    def calls(self) -> list[str]:
        """Return the gateway's calls, without lists."""
        return [one["operation"] for one in self.simulator.requests() if one["operation"] != "list"]
