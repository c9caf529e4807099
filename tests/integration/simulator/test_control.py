"""The simulator's control API: what it shows and what it changes."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.faults import CATALOGUE, OPERATIONS
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET
from tests.support.simulated import Api


def test_a_setting_changes_itself_only(simulator: Simulator, clock: HandMovedClock) -> None:
    before = simulator.put_channel("loja", reconnect_seconds=7, zombie=True)

    after = simulator.put_channel("loja", name="Loja")

    assert after == before | {"name": "Loja"}
    assert (after["reconnect_seconds"], after["zombie"]) == (7, True)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, "connected"),
        ({"session": "paired"}, "connected"),
        ({"session": "unpaired"}, "disconnected"),
        ({"session": "not_started"}, "disconnected"),
        ({"session": "dead"}, "disconnected"),
        ({"session": "unpaired", "status": "connected"}, "connected"),
        ({"status": "initializing"}, "initializing"),
    ],
)
def test_a_new_channel_is_connected_if_its_session_is_paired(
    simulator: Simulator, settings: Any, status: str
) -> None:
    assert simulator.put_channel("loja", **settings)["status"] == status


@pytest.mark.parametrize(
    ("action", "status", "alive", "session"),
    [
        ("drop", "disconnected", False, "paired"),
        ("zombie", "connected", False, "paired"),
        ("unpair", "disconnected", False, "unpaired"),
        ("connect", "connected", True, "paired"),
    ],
)
def test_an_action_shows_at_once(
    simulator: Simulator, action: str, status: str, alive: bool, session: str
) -> None:
    simulator.put_channel("a/b +☎")
    simulator.put_channel("other")

    after = getattr(simulator, action)("a/b +☎")

    assert (after["status"], after["alive"], after["session"]) == (status, alive, session)
    assert after["zombie"] is (action == "zombie")
    assert simulator.channel("a/b +☎") == after
    assert simulator.state()["channels"][1]["alive"] is True, "of that channel only"


def test_the_journal_tells_what_was_asked_and_when(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("a b")
    clock.forward(5)

    with requests.Session() as session:
        session.headers.update({"X-Gateway-Secret": SECRET, "X-Request-Id": "id-1"})
        session.get(f"{api.url}/api/channels/a%20b/qr?x=y", timeout=20)
    clock.forward(1)
    api("GET", "nothing", "wrong")

    assert simulator.requests() == [
        {
            "number": 1,
            "monotonic": pytest.approx(5005, abs=0.001),
            "epoch": 1_700_005_005.0,
            "method": "GET",
            "path": "/api/channels/a%20b/qr",
            "operation": "qr",
            "channel": "a b",
            "secret_right": True,
            "request_id": "id-1",
            "fault": None,
            "status": 200,
            "seconds": 0.0,
        },
        {
            "number": 2,
            "monotonic": pytest.approx(5006, abs=0.001),
            "epoch": 1_700_005_006.0,
            "method": "GET",
            "path": "/api/nothing",
            "operation": "unknown",
            "channel": None,
            "secret_right": False,
            "request_id": None,
            "fault": None,
            "status": 401,
            "seconds": 0.0,
        },
    ]


def test_the_journal_can_be_read_in_parts_and_forgotten(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("a+b")
    api("GET", "channels")
    api.qr("a+b")
    api.qr("nobody")
    api.start_session("a+b")

    def operations(*which: str | None) -> list[str]:
        return [call["operation"] for call in simulator.requests(*which)]

    assert operations() == ["list", "qr", "qr", "start_session"]
    assert operations("qr") == ["qr", "qr"]
    assert operations(None, "a+b") == ["qr", "start_session"]
    assert operations("qr", "nobody") == ["qr"]
    assert operations("delete") == []
    assert simulator.state()["requests"] == 4, "control calls are not among them"
    simulator.clear_requests()
    assert simulator.requests() == []
    assert simulator.state()["requests"] == 0
    api("GET", "channels")
    assert simulator.requests()[0]["number"] == 5, "numbers are not used again"


def test_no_secret_is_ever_shown(simulator: Simulator, api: Api) -> None:
    api("GET", "channels")
    api("GET", "channels", "another-secret")

    shown = f"{simulator.requests()}{simulator.state()}"

    assert SECRET not in shown
    assert "another-secret" not in shown


def test_the_catalogue_tells_each_fault_and_its_operations(simulator: Simulator) -> None:
    listed = requests.get(f"{simulator.url}/sim/faults", timeout=20).json()

    assert [one["fault"] for one in listed] == list(CATALOGUE)
    assert all(one["what"] for one in listed)
    by_name = {one["fault"]: one["operations"] for one in listed}
    assert by_name["hang"] == list(OPERATIONS)
    assert by_name["empty_list"] == ["list"]
    assert by_name["invalid_qr"] == ["qr"]
