"""The simulated gateway's faults: when one is met, for how long, and how it looks on the wire.

How each answer of the catalogue looks shows in what the adapters make of it: contract/suite.py,
test_gateway.py and test_wrapper_answers.py.
"""

from __future__ import annotations

import itertools
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET
from tests.support.simulated import CONNECTED, Api, in_background
from tests.support.waiting import wait_until
from zapwatch.clock import Clock

_HELD_SECONDS = 3600  # of a fault that the test releases


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
    connection = socket.create_connection((str(address.hostname), address.port or 0), timeout=20)
    head = f"GET /api/{path} HTTP/1.1\r\nHost: gateway\r\nX-Gateway-Secret: {SECRET}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


class TestWhenItIsMet:
    def test_a_fault_stays_for_so_many_calls_with_the_right_secret(
        self, simulator: Simulator, api: Api
    ) -> None:
        simulator.fault("list", "http_500_json", times=2)
        assert api("GET", "channels", "wrong").status_code == 401, "the secret comes first"
        assert api("GET", "channels/loja/qr").status_code == 200, "of one operation"
        assert [api("GET", "channels").status_code for _ in range(3)] == [500, 500, 200]
        assert simulator.state()["faults"] == []
        noted = [call["fault"] for call in simulator.requests("list")]
        assert noted == [None, "http_500_json", "http_500_json", None]

    def test_a_proxys_fault_comes_before_the_secret(self, simulator: Simulator, api: Api) -> None:
        simulator.fault("delete", "html_504", effect=True)
        assert api("DELETE", "channels/loja", "wrong").status_code == 504
        assert simulator.channel("loja") is not None, "effect is not for a wrong secret"

    def test_a_fault_of_a_channel_goes_before_that_of_all(
        self, simulator: Simulator, api: Api
    ) -> None:
        simulator.put_channel("São João")
        simulator.fault("qr", "html_502")
        simulator.fault("qr", "html_504", channel="São João", times=1)
        for path, status in (
            ("loja", 502),
            ("S%C3%A3o%20Jo%C3%A3o", 504),
            ("S%C3%A3o%20Jo%C3%A3o", 502),
        ):
            assert api("GET", f"channels/{path}/qr").status_code == status
        simulator.fault("create", "html_504", channel="new")
        assert api("POST", "channels", json={"channel": "new"}).status_code == 504
        assert api("POST", "channels", json={"channel": "other"}).status_code == 201


class TestEffect:
    @pytest.mark.parametrize("effect", [True, False])
    @pytest.mark.parametrize("fault", ["html_504", "reset", "truncated"])
    def test_a_call_does_its_work_only_if_the_fault_has_effect(
        self, simulator: Simulator, api: Api, fault: str, effect: bool
    ) -> None:
        simulator.fault("delete", fault, effect=effect)
        try:
            api("DELETE", "channels/loja")
        except requests.RequestException:
            assert fault in {"reset", "truncated"}
        assert (simulator.channel("loja") is None) is effect

    def test_work_with_effect_is_done_once_and_before_the_answer(
        self, simulator: Simulator, api: Api
    ) -> None:
        simulator.fault("delete", "slow", seconds=_HELD_SECONDS, effect=True)
        call = in_background(api, "DELETE", "channels/loja")
        wait_until(lambda: simulator.channel("loja") is None, "the work")
        assert not call.done()
        simulator.clear_faults("delete")
        assert call.result(30).status_code == 200, "a second time it would be 404"


class TestOnTheWire:
    def test_reset_is_a_reset_and_not_an_end(self, simulator: Simulator, api: Api) -> None:
        simulator.fault("list", "reset")
        with _connect(api, "channels") as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        (noted,) = simulator.requests()
        assert (noted["fault"], noted["status"]) == ("reset", None)

    @pytest.mark.parametrize(("fault", "status"), [("hang", 200), ("slow", 200), ("html_504", 504)])
    def test_an_answer_that_is_held_comes_once_it_is_released(
        self, simulator: Simulator, api: Api, fault: str, status: int
    ) -> None:
        simulator.fault("list", fault, seconds=_HELD_SECONDS)
        call = in_background(api, "GET", "channels")
        wait_until(simulator.requests, "the call")
        assert api("GET", "channels/loja/qr").json() == CONNECTED, "other calls are not held up"
        assert not call.done()
        assert simulator.requests("list")[0]["status"] is None
        simulator.clear_faults("list")
        assert call.result(30).status_code == status
        assert simulator.requests("list")[0]["status"] == status

    def test_drip_sends_byte_after_byte_until_it_is_released(
        self, simulator: Simulator, api: Api
    ) -> None:
        simulator.fault("list", "drip", seconds=0.01)
        with requests.get(f"{api.url}/api/channels", timeout=20, stream=True) as answer:
            body = answer.iter_content(1)
            begin = b"".join(itertools.islice(body, 41))
            simulator.clear_faults()
            assert set(body) <= {b" "}
        assert begin == b'{"success": true, "channels": [' + b" " * 10

    def test_truncated_promises_more_than_it_sends(self, simulator: Simulator, api: Api) -> None:
        simulator.fault("list", "truncated")
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="1000 more expected"):
            api("GET", "channels")

    def test_redirect_leads_to_where_the_secret_is_noted(
        self, simulator: Simulator, api: Api
    ) -> None:
        simulator.fault("list", "redirect", times=1)
        followed: Any = api("GET", "channels")
        assert followed.json() == {"success": True, "channels": [], "total": 0}
        requests.post(f"{api.url}/sim/elsewhere", timeout=20)
        noted = [call["secret_right"] for call in simulator.requests("elsewhere")]
        assert noted == [True, False]
        simulator.fault("list", "redirect", location="http://example.invalid/?a=b")
        answer = api("GET", "channels", allow_redirects=False)
        assert (answer.status_code, answer.content) == (302, b"")
        assert answer.headers["Location"] == "http://example.invalid/?a=b"
