"""What adapters ask and simulators answer is what the gateways' own documents describe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jsonschema_rs
import pytest

from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from tests.contract.openapi.description import Description
from tests.contract.suite import SECRET, World
from tests.support.clock import HandMovedClock
from zapwatch.gateways.base import Calls, GatewayError, GatewayResponse
from zapwatch.messages.message import Wanted

Exchange = tuple[str, str, object, GatewayResponse]

# What the parts that we have of the documents do not describe.
_ELSEWHERE = {
    "waha": ("/api/contacts/", "/api/sendText", "/api/loja/chats/", "/api/loja/auth/request-code"),
    "waha-2026.7": (),
    # It tells of a refusal only.
    "wppconnect-server": ("/api/loja/send-message", "/socket.io/"),
    "gowa": ("/chats?", "/chat/"),
}


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """Note all that adapters ask, and what comes back."""
    noted: list[Exchange] = []
    original: Callable[..., GatewayResponse] = Calls.send

    def noting(
        calls: Calls, method: str, path: str, body: object = None, **options: Any
    ) -> GatewayResponse:
        answer = original(calls, method, path, body, **options)
        noted.append((method, path, body, answer))
        return answer

    monkeypatch.setattr(Calls, "send", noting)
    return noted


def _do_everything(world: World) -> None:
    gateway, simulator, server = world.gateway, world.simulator, world.server.gateway
    simulator.put_channel("loja", reconnect_seconds=1, qr_seconds=180)
    channel = world.channel()
    world.another(messages="activity").list_channels()
    gateway.query(channel)
    server.births.bear(SimulatedMessage("loja", outgoing=False, kind="image"))
    for engine in ("NOWEB", "WEBJS"):
        simulator.put_channel("loja", engine=engine)
        received = gateway.received(channel, Wanted(0.0, world.clock.time(), events=True))
        for event in received.events.values():
            gateway.with_media(channel, event)
    message_id = gateway.send_text(channel, "5500000000001", "hello")
    if gateway.can_take_back:
        gateway.take_back(channel, "5500000000001", str(message_id))
    for happen in (simulator.drop, simulator.zombie, simulator.flap, simulator.unpair):
        happen("loja")
        listed = world.channel()
        with suppress(GatewayError):  # one has no call for a zombie
            gateway.reconnect(listed, silent=listed.connected)
        gateway.qr("loja")
        world.clock.forward(1)
    if gateway.can_pair:
        gateway.pairing_code("loja", "5500000000001")
    world.clock.forward(180)  # the code is too old
    gateway.qr("loja")
    gateway.start_session("loja")
    simulator.scan("loja")
    gateway.delete("loja")
    gateway.create("loja")


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [
        ("waha", "waha", 6),
        ("waha", "waha-2026.7", 10),
        ("wppconnect", "wppconnect-server", 9),
        ("whapi", "whapi", 7),
        ("gowa", "gowa", 7),
    ],
)
def test_every_call_and_answer_is_as_described(
    exchanges: list[Exchange], kind: str, name: str, least: int
) -> None:
    described = Description(name)
    clock = HandMovedClock()
    with SimulatorServer(SECRET, api=kind, clock=clock) as server:
        server.gateway.put("Pixel12 Digital/+", {})
        _do_everything(World(kind, server, clock))

    seen = set()
    for method, path, body, answer in exchanges:
        if path.startswith(_ELSEWHERE.get(name, ())):
            continue
        content_type = answer.content_type.partition(";")[0]
        described.check(method, path, body, answer.status, content_type, answer.raw)
        seen.add(described.operation(method, path))
    assert len(seen) >= least, "the calls of a repair are all described"


def test_an_answer_that_is_not_as_described_is_noticed() -> None:
    described = Description("waha")

    def check(method: str, target: str, answer: bytes) -> None:
        described.check(method, target, None, 200, "application/json", answer)

    check("GET", "/api/sessions?all=true", b'[{"name": "loja", "status": "WORKING"}]')
    with pytest.raises(jsonschema_rs.ValidationError):
        check("GET", "/api/sessions?all=true", b'[{"name": "loja", "status": "open"}]')
    for method, target in (
        ("GET", "/api/sessions?every=true"),
        ("PATCH", "/api/sessions?all=true"),
        ("GET", "/api/loja/auth/qr"),
    ):
        with pytest.raises(AssertionError):
            check(method, target, b"[]")
