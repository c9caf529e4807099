"""The simulator's control API: what it shows and what it changes."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.faults import CATALOGUE, OPERATIONS
from demo.simulator.server import SimulatorServer
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET
from tests.support.simulated import Api


def test_a_new_simulator_is_empty(simulator: Simulator) -> None:
    assert simulator.state() == {
        "channels": [],
        "faults": [],
        "traffic": {
            "seconds": 3.0,
            "paused": False,
            "message_log": False,
            "rounds": 0,
            "messages": 0,
            "last_error": None,
        },
        "webhook": {
            "url": None,
            "repeats": 0,
            "late_seconds": 0.0,
            "flood": 0,
            "megabytes": 0.0,
            "by_events": False,
            "signed": True,
            "answers": {},
        },
        "requests": 0,
    }


def test_a_channel_is_shown_with_all_its_settings(
    simulator: Simulator, clock: HandMovedClock
) -> None:
    made = simulator.put_channel("loja")
    clock.forward(7)

    assert made == {
        "id": "loja",
        "status": "connected",
        "status_seconds": 0.0,
        "zombie": False,
        "deaf": False,
        "number": "5500000000100",
        "alive": True,
        "recovering": False,
        "clients": 1,
        "browser_left": False,
        "name": None,
        "session": "paired",
        "after_start": "paired",
        "start_seconds": 0.0,
        "not_started_http": 200,
        "reconnect_seconds": 2.0,
        "initializing_answers": 0,
        "heals": True,
        "zombie_answer": "connected",
        "qr_field": "qr",
        "qr_form": "base64",
        "status_text": "(as it is)",
        "id_field": "id",
        "qr_seconds": None,
        "integration": "WHATSAPP-BAILEYS",
        "start": "works",
        "whatsapp": "reachable",
        "loaded": True,
        "tells_activity": True,
        "quiet": False,
        "old_core": False,
        "pairing": "issued",
        "code_seconds": None,
        "registered": None,
        "stores": True,
        "engine": "NOWEB",
    }
    assert simulator.channel("loja") == made | {"status_seconds": 7.0}
    assert simulator.channel("nobody") is None


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


def test_a_channel_put_to_a_status_is_no_zombie(simulator: Simulator) -> None:
    simulator.put_channel("loja", zombie=True)

    assert simulator.put_channel("loja", status="connected")["alive"] is True


def test_connecting_an_unpaired_channel_pairs_it(simulator: Simulator) -> None:
    simulator.put_channel("loja", session="unpaired")

    assert simulator.connect("loja")["session"] == "paired"


def test_a_removed_channel_is_gone(simulator: Simulator) -> None:
    simulator.put_channel("loja")

    assert simulator.remove("loja")["id"] == "loja"
    assert simulator.state()["channels"] == []


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


def test_a_slash_at_the_end_of_the_url_does_not_matter(server: SimulatorServer) -> None:
    simulator = Simulator(f"{server.url}/")

    assert simulator.url == server.url
    assert simulator.state()["channels"] == []
