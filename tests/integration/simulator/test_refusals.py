"""What the simulator's control API refuses: with one clear line, and without changing anything."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests

from demo.simulator.client import Simulator, SimulatorError
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET

_TOO_MUCH = 10**9 + 1
_FAR_TOO_MUCH = 10**400  # more than a float can hold


def _refused(simulator: Simulator, method: str, path: str, **body: Any) -> tuple[int, str]:
    """Make a control call that must be refused, and return its status and its line."""
    before = simulator.state()
    answer = requests.request(method, f"{simulator.url}/sim/{path}", timeout=20, **body)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"success", "error"}
    assert answer.json()["success"] is False
    line = answer.json()["error"]
    assert re.fullmatch("[ -~]+", line), "one line"
    assert simulator.state() == before, "nothing has changed"
    return answer.status_code, line


@pytest.mark.parametrize(
    ("name", "value", "expects"),
    [
        ("name", "", "a non-empty string, or null"),
        ("name", 7, "a non-empty string, or null"),
        ("session", "asleep", "one of paired, unpaired, not_started, dead"),
        ("session", None, "one of paired, unpaired, not_started, dead"),
        ("after_start", "not_started", "one of paired, unpaired, dead"),
        ("start_seconds", -1, "a number from 0 to 1000000000"),
        ("start_seconds", "2", "a number from 0 to 1000000000"),
        ("start_seconds", True, "a number from 0 to 1000000000"),
        ("start_seconds", float("nan"), "a number from 0 to 1000000000"),
        ("reconnect_seconds", float("inf"), "a number from 0 to 1000000000"),
        ("reconnect_seconds", _TOO_MUCH, "a number from 0 to 1000000000"),
        ("reconnect_seconds", _FAR_TOO_MUCH, "a number from 0 to 1000000000"),
        ("not_started_http", 404, "one of 200, 500"),
        ("not_started_http", 200.0, "one of 200, 500"),
        ("initializing_answers", 1.5, "a whole number, 0 or more"),
        ("initializing_answers", -1, "a whole number, 0 or more"),
        ("initializing_answers", True, "a whole number, 0 or more"),
        ("heals", 1, "true or false"),
        ("heals", "true", "true or false"),
        ("zombie", None, "true or false"),
        ("zombie_answer", "never", "one of connected, http_500, qr"),
        ("qr_field", "data.image", "one of qr, qr_base64, "),
        ("qr_form", "svg", "one of base64, data_url, http_url"),
        ("id_field", ["id"], "one of id, name, channel_id, none"),
        ("status", "CONNECTED", "one of connected, disconnected, qr_required, initializing"),
    ],
)
def test_an_unfit_setting_of_a_channel_is_refused(
    simulator: Simulator, name: str, value: Any, expects: str
) -> None:
    simulator.put_channel("loja")
    for channel in ("loja", "new"):
        settings = {"id_field": "name"} | {name: value}
        status, line = _refused(simulator, "PUT", f"channels/{channel}", data=json.dumps(settings))

        assert status == 400
        assert line.startswith(f"channel '{channel}': {name} must be {expects}")


@pytest.mark.parametrize(
    ("name", "value", "expects"),
    [
        ("fault", "gremlins", "one of hang, slow, "),
        ("fault", None, "one of hang, slow, "),
        ("times", 0, "a whole number, 1 or more, or null"),
        ("times", 1.5, "a whole number, 1 or more, or null"),
        ("channel", "", "a non-empty string, or null"),
        ("seconds", -0.1, "a number from 0 to 1000000000, or null"),
        ("seconds", _TOO_MUCH, "a number from 0 to 1000000000, or null"),
        ("megabytes", 0, "a number above 0, up to 1000000000"),
        ("megabytes", None, "a number above 0, up to 1000000000"),
        ("location", "", "a URL in printable ASCII"),
        ("location", "/a\r\nX-Header: b", "a URL in printable ASCII"),
        ("location", "/é", "a URL in printable ASCII"),
        ("location", 7, "a URL in printable ASCII"),
        ("effect", "yes", "true or false"),
    ],
)
def test_an_unfit_setting_of_a_fault_is_refused(
    simulator: Simulator, name: str, value: Any, expects: str
) -> None:
    spec = {"fault": "redirect"} | {name: value}

    status, line = _refused(simulator, "PUT", "faults/list", json=spec)

    assert status == 400
    assert line.startswith(f"fault of list: {name} must be {expects}")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"seconds": 0}, "traffic: seconds must be a number above 0, up to 1000000000"),
        ({"seconds": None}, "traffic: seconds must be a number above 0, up to 1000000000"),
        ({"seconds": _TOO_MUCH}, "traffic: seconds must be a number above 0, up to 1000000000"),
        ({"seconds": _FAR_TOO_MUCH}, "traffic: seconds must be a number above 0, up to 1000000000"),
        ({"paused": 1}, "traffic: paused must be true or false"),
        ({"pace": 1}, "traffic: unknown setting 'pace'; known are paused, seconds"),
    ],
)
def test_an_unfit_setting_of_the_traffic_is_refused(
    simulator: Simulator, values: Any, line: str
) -> None:
    assert _refused(simulator, "PUT", "traffic", json=values) == (400, line)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "line"),
    [
        ("PUT", "channels/loja", "[]", 400, "channel 'loja': the body must be a JSON object"),
        ("PUT", "channels/loja", "{oops", 400, "channel 'loja': the body must be a JSON object"),
        ("PUT", "channels/loja", b"\xff", 400, "channel 'loja': the body must be a JSON object"),
        ("PUT", "faults/list", "null", 400, "fault of list: the body must be a JSON object"),
        ("PUT", "faults/list", "{}", 400, "fault of list: the setting 'fault' is missing"),
        ("PUT", "traffic", "", 400, "traffic: the body must be a JSON object"),
        (
            *("PUT", "faults/qr", '{"fault": "empty_list"}', 400),
            "fault empty_list is only for list",
        ),
        ("PUT", "faults/qr", '{"fault": "slow", "x": 1}', 400, "fault of qr: unknown setting 'x'"),
        (
            "PUT",
            "channels/a",
            '{"session ": "dead"}',
            400,
            "channel 'a': unknown setting 'session ",
        ),
        ("PUT", "faults/fly", '{"fault": "slow"}', 404, "unknown operation 'fly'; known are list,"),
        ("DELETE", "faults/fly", "", 404, "unknown operation 'fly'; known are list, qr,"),
        ("POST", "channels/nobody/drop", "", 404, "there is no channel 'nobody'"),
        ("POST", "channels/nobody/remove", "", 404, "there is no channel 'nobody'"),
        (
            *("POST", "channels/loja/explode", "", 404),
            "unknown action 'explode'; known are drop, zombie, deafen, flap, unpair, scan,",
        ),
        ("PUT", "channels/", "{}", 404, "Not Found"),
        ("GET", "nothing", "", 404, "Not Found"),
        ("PATCH", "traffic", "", 405, "Method Not Allowed"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    simulator: Simulator, method: str, path: str, body: str | bytes, status: int, line: str
) -> None:
    simulator.put_channel("loja")

    refused = _refused(simulator, method, path, data=body)

    assert refused[0] == status
    assert refused[1].startswith(line)


@pytest.mark.parametrize("before", ["connected", "disconnected", "initializing"])
def test_only_a_qr_code_that_is_shown_can_be_scanned(simulator: Simulator, before: Any) -> None:
    simulator.put_channel("loja", status=before)

    assert _refused(simulator, "POST", "channels/loja/scan") == (
        409,
        "scan: no QR code of channel 'loja' is waiting to be scanned",
    )


def test_a_refused_call_raises_the_simulators_own_line(simulator: Simulator) -> None:
    with pytest.raises(SimulatorError, match=r"^there is no channel 'nobody'$"):
        simulator.drop("nobody")
    with pytest.raises(SimulatorError, match=r"^unknown operation 'fly'; known are list"):
        simulator.clear_faults("fly")
    with pytest.raises(SimulatorError, match=r"^traffic: seconds must be a number above 0"):
        simulator.traffic(seconds=0)


def test_a_call_that_cannot_be_made_raises_a_request_exception() -> None:
    with SimulatorServer(SECRET) as server:
        simulator = Simulator(server.url)

    with pytest.raises(requests.ConnectionError):
        simulator.state()
