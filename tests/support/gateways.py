"""Several simulated gateways, their gateways.yaml, and Prometheus' answers about them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from demo.simulator.apis.whapi import token_of
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings
from zapwatch.gateways import NAMED_CHANNELS


class Gateways:
    """A simulator per name, each with a channel ``loja``; for a ``with`` statement."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.file = directory / "gateways.yaml"
        self._servers = {name: SimulatorServer(SECRET) for name in names}
        self.of: dict[str, Simulator] = {}
        """Each simulator's control client, by name."""

    def write(self, *names: str, **more: str) -> None:
        """Write the file; ``more`` sets a key of all gateways, or of one as ``name_key``."""
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
        """Return a program's settings for the gateways in the file."""
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
            simulator.clear_faults()  # releases calls that would delay the end
            self._servers[name].__exit__(None, None, None)


def secrets_of(kind: str, secret: str, channels: Iterable[str]) -> dict[str, object]:
    """Return the gateway's secret; for a gateway without a list, one for each channel."""
    if kind not in NAMED_CHANNELS:
        return {"secret": secret}
    return {"channels": [{"name": one, "secret": token_of(secret, one)} for one in channels]}


def sample(name: str, gateway: str, value: float, **labels: str) -> dict[str, object]:
    """Return one sample of ``whatsapp_`` and the name, as in Prometheus' answers."""
    texts = {"__name__": f"whatsapp_{name}", "gateway": gateway, **labels}
    return {"metric": texts, "value": [0, str(value)]}


def answer(samples: Iterable[object]) -> str:
    """Return Prometheus' answer to any query: these samples, and no alert."""
    return json.dumps({"data": {"alerts": [], "result": list(samples)}})
