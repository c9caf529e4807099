"""Every fault of the simulated gateway's catalogue shows what it says, and only where it should."""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from demo.simulator.client import Simulator, SimulatorError
from demo.simulator.faults import CATALOGUE
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET
from tests.support.simulated import CONNECTED, Api, Background
from tests.support.waiting import wait_until
from zapwatch.clock import Clock

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_LOJA = {"id": "loja", "name": "loja", "status": "connected"}
_STRAY = {"id": "stray", "status": "connected"}
_HELD_SECONDS = 3600  # of a fault that the test releases

# The fault, the calls that can have it, its status, and its body as JSON.
_GATEWAY_FAULTS: list[tuple[str, str, int, Any]] = [
    ("unauthorized", "all", 401, {"success": False, "error": "Unauthorized: wrong gateway secret"}),
    ("not_found", "all", 404, {"success": False, "error": "Channel not found"}),
    ("http_500_json", "all", 500, {"success": False, "error": "Internal server error"}),
    ("success_false_text", "all", 200, {"success": False, "error": "WPPConnect does not answer"}),
    (
        "success_false_object",
        "all",
        200,
        {"success": False, "error": {"code": "ECONNREFUSED", "message": "WPPConnect is away"}},
    ),
    ("success_false_bare", "all", 200, {"success": False}),
    ("wrong_shape_list", "all", 200, [_STRAY]),
    ("wrong_shape_number", "all", 200, 42),
    ("wrong_shape_string", "all", 200, "connected"),
    ("wrong_shape_null", "all", 200, None),
    (
        "wrong_shape_nested",
        "all",
        200,
        {"success": True, "channels": {"id": "stray"}, "qr": {"code": 1}, "data": 7, "status": []},
    ),
    ("empty_list", "list", 200, {"success": True, "channels": [], "total": 0}),
    ("data_channels", "list", 200, {"success": True, "data": {"channels": [_LOJA], "total": 1}}),
    (
        "entries_without_id",
        "list",
        200,
        {
            "success": True,
            "channels": [
                {"status": "connected"},
                _LOJA,
                {"id": None, "name": None, "status": "connected"},
                {"id": "", "status": "disconnected"},
                {},
            ],
            "total": 5,
        },
    ),
    (
        "entries_not_objects",
        "list",
        200,
        {"success": True, "channels": [None, _LOJA, "stray", 7, ["stray"], True], "total": 6},
    ),
    (
        "invalid_qr",
        "qr",
        500,
        {"success": False, "error": "Invalid QR code response from server"},
    ),
]
# The fault, its status, its content type, and a part of its body that tells it from others.
_PROXY_FAULTS = [
    ("html_502", 502, _HTML, b"<h1>502 Bad Gateway</h1>"),
    ("html_504", 504, _HTML, b"<h1>504 Gateway Time-out</h1>"),
    ("html_200", 200, _HTML, b"<h1>Please log in</h1>"),
    ("empty_body", 200, _JSON, b""),
    ("not_json", 200, _JSON, b'{"success": true, "channels": [oops'),
    ("invalid_utf8", 200, _JSON, b'"status": "\xff\xfe"'),
]
_NETWORK_FAULTS = {"hang", "slow", "drip", "reset", "truncated", "huge", "redirect"}
_MESSAGE_FAULTS = {"id_as_messageId", "id_as_message_id", "without_id"}  # test_simulator_messages
_LISTING_FAULTS = {"chat_not_open"}  # contract/test_received
_CALLS = {
    "list": ("GET", "channels"),
    "qr": ("GET", "channels/loja/qr"),
    "start_session": ("POST", "channels/loja/start-session"),
    "delete": ("DELETE", "channels/loja"),
    "create": ("POST", "channels"),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def simulator(server: SimulatorServer) -> Simulator:
    control = Simulator(server.url)
    control.put_channel("loja")
    return control


def _connect(api: Api, path: str) -> socket.socket:
    address = urlsplit(api.url)
    assert address.hostname
    assert address.port
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    head = f"GET /api/{path} HTTP/1.1\r\nHost: gateway\r\nX-Gateway-Secret: {SECRET}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def test_these_are_all_faults_there_are() -> None:
    tested = [one[0] for one in (*_GATEWAY_FAULTS, *_PROXY_FAULTS)]

    elsewhere = [*_NETWORK_FAULTS, *_MESSAGE_FAULTS, *_LISTING_FAULTS]
    assert sorted([*tested, *elsewhere]) == sorted(CATALOGUE)


@pytest.mark.parametrize(("fault", "where", "status", "body"), _GATEWAY_FAULTS)
def test_a_fault_of_the_gateway_shows_what_it_says(
    simulator: Simulator, api: Api, fault: str, where: str, status: int, body: Any
) -> None:
    for operation, call in _CALLS.items():
        if where in {"all", operation}:
            simulator.fault(operation, fault)

            answer = api(*call)

            assert answer.status_code == status
            assert answer.headers["Content-Type"] == _JSON
            assert answer.json() == body
            assert simulator.requests(operation)[-1]["fault"] == fault
            assert api(*call, "wrong").json()["error"] == "Unauthorized: wrong gateway secret"
            assert simulator.requests(operation)[-1]["fault"] is None, "the secret comes first"
        else:
            with pytest.raises(SimulatorError, match=f"fault {fault} is only for {where}"):
                simulator.fault(operation, fault)
    assert simulator.state()["channels"][0]["status"] == "connected", "nothing was done"


@pytest.mark.parametrize(("fault", "status", "content_type", "part"), _PROXY_FAULTS)
@pytest.mark.parametrize("secret", [SECRET, "wrong"])
def test_a_fault_of_a_proxy_shows_what_it_says_whatever_the_secret(
    simulator: Simulator,
    api: Api,
    secret: str,
    fault: str,
    status: int,
    content_type: str,
    part: bytes,
) -> None:
    for operation, call in _CALLS.items():
        simulator.fault(operation, fault)

        answer = api(*call, secret)

        assert answer.status_code == status
        assert answer.headers["Content-Type"] == content_type
        assert part in answer.content
        assert bool(part) == bool(answer.content)
        with pytest.raises(ValueError):
            json.loads(answer.content)
        noted = simulator.requests(operation)[-1]
        assert (noted["fault"], noted["status"]) == (fault, status)
    assert [one["id"] for one in simulator.state()["channels"]] == ["loja"], "nothing was done"


@pytest.mark.parametrize("secret", [SECRET, "wrong"])
@pytest.mark.parametrize("operation", _CALLS)
def test_reset_breaks_the_connection_without_an_answer(
    simulator: Simulator, api: Api, operation: str, secret: str
) -> None:
    simulator.fault(operation, "reset")

    with pytest.raises(requests.ConnectionError):
        api(*_CALLS[operation], secret)

    (noted,) = simulator.requests()
    assert (noted["fault"], noted["status"]) == ("reset", None)


def test_reset_is_a_reset_and_not_an_end(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "reset")

    with _connect(api, "channels") as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_hang_answers_as_usual_once_it_is_released(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "hang")
    call = Background(api, *_CALLS["list"])
    wait_until(simulator.requests, 20, "the call")
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{api.url}/api/channels", timeout=0.5)
    assert not call.answered
    assert api("GET", "channels/loja/qr").json() == CONNECTED, "other calls are not held up"
    assert simulator.requests("list")[0]["status"] is None

    simulator.clear_faults("list")

    assert call.answer().json()["channels"] == [_LOJA]
    assert simulator.requests("list")[0]["status"] == 200


def test_hang_notices_that_the_client_has_gone(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "hang")
    with _connect(api, "channels"):
        wait_until(simulator.requests, 20, "the call")
        assert simulator.requests()[0]["seconds"] is None

    ended = wait_until(
        lambda: [call for call in simulator.requests() if call["seconds"] is not None],
        20,
        "the end of the call",
    )

    assert ended[0]["status"] is None, "it was never answered"


def test_slow_answers_as_usual_but_later(simulator: Simulator, api: Api) -> None:
    simulator.fault("qr", "slow", seconds=0.3)
    begun = time.monotonic()

    answer = api("GET", "channels/loja/qr")

    assert time.monotonic() - begun >= 0.3
    assert answer.json() == CONNECTED
    assert simulator.requests()[0]["seconds"] >= 0.3
    assert api("GET", "channels/loja/qr", "wrong").status_code == 401


def test_slow_takes_5_seconds_and_drip_1_unless_told_otherwise(simulator: Simulator) -> None:
    assert simulator.fault("list", "slow")["seconds"] == 5.0
    assert simulator.fault("list", "drip")["seconds"] == 1.0
    assert simulator.fault("list", "html_504")["seconds"] == 0.0


def test_any_answer_can_be_held_back(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "html_504", seconds=_HELD_SECONDS)
    call = Background(api, *_CALLS["list"])
    wait_until(simulator.requests, 20, "the call")
    assert not call.answered

    simulator.clear_faults()

    assert call.answer().status_code == 504


def test_drip_sends_byte_after_byte_without_end(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "drip", seconds=0.01)
    begun = time.monotonic()

    with requests.get(f"{api.url}/api/channels", timeout=20, stream=True) as answer:
        received = list(itertools.islice(answer.iter_content(1), 51))

    assert time.monotonic() - begun >= 0.5
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == _JSON
    assert b"".join(received) == b'{"success": true, "channels": [' + b" " * 20


def test_drip_ends_when_it_is_released(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "drip", seconds=_HELD_SECONDS)
    with requests.get(f"{api.url}/api/channels", timeout=20, stream=True) as answer:
        body = answer.iter_content(1)
        assert next(body) == b"{"
        simulator.clear_faults()
        assert list(body) == []


@pytest.mark.parametrize("operation", _CALLS)
def test_truncated_promises_more_than_it_sends(
    simulator: Simulator, api: Api, operation: str
) -> None:
    simulator.fault(operation, "truncated")

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="1000 more expected"):
        api(*_CALLS[operation])


@pytest.mark.parametrize("megabytes", [0.3, 3])
def test_huge_is_one_json_object_of_that_size(
    simulator: Simulator, api: Api, megabytes: float
) -> None:
    simulator.fault("list", "huge", megabytes=megabytes)

    answer = api("GET", "channels")

    assert answer.json().keys() == {"success", "padding"}
    assert len(answer.json()["padding"]) == int(megabytes * (1 << 20))
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_huge_is_16_megabytes_unless_told_otherwise(simulator: Simulator) -> None:
    assert simulator.fault("list", "huge")["megabytes"] == 16.0


def test_redirect_leads_to_where_the_secret_is_noted(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "redirect", times=2)

    answer = api("GET", "channels", allow_redirects=False)
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["Location"] == "/sim/elsewhere"
    followed = api("GET", "channels")

    assert followed.json() == {"success": True, "channels": [], "total": 0}
    (elsewhere,) = simulator.requests("elsewhere")
    assert elsewhere["secret_right"] is True
    requests.post(f"{api.url}/sim/elsewhere", timeout=20)
    assert simulator.requests("elsewhere")[-1]["secret_right"] is False


def test_redirect_leads_where_it_is_told_to(simulator: Simulator, api: Api) -> None:
    simulator.fault("qr", "redirect", location="http://example.invalid/?a=b")

    answer = api("GET", "channels/loja/qr", allow_redirects=False)

    assert answer.headers["Location"] == "http://example.invalid/?a=b"
