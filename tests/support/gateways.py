"""Several simulated gateways, the file that names them, and what Prometheus says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings


class Gateways:
    """A simulator for each name, each with a channel ``loja``; for a ``with`` statement."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.file = directory / "gateways.yaml"
        self._servers = {name: SimulatorServer(SECRET) for name in names}
        self.of: dict[str, Simulator] = {}
        """What commands each simulator, by name."""

    def write(self, *names: str, **more: str) -> None:
        """Name these gateways in the file; ``more`` is a key for all of them, or ``name_key``."""
        entries = []
        for name in names:
            keys = {
                "name": name,
                "type": "wrapper",
                "url": self.of[name].url,
                "secret": SECRET,
                "message_log_url": "none",
                "timeout": "30",
            }
            mine = {k.removeprefix(f"{name}_"): v for k, v in more.items() if k.startswith(name)}
            lines = [f"{key}: {value}" for key, value in {**keys, **mine}.items()]
            entries.append("- " + "\n  ".join(lines))
        self.file.write_text("gateways:\n" + "\n".join(entries) + "\n")

    def settings(self, **more: str) -> dict[str, str]:
        """Return the settings of a program for all that the file names."""
        found = hook_settings("", **more) | {"GATEWAYS_FILE": str(self.file)}
        found |= {"EXPORTER_LISTEN": "127.0.0.1:0", "EXPORTER_POLL_SECONDS": "0.1"}
        return {name: value for name, value in found.items() if not name.startswith("WPP_")}

    def __enter__(self) -> Self:
        for name, server in self._servers.items():
            server.__enter__()
            self.of[name] = Simulator(server.url)
            self.of[name].put_channel("loja", reconnect_seconds=0)
        self.write(*self.of)
        return self

    def __exit__(self, *_: object) -> None:
        for name, simulator in self.of.items():
            simulator.clear_faults()  # so that no call holds up the end
            self._servers[name].__exit__(None, None, None)


def sample(name: str, gateway: str, value: float, **labels: str) -> dict[str, object]:
    """Return one sample of ``whatsapp_`` and the name, as Prometheus answers it."""
    texts = {"__name__": f"whatsapp_{name}", "gateway": gateway, **labels}
    return {"metric": texts, "value": [0, str(value)]}


def answer(samples: Iterable[object]) -> str:
    """Return Prometheus' answer to any question: these samples, and no alert."""
    return json.dumps({"data": {"alerts": [], "result": list(samples)}})
