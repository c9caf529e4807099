"""Several simulated gateways, and one loop with the shipped configuration that watches them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from demo.configuration import Addresses
from demo.simulator.client import Simulator
from demo.simulator.messages import Births
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.gateways import secrets_of
from tests.support.loop import SECRET, TOKEN, make_loop, prometheus_query
from tests.support.ports import free
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Watched:
    """One gateway; ``keys`` are those of its entry in gateways.yaml that differ from the default.

    ``log_url`` None is a gateway that posts its messages to the exporter.
    """

    name: str
    kind: str
    channels: tuple[str, ...]
    log_url: str | None
    keys: Mapping[str, object] = field(default_factory=dict)


class Installation:
    """Exporter, hook, Prometheus and Alertmanager for all ``gateways``, in ``folder``."""

    def __init__(
        self,
        folder: Path,
        gateways: Sequence[Watched],
        settings: Mapping[str, str],
        *,
        quiet: bool = False,
    ) -> None:
        """``quiet``: no messages come in but those that a test bears."""
        self._quiet = quiet
        self.of: dict[str, Simulator] = {}
        self.births: dict[str, Births] = {}
        self.at = Addresses(free(), free(), free(), free())
        self._folder = folder
        self._gateways = gateways
        self._settings = settings
        self._running = ExitStack()

    def query(self, expression: str) -> list[dict[str, Any]]:
        return prometheus_query(self.at.prometheus, expression)

    def api(self, path: str, method: str = "GET") -> Any:
        answer = requests.request(
            method,
            f"http://{self.at.hook}/api/{path}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        assert answer.ok, answer.text
        return answer.json()

    def statuses(self) -> dict[tuple[str, str], str]:
        """Return the status of each channel by gateway and channel, in the page's own words."""
        self.loop.children.check()
        return {
            (one["gateway"], one["channel"]): one["status"]
            for one in self.api("channels")["channels"]
        }

    def first_repair(self, gateway: str, channel: str) -> tuple[str, str] | None:
        """Return reason and outcome of a channel's first repair."""
        attempts = self.api(f"attempts/{channel}?gateway={gateway}")["attempts"]
        return (attempts[-1]["reason"], attempts[-1]["outcome"]) if attempts else None

    def wait_for_repairs(self, wanted: Mapping[tuple[str, str], tuple[str, str] | None]) -> None:
        """Wait until each channel's first repair has this reason and outcome, if any."""
        with suppress(AssertionError):
            wait_until(
                # A list of all of them each time would be most of what the hook does.
                lambda: all(self.first_repair(*place) == one for place, one in wanted.items()),
                "every repair",
            )
        assert {place: self.first_repair(*place) for place in wanted} == wanted

    def __enter__(self) -> Self:
        with ExitStack() as running:
            entries = [self._entry(running, one) for one in self._gateways]
            file = self._folder / "gateways.yaml"
            file.write_text(yaml.safe_dump({"gateways": entries}))
            settings = {
                "GATEWAYS_FILE": str(file),
                "MESSAGES_STATE_URL": f"sqlite:///{self._folder / 'messages.sqlite3'}",
                **self._settings,
            }
            self.loop = running.enter_context(make_loop(self._folder, self.at, settings))
            self.loop.wait_until_ready()
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _entry(self, running: ExitStack, one: Watched) -> dict[str, object]:
        engine = open_message_log(one.log_url) if one.log_url else None
        server = SimulatorServer(SECRET, message_log=engine, traffic_seconds=1.0, api=one.kind)
        running.enter_context(server)
        self.of[one.name] = Simulator(server.url)
        self.births[one.name] = server.gateway.births
        for channel in one.channels:
            self.of[one.name].put_channel(channel, reconnect_seconds=1.0, quiet=self._quiet)
        if one.log_url:
            source = {"message_log_url": one.log_url}
        else:
            source = {"messages": "events", "messages_token": TOKEN}
            events = f"http://{self.at.exporter}/messages/{one.name}"
            self.of[one.name].webhook(url=events, token=TOKEN)
        entry = {"name": one.name, "type": one.kind, "url": server.url}
        return {**entry, **secrets_of(one.kind, SECRET, one.channels), **source, **one.keys}
