"""The simulated gateway carries messages between its channels, and tells where they are born."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.hooks import SECRET
from tests.support.simulated import Api
from tests.support.waiting import wait_until

_WORDS = "Zapwatch asks: are you there?"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def server(file: Path) -> Iterator[SimulatorServer]:
    engine = open_message_log(f"sqlite:///{file}")
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=3600) as running:
        yield running


@pytest.fixture
def simulator(server: SimulatorServer) -> Simulator:
    simulator = Simulator(server.url)
    simulator.traffic(paused=True)
    for channel in ("loja", "obra"):
        simulator.put_channel(channel)
    return simulator


@pytest.fixture
def born(server: SimulatorServer) -> list[SimulatedMessage]:
    messages: list[SimulatedMessage] = []
    server.gateway.births.listen(messages.append)
    return messages


def _send(simulator: Simulator, channel: str, to: str) -> Any:
    body = {"channel": channel, "to": to, "text": _WORDS}
    return Api(simulator.url)("POST", "messages", json=body)


def _told(born: list[SimulatedMessage]) -> list[tuple[str, bool, bool]]:
    return [(one.channel, one.outgoing, one.by_api) for one in born]


def test_what_one_channel_sends_arrives_at_the_channel_with_that_number(
    simulator: Simulator, born: list[SimulatedMessage]
) -> None:
    answer = _send(simulator, "loja", simulator.number("obra"))

    assert answer.status_code == 200
    assert _told(born) == [("loja", True, True), ("obra", False, False)]
    assert answer.json() == {"success": True, "id": born[0].id}
    assert born[0].id == born[1].id
    assert (born[1].sender, born[1].words) == (simulator.number("loja"), _WORDS)


def test_both_ends_are_in_the_log_while_the_traffic_of_people_rests(
    simulator: Simulator, file: Path
) -> None:
    _send(simulator, "loja", simulator.number("obra"))

    engine = open_message_log(f"sqlite:///{file}")
    query = text("SELECT event_type, payload_json FROM webhook_raw_logs ORDER BY id")

    def rows() -> list[tuple[str, str]]:
        with engine.connect() as connection:
            return [
                (row.event_type, row.payload_json)
                for row in connection.execute(query)
                if _WORDS in row.payload_json
            ]

    wait_until(lambda: len(rows()) == 2, 20, "both rows")
    (sent, _), (_, arrived) = rows()
    engine.dispose()
    assert sent == "message.sent", "as the wrapper writes it by itself"
    assert "obra" in arrived
    assert '"fromMe": true' not in json.dumps(json.loads(arrived))


@pytest.mark.parametrize(
    ("state", "at_sender", "at_receiver"),
    [("zombie", False, False), ("deafen", True, False), ("drop", False, False)],
)
def test_a_dead_socket_carries_nothing_and_a_deaf_one_only_sends(
    simulator: Simulator,
    born: list[SimulatedMessage],
    state: str,
    at_sender: bool,
    at_receiver: bool,
) -> None:
    getattr(simulator, state)("loja")

    answer = _send(simulator, "loja", simulator.number("obra"))
    assert answer.json()["success"] is at_sender
    assert (("obra", False, False) in _told(born)) is at_sender

    born.clear()
    assert _send(simulator, "obra", simulator.number("loja")).json()["success"] is True
    assert (("loja", False, False) in _told(born)) is at_receiver


def test_a_number_of_nobody_is_sent_to_all_the_same(
    simulator: Simulator, born: list[SimulatedMessage]
) -> None:
    assert _send(simulator, "loja", "5500000000001").json()["success"] is True
    assert _told(born) == [("loja", True, True)]
