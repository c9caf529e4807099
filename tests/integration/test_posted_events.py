"""Gateways of each kind that post their events to one exporter, with all that goes wrong there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.simulator.apis.registry import APIS
from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from tests.support.gateways import secrets_of
from tests.support.programs import Fork
from tests.support.samples import Metrics
from tests.support.waiting import wait_until

_SECRET = "0123456789abcdef-not-a-real-secret"
_AGE = "whatsapp_channel_seconds_since_last_message"
_HEARD = "whatsapp_channel_seconds_since_last_heard"
_COUNT = "whatsapp_channel_messages_total"
_EVENTS = "whatsapp_message_events_total"


class World:
    """One exporter, and a simulated gateway of each kind that is called as its kind."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.servers = {api: stack.enter_context(SimulatorServer(_SECRET, api=api)) for api in APIS}
        for server in self.servers.values():
            for channel in ("loja", "obra"):
                server.gateway.put(channel, {})
        entries = [
            {
                "name": api,
                "type": api,
                "url": server.url,
                **secrets_of(api, _SECRET, ("loja", "obra")),
                "messages": "events",
                "messages_token": self.token(api),
            }
            for api, server in self.servers.items()
        ]
        file = directory / "gateways.yaml"
        file.write_text(yaml.safe_dump({"gateways": entries}))
        self.file = directory / "messages.sqlite3"
        settings = {
            "GATEWAYS_FILE": str(file),
            "MESSAGES_STATE_URL": f"sqlite:///{self.file}",
            "EXPORTER_LISTEN": "127.0.0.1:0",
            "EXPORTER_POLL_SECONDS": "0.1",
        }
        self.exporter = stack.enter_context(Fork(directory, "exporter", settings=settings))
        for api in APIS:
            Simulator(self.servers[api].url).traffic(paused=True)
            url = f"{self.exporter.url}/messages/{api}"
            self.post(api, url=url, token=self.token(api))
        wait_until(lambda: self.exporter.get("/-/ready").status_code == 200, "all sources")

    @staticmethod
    def token(api: str) -> str:
        return f"not-a-real/token of {api}&?".replace(" ", "-")

    def post(self, api: str, **manners: Any) -> None:
        Simulator(self.servers[api].url).webhook(**manners)

    def bear(self, api: str, *, outgoing: bool = False, by_api: bool = False) -> None:
        self.servers[api].gateway.births.bear(
            SimulatedMessage("loja", outgoing=outgoing, by_api=by_api)
        )

    def written(self, known: bytes) -> bytes:
        """Return the bytes of the events store, none until it has the known ones."""
        parts = self.file.parent.glob(f"{self.file.name}*")
        content = b"".join(path.read_bytes() for path in parts)
        return content if known in content else b""

    def when(self, api: str, name: str, value: float, **labels: str) -> Metrics:
        """Wait until a metric of the gateway has a value, and return all metrics of that moment."""

        def seen() -> Metrics | None:
            metrics = self.exporter.metrics()
            return metrics if metrics.get(name, gateway=api, **labels) == value else None

        return wait_until(seen, f"{name} of {api} to be {value}")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("events"), stack)


@pytest.mark.parametrize("api", APIS)
def test_events_are_taken_once_by_their_own_time_whatever_comes_with_them(
    world: World, api: str
) -> None:
    manners: dict[str, Any] = {"repeats": 2, "late_seconds": 600, "flood": 20, "megabytes": 0.5}
    world.post(api, by_events=api == "evolution", **manners)
    world.bear(api)
    metrics = world.when(api, _EVENTS, 3, result="message")
    metrics = world.when(api, _COUNT, 1, channel="loja", direction="in")
    age = metrics.get(_AGE, gateway=api, channel="loja")
    assert age is not None
    assert 599 <= age < 660
    assert metrics.get(_HEARD, gateway=api, channel="loja") == pytest.approx(age)
    assert metrics.get(_AGE, gateway=api, channel="obra") is None
    assert metrics.all(_EVENTS, gateway=api) == {
        ("message",): 3,
        ("undecryptable",): 0,
        ("unlisted",): 0,
        ("other",): 20,
        ("unauthorized",): 0,
        ("invalid",): 0,
        ("too_large",): 0,
    }
    # What the panel sends moves only one of the two clocks, where the gateway tells them apart.
    world.post(api, repeats=0, late_seconds=0, flood=0, megabytes=0)
    world.bear(api, outgoing=True, by_api=True)
    metrics = world.when(api, _COUNT, 1, channel="loja", direction="out")
    sent, heard = (metrics.get(name, gateway=api, channel="loja") for name in (_AGE, _HEARD))
    assert sent is not None
    assert heard is not None
    assert sent < 500
    assert (heard > 590) is (api not in {"wppconnect", "gowa", "wuzapi"})
    # A wrong token is told, and changes nothing.
    world.post(api, token="another-token", retries=1, retry_seconds=0.1)
    world.bear(api)
    metrics = world.when(api, _EVENTS, 2, result="unauthorized")
    assert metrics.get(_COUNT, gateway=api, channel="loja", direction="in") == 1
    assert f"an event of gateway {api} was refused" in world.exporter.stderr
    for secret in (world.token(api), "another-token"):
        assert secret not in world.exporter.stderr
    # Written once a second; some gateways' channels have another id there.
    written = wait_until(lambda: world.written(api.encode()), "the store to be written")
    for kept_by_nobody in (b"5500000000001", b"nine?", b"api-key", world.token(api).encode()):
        assert kept_by_nobody not in written
