"""What becomes of the simulated gateway's channels over time, on a clock moved by hand."""

from __future__ import annotations

import base64

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
