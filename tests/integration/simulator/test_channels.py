"""What becomes of the simulated gateway's channels over time, on a clock moved by hand."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from demo.simulator.client import Simulator
from tests.support.clock import HandMovedClock
from tests.support.simulated import CONNECTED, PNG, Api

_INITIALIZING = {"success": True, "qr": None, "status": "INITIALIZING"}


def test_a_dropped_channel_comes_back_when_it_was_asked_and_had_its_time(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", reconnect_seconds=10, initializing_answers=2)
    simulator.drop("loja")
    clock.forward(3600)
    assert api.statuses() == {"loja": "disconnected"}, "not by itself"

    assert api.qr("loja") == _INITIALIZING
    assert api.statuses() == {"loja": "initializing"}
    clock.forward(5)
    assert api.qr("loja") == _INITIALIZING, "another call does not begin another attempt"
    assert api.qr("loja") == CONNECTED, "it believes so before the list does"
    clock.forward(4.9)
    assert api.statuses() == {"loja": "initializing"}
    clock.forward(0.2)
    assert api.statuses() == {"loja": "connected"}

    state = simulator.channel("loja")
    assert state is not None
    assert (state["alive"], state["recovering"], state["status_seconds"]) == (True, False, 0.1)
    simulator.drop("loja")
    assert api.qr("loja") == _INITIALIZING, "the next drop begins anew"


def test_a_zombie_heals_when_it_was_asked_and_had_its_time(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", reconnect_seconds=10)
    simulator.zombie("loja")
    clock.forward(3600)
    assert simulator.state()["channels"][0]["alive"] is False, "not by itself"

    assert api.qr("loja") == CONNECTED
    assert api.statuses() == {"loja": "connected"}
    clock.forward(9.9)
    assert api.qr("loja") == CONNECTED
    assert simulator.state()["channels"][0]["zombie"] is True
    clock.forward(0.2)
    healed = simulator.state()["channels"][0]
    assert (healed["zombie"], healed["alive"], healed["recovering"]) == (False, True, False)


def test_a_zombie_that_does_not_heal_never_heals(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", reconnect_seconds=10, heals=False, zombie=True)

    assert api.qr("loja") == CONNECTED
    clock.forward(3600)
    assert api.qr("loja") == CONNECTED
    assert simulator.state()["channels"][0]["zombie"] is True
    assert simulator.connect("loja")["alive"] is True


def test_a_zombie_of_an_older_wrapper_answers_500_and_heals_all_the_same(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", zombie=True, zombie_answer="http_500")

    answer = api("GET", "channels/loja/qr")

    assert answer.status_code == 500
    assert answer.json() == {
        "success": False,
        "error": "Invalid QR code response from server",
    }
    clock.forward(2)
    assert api.qr("loja") == CONNECTED
    assert simulator.state()["channels"][0]["alive"] is True


def test_a_zombie_that_lost_its_pairing_shows_a_qr_code(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", zombie=True, zombie_answer="qr")

    assert base64.b64decode(api.qr("loja")["qr"]).startswith(PNG)
    clock.forward(3600)
    assert api.statuses() == {"loja": "qr_required"}
    state = simulator.state()["channels"][0]
    assert (state["zombie"], state["session"]) == (False, "unpaired"), "now it is known to be gone"
    assert api.qr("loja")["qr"]
    assert simulator.scan("loja")["alive"] is True


def test_an_unpaired_channel_waits_for_somebody_to_scan(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", initializing_answers=1)
    assert simulator.unpair("loja")["status"] == "disconnected"

    assert api.qr("loja") == _INITIALIZING
    assert api.qr("loja")["qr"]
    clock.forward(3600)
    assert api.statuses() == {"loja": "qr_required"}
    assert simulator.scan("loja")["alive"] is True
    assert api.statuses() == {"loja": "connected"}
    assert api.qr("loja") == CONNECTED
    simulator.drop("loja")
    api.qr("loja")
    clock.forward(2)
    assert api.statuses() == {"loja": "connected"}, "scanning has paired it"


@pytest.mark.parametrize("http", [200, 500])
def test_a_session_that_was_not_started_wants_start_session_first(
    simulator: Simulator, api: Api, clock: HandMovedClock, http: Any
) -> None:
    simulator.put_channel("loja", session="not_started", start_seconds=2, not_started_http=http)

    answer = api("GET", "channels/loja/qr")
    assert answer.status_code == http
    assert answer.json() == {
        "success": False,
        "error": "Session not started. Use POST /api/channels/{id}/start-session",
    }
    clock.forward(60)
    assert api.statuses() == {"loja": "disconnected"}
    assert api.start_session("loja") == {"success": True, "message": "The session is starting"}
    clock.forward(1.9)
    api.start_session("loja")
    assert api("GET", "channels/loja/qr").status_code == http, "not yet"
    clock.forward(0.2)
    assert api.qr("loja") == CONNECTED, "starting twice takes no longer"
    clock.forward(2)
    assert api.statuses() == {"loja": "connected"}
    simulator.drop("loja")
    assert "start-session" in api.qr("loja")["error"], "the next drop stops it again"


def test_a_dead_session_is_asked_in_vain(
    simulator: Simulator, api: Api, clock: HandMovedClock
) -> None:
    simulator.put_channel("loja", session="dead")

    for _ in range(3):
        assert api.qr("loja") == CONNECTED
        clock.forward(3600)
        assert api.statuses() == {"loja": "disconnected"}
