"""What the simulator's control API refuses: with one clear line, and without changing anything."""

from __future__ import annotations

import json
import re
from typing import Any

import requests

from demo.simulator.client import Simulator

_TOO_MUCH = 10**9 + 1
_FAR_TOO_MUCH = 10**400  # more than a float can hold
_CHANNEL = "channel 'loja': "
_TRAFFIC = "traffic: seconds must be a number above 0, up to 1000000000"

# Of each kind of setting, values of the wrong type and just outside.
_SETTINGS: list[tuple[str, Any, str]] = [
    ("name", "", "a non-empty string, or null"),
    ("name", 7, "a non-empty string, or null"),
    ("session", None, "one of paired, unpaired, not_started, dead"),
    ("start_seconds", -1, "a number from 0 to 1000000000"),
    ("start_seconds", "2", "a number from 0 to 1000000000"),
    ("start_seconds", True, "a number from 0 to 1000000000"),
    ("start_seconds", float("nan"), "a number from 0 to 1000000000"),
    ("reconnect_seconds", _TOO_MUCH, "a number from 0 to 1000000000"),
    ("reconnect_seconds", _FAR_TOO_MUCH, "a number from 0 to 1000000000"),
    ("not_started_http", 200.0, "one of 200, 500"),
    ("initializing_answers", 1.5, "a whole number, 0 or more"),
    ("initializing_answers", True, "a whole number, 0 or more"),
    ("heals", 1, "true or false"),
    ("id_field", ["id"], "one of id, name, channel_id, none"),
]
_FAULT_SETTINGS: list[tuple[str, Any, str]] = [
    ("fault", None, "one of hang, slow, "),
    ("times", 0, "a whole number, 1 or more, or null"),
    ("channel", "", "a non-empty string, or null"),
    ("seconds", _TOO_MUCH, "a number from 0 to 1000000000, or null"),
    ("megabytes", None, "a number above 0, up to 1000000000"),
    ("location", "/a\r\nX-Header: b", "a URL in printable ASCII"),
    ("effect", "yes", "true or false"),
]
_CALLS: list[tuple[str, str, str | bytes, int, str]] = [
    ("PUT", "traffic", '{"seconds": 0}', 400, _TRAFFIC),
    ("PUT", "traffic", f'{{"seconds": {_FAR_TOO_MUCH}}}', 400, _TRAFFIC),
    ("PUT", "traffic", '{"paused": 1}', 400, "traffic: paused must be true or false"),
    ("PUT", "traffic", '{"pace": 1}', 400, "traffic: unknown setting 'pace'; known are paused, "),
    ("PUT", "traffic", "", 400, "traffic: the body must be a JSON object"),
    ("PUT", "channels/loja", "{oops", 400, f"{_CHANNEL}the body must be a JSON object"),
    ("PUT", "channels/loja", b"\xff", 400, f"{_CHANNEL}the body must be a JSON object"),
    ("PUT", "channels/loja", '{"session ": "dead"}', 400, f"{_CHANNEL}unknown setting 'session "),
    ("PUT", "faults/list", "{}", 400, "fault of list: the setting 'fault' is missing"),
    ("PUT", "faults/qr", '{"fault": "empty_list"}', 400, "fault empty_list is only for list"),
    ("PUT", "faults/qr", '{"fault": "slow", "x": 1}', 400, "fault of qr: unknown setting 'x'"),
    ("PUT", "faults/fly", '{"fault": "slow"}', 404, "unknown operation 'fly'; known are list,"),
    ("DELETE", "faults/fly", "", 404, "unknown operation 'fly'; known are list, qr,"),
    ("POST", "channels/nobody/drop", "", 404, "there is no channel 'nobody'"),
    ("POST", "channels/loja/explode", "", 404, "unknown action 'explode'; known are drop, zombie,"),
    ("POST", "channels/loja/scan", "", 409, "scan: no QR code of channel 'loja' is waiting"),
    ("GET", "nothing", "", 404, "Not Found"),
    ("PATCH", "traffic", "", 405, "Method Not Allowed"),
]


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


def test_an_unfit_setting_is_refused(simulator: Simulator) -> None:
    simulator.put_channel("loja")
    for name, value, expects in _SETTINGS:
        body = json.dumps({"id_field": "name"} | {name: value})
        for channel in ("loja", "new"):
            status, line = _refused(simulator, "PUT", f"channels/{channel}", data=body)
            assert status == 400
            assert line.startswith(f"channel '{channel}': {name} must be {expects}")
    for name, value, expects in _FAULT_SETTINGS:
        status, line = _refused(
            simulator, "PUT", "faults/list", json={"fault": "redirect"} | {name: value}
        )
        assert status == 400
        assert line.startswith(f"fault of list: {name} must be {expects}")


def test_a_call_that_makes_no_sense_is_refused(simulator: Simulator) -> None:
    simulator.put_channel("loja")
    for method, path, body, status, line in _CALLS:
        refused = _refused(simulator, method, path, data=body)
        assert refused[0] == status
        assert refused[1].startswith(line)
