"""The simulator's traffic: rows in the message log, of the channels that are really alive."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.hooks import SECRET
from tests.support.simulated import Api
from tests.support.waiting import wait_until

_MESSAGES = {"message", "onmessage", "onselfmessage", "message.sent", "message.received"}
_PLACES = [
    "sessionId",
    "session.id",
    "session.session",
    "data.session.id",
    "data.session.session",
    "metadata.channel_id",
    "metadata.sessionId",
    "channelId",
    "channel",
    "data.channel",
]
_RARELY = 3600.0
_OFTEN = 0.01
_ROUNDS = 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def log(file: Path) -> Iterator[Engine]:
    engine = open_message_log(f"sqlite:///{file}")
    yield engine
    engine.dispose()


@pytest.fixture
def simulator(file: Path) -> Iterator[Simulator]:
    """Serve with a first round that finds no channel, and no other before a test wants it."""
    engine = open_message_log(f"sqlite:///{file}")
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=_RARELY) as server:
        control = Simulator(server.url)
        _wait_for_rounds(control, 1)
        yield control


def _wait_for_rounds(simulator: Simulator, count: int) -> None:
    wait_until(
        lambda: simulator.state()["traffic"]["rounds"] >= count, f"{count} rounds of traffic"
    )


def _one_round(simulator: Simulator) -> None:
    """Let one round of a traffic at rest follow."""
    rounds = simulator.state()["traffic"]["rounds"]
    simulator.traffic(seconds=_RARELY)
    _wait_for_rounds(simulator, rounds + 1)


def _rows(log: Engine) -> list[dict[str, Any]]:
    with log.connect() as connection:
        found = connection.execute(text("SELECT * FROM webhook_raw_logs ORDER BY id"))
        return [dict(row) for row in found.mappings()]


def _named(payload: str) -> list[tuple[str, str]]:
    """Return every place of the contract in which a payload names a channel, with that name."""
    found = []
    for place in _PLACES:
        value: Any = json.loads(payload)
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append((place, value))
    return found


def test_each_round_writes_one_message_of_each_living_channel(
    simulator: Simulator, log: Engine
) -> None:
    simulator.put_channel("Pixel12 Digital")
    simulator.put_channel("São João ☎")
    simulator.put_channel("silent", zombie=True)
    simulator.put_channel("calm", quiet=True)
    simulator.put_channel("dropped", status="disconnected")
    simulator.put_channel("waiting", status="qr_required")
    simulator.put_channel("starting", status="initializing")

    for _ in range(_ROUNDS):
        _one_round(simulator)

    messages: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for row in _rows(log):
        ((_, channel),) = _named(row["payload_json"])
        kind = messages if row["event_type"] in _MESSAGES else others
        kind[channel.lower().replace(" ", "")] += 1
    alive = {"pixel12digital": _ROUNDS, "sãojoão☎": _ROUNDS}
    assert messages == alive
    assert others == alive | {"silent": _ROUNDS, "calm": _ROUNDS}, "these prove nothing"
    traffic = simulator.state()["traffic"]
    assert (traffic["rounds"], traffic["messages"]) == (1 + _ROUNDS, 2 * _ROUNDS)


def test_messages_vary_as_they_do_in_the_field(simulator: Simulator, log: Engine) -> None:
    simulator.put_channel("Pixel12 Digital")
    simulator.put_channel("silent", zombie=True)
    simulator.traffic(seconds=_OFTEN)

    def seen(what: str) -> set[str]:
        messages = [row for row in _rows(log) if row["event_type"] in _MESSAGES]
        if what == "events":
            return {row["event_type"] for row in messages}
        named = [_named(row["payload_json"])[0] for row in messages]
        return {place if what == "places" else name for place, name in named}

    wait_until(lambda: seen("events") == _MESSAGES, "every kind of message")
    wait_until(lambda: seen("places") == set(_PLACES), "every place")
    assert seen("spellings") == {"Pixel12 Digital", "pixel12digital"}
    texts = [row["payload_json"] for row in _rows(log) if row["event_type"] in _MESSAGES]
    assert any("As I wrote to silent yesterday" in one for one in texts), "a mere mention"
    assert all(400 < len(one) < 2000 for one in texts)


def test_a_channel_that_dies_falls_silent_and_one_that_heals_writes_again(
    simulator: Simulator, log: Engine
) -> None:
    def writes_now() -> bool:
        before = len(_rows(log))
        _one_round(simulator)
        written = [row["event_type"] for row in _rows(log)[before:]]
        return not _MESSAGES.isdisjoint(written)

    simulator.put_channel("loja")
    assert writes_now()
    simulator.zombie("loja")
    assert not writes_now()
    simulator.connect("loja")
    assert writes_now()
    simulator.drop("loja")
    assert not writes_now()
    simulator.put_channel("loja", reconnect_seconds=0)
    Api(simulator.url).qr("loja")
    assert writes_now()
    simulator.remove("loja")
    assert not writes_now()


def test_paused_traffic_writes_nothing(simulator: Simulator, log: Engine) -> None:
    simulator.put_channel("loja")
    paused = simulator.traffic(paused=True)
    simulator.traffic(seconds=_OFTEN)
    threading.Event().wait(0.3)

    assert simulator.state()["traffic"] == paused | {"seconds": _OFTEN}
    assert _rows(log) == []
    assert simulator.traffic(paused=False)["paused"] is False
    wait_until(lambda: _rows(log), "rows")


def test_a_missing_database_is_told_and_does_not_end_the_traffic(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "later"
    engine = open_message_log(f"sqlite:///{folder}/messages.db")
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=_OFTEN) as server:
        simulator = Simulator(server.url)
        simulator.put_channel("loja")
        _wait_for_rounds(simulator, 2)
        assert simulator.state()["traffic"]["last_error"] == "OperationalError"
        assert simulator.state()["traffic"]["messages"] == 0
        assert Api(server.url).statuses() == {"loja": "connected"}

        folder.mkdir()

        wait_until(lambda: simulator.state()["traffic"]["messages"], "messages")
        assert simulator.state()["traffic"]["last_error"] is None
