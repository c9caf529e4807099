"""What tests and demonstration take for granted of the simulated gateway.

How its channels and faults look shows in what the adapters make of them: contract/suite.py,
test_gateway.py, test_repair.py and test_wrapper_answers.py.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text

from demo.configuration import ROOT
from demo.simulator.client import Simulator, SimulatorError
from demo.simulator.payloads import PLACES
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.hooks import SECRET
from tests.support.waiting import wait_until
from zapwatch.gateways.waha import WahaGateway

_MESSAGES = {"message", "onmessage", "onselfmessage", "message.sent", "message.received"}
_LISTENING = "simulator listening on "
_OFTEN = 0.01
_ROUNDS = 20


def _list(simulator: Simulator, secret: str = SECRET, timeout: float = 20) -> requests.Response:
    return requests.get(
        f"{simulator.url}/api/channels", headers={"X-Gateway-Secret": secret}, timeout=timeout
    )


def test_a_fault_stays_for_so_many_calls_with_the_right_secret(simulator: Simulator) -> None:
    simulator.fault("list", "http_500_json", times=2)
    assert _list(simulator, "wrong").status_code == 401, "the secret comes first"
    assert [_list(simulator).status_code for _ in range(3)] == [500, 500, 200]
    simulator.fault("list", "html_504", times=1)
    assert _list(simulator, "wrong").status_code == 504, "a proxy comes before the gateway"
    noted = [(call["fault"], call["secret_right"]) for call in simulator.requests("list")]
    own = ("http_500_json", True)
    assert noted == [(None, False), own, own, (None, True), ("html_504", False)]


def test_a_redirect_leads_to_where_the_secret_is_noted(simulator: Simulator) -> None:
    simulator.fault("list", "redirect")
    assert _list(simulator).json() == {"success": True, "channels": [], "total": 0}
    requests.get(f"{simulator.url}/sim/elsewhere", timeout=20)
    noted = [call["secret_right"] for call in simulator.requests("elsewhere")]
    assert noted == [True, False]


def test_what_makes_no_sense_is_refused_and_changes_nothing(simulator: Simulator) -> None:
    simulator.put_channel("loja")
    before = simulator.state()
    calls: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: simulator.put_channel("loja", sessoin="dead"), "unknown setting 'sessoin'"),
        (lambda: simulator.put_channel("loja", session="deed"), "session must be one of paired,"),
        (lambda: simulator.fault("qr", "empty_list"), "there is no such fault"),
        (lambda: simulator.fault("fly", "slow"), "unknown operation 'fly'"),
        (lambda: simulator.webhook(adress="x"), "unknown setting 'adress'"),
        (lambda: simulator.scan("loja"), "no QR code"),
        (lambda: simulator.drop("nobody"), "there is no channel 'nobody'"),
    )
    for call, line in calls:
        with pytest.raises(SimulatorError, match=line):
            call()
    assert simulator.state() == before


def _named(payload: str) -> list[tuple[str, str]]:
    """Return every place of the contract in which a payload names a channel, with that name."""
    found = []
    for place in PLACES:
        value: Any = json.loads(payload)
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append((place, value))
    return found


def _rows(log: Engine) -> list[dict[str, Any]]:
    with log.connect() as connection:
        return [
            dict(row)
            for row in connection.execute(text("SELECT * FROM webhook_raw_logs")).mappings()
        ]


def _has_rounds(simulator: Simulator, count: int) -> bool:
    return bool(simulator.state()["traffic"]["rounds"] >= count)


def test_each_round_writes_one_message_of_each_living_channel(tmp_path: Path) -> None:
    log = open_message_log(f"sqlite:///{tmp_path}/messages.db")
    with SimulatorServer(SECRET, message_log=log, traffic_seconds=3600) as server:
        simulator = Simulator(server.url)
        wait_until(partial(_has_rounds, simulator, 1), "the first round, of no channel")
        channels: dict[str, dict[str, Any]] = {
            "Pixel12 Digital": {},
            "São João ☎": {},
            "silent": {"zombie": True},
            "calm": {"quiet": True},
            "dropped": {"status": "disconnected"},
            "waiting": {"status": "qr_required"},
        }
        for name, state in channels.items():
            simulator.put_channel(name, **state)
        for number in range(_ROUNDS):
            simulator.traffic(seconds=3600)
            wait_until(partial(_has_rounds, simulator, number + 2), "a round")
        messages: Counter[str] = Counter()
        others: Counter[str] = Counter()
        for row in _rows(log):
            ((_, channel),) = _named(row["payload_json"])
            kind = messages if row["event_type"] in _MESSAGES else others
            kind[channel.lower().replace(" ", "")] += 1
        alive = {"pixel12digital": _ROUNDS, "sãojoão☎": _ROUNDS}
        assert messages == alive
        assert others == alive | {"silent": _ROUNDS, "calm": _ROUNDS}, "these prove nothing"


def test_messages_vary_as_they_do_in_the_field_once_there_is_a_database(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    log = open_message_log(f"sqlite:///{folder}/messages.db")
    with SimulatorServer(SECRET, message_log=log, traffic_seconds=_OFTEN) as server:
        simulator = Simulator(server.url)
        simulator.put_channel("Pixel12 Digital")
        wait_until(partial(_has_rounds, simulator, 2), "rounds without a database")
        assert simulator.state()["traffic"]["last_error"] == "OperationalError"
        folder.mkdir()
        wait_until(lambda: simulator.state()["traffic"]["messages"], "messages")

        def seen() -> tuple[set[str], set[str], set[str]]:
            rows = [row for row in _rows(log) if row["event_type"] in _MESSAGES]
            named = [_named(row["payload_json"])[0] for row in rows]
            places, names = {place for place, _ in named}, {name for _, name in named}
            return {row["event_type"] for row in rows}, places, names

        names = {"Pixel12 Digital", "pixel12digital"}
        wait_until(lambda: seen() == (_MESSAGES, set(PLACES), names), "every kind and place")


def test_as_a_program_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    file = tmp_path / "messages.db"
    arguments = ("--api", "waha", "--listen", "localhost:0", "--message-log", f"sqlite:///{file}")
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.simulator", *arguments, "--traffic-seconds", "0.01"],
        cwd=ROOT,
        env=os.environ | {"SIMULATOR_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith(f"{_LISTENING}http://localhost:")
        simulator = Simulator(line.removeprefix(_LISTENING).rstrip("\n"))
        simulator.put_channel("loja")
        gateway = WahaGateway(simulator.url, SECRET)
        assert [channel.id for channel in gateway.list_channels().channels] == ["loja"]
        gateway.close()
        wait_until(lambda: simulator.state()["traffic"]["messages"] >= 3, "messages")
        simulator.fault("list", "hang")
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{simulator.url}/api/sessions?all=true", timeout=0.3)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0
    with closing(sqlite3.connect(file)) as log:
        assert log.execute("SELECT count(*) FROM webhook_raw_logs").fetchone()[0] >= 3
