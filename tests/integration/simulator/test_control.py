"""The simulator's control API: what it shows and what it changes."""

from __future__ import annotations

import pytest
import requests

from demo.simulator.client import Simulator
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET
from tests.support.simulated import Api


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
