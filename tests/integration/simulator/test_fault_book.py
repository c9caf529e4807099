"""When a fault of the simulated gateway is met, and for how long it stays switched on."""

from __future__ import annotations

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET
from tests.support.simulated import Api, Background
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


def test_a_fault_stays_for_so_many_calls(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "html_502", times=2)

    assert [api("GET", "channels").status_code for _ in range(4)] == [502, 502, 200, 200]
    assert simulator.state()["faults"] == []


def test_calls_with_a_wrong_secret_use_no_fault_up_that_they_do_not_meet(
    simulator: Simulator, api: Api
) -> None:
    simulator.fault("list", "http_500_json", times=1)

    assert api("GET", "channels", "wrong").status_code == 401
    assert api("GET", "channels").status_code == 500
    assert api("GET", "channels").status_code == 200


def test_a_fault_is_of_one_operation(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "html_502")

    assert api("GET", "channels/loja/qr").status_code == 200
    assert api("POST", "channels/loja/start-session").status_code == 200


def test_a_fault_of_a_channel_goes_before_that_of_all(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("São João")
    simulator.fault("qr", "html_502")
    simulator.fault("qr", "html_504", channel="São João", times=1)

    assert api("GET", "channels/loja/qr").status_code == 502
    assert api("GET", "channels/S%C3%A3o%20Jo%C3%A3o/qr").status_code == 504
    assert api("GET", "channels/S%C3%A3o%20Jo%C3%A3o/qr").status_code == 502
    simulator.fault("create", "html_504", channel="new")
    assert api("POST", "channels", json={"channel": "new"}).status_code == 504
    assert api("POST", "channels", json={"channel": "other"}).status_code == 201


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize("fault", ["html_504", "reset", "http_500_json", "truncated"])
def test_a_call_does_its_work_only_if_the_fault_has_effect(
    simulator: Simulator, api: Api, fault: str, effect: bool
) -> None:
    simulator.fault("delete", fault, effect=effect)

    try:
        api("DELETE", "channels/loja")
    except requests.RequestException:
        assert fault in {"reset", "truncated"}

    assert simulator.channel("loja") is None or not effect
    assert simulator.channel("loja") is not None or effect


def test_work_with_effect_is_done_once_and_before_the_answer(
    simulator: Simulator, api: Api
) -> None:
    simulator.fault("delete", "slow", seconds=_HELD_SECONDS, effect=True)
    call = Background(api, "DELETE", "channels/loja")

    wait_until(lambda: simulator.channel("loja") is None, 20, "the work")
    assert not call.answered
    simulator.clear_faults("delete")

    assert call.answer().status_code == 200, "a second time it would be 404"


def test_effect_is_not_for_those_with_a_wrong_secret(simulator: Simulator, api: Api) -> None:
    simulator.fault("delete", "html_504", effect=True)

    assert api("DELETE", "channels/loja", "wrong").status_code == 504
    assert simulator.channel("loja") is not None


def test_clearing_one_operation_leaves_the_others(simulator: Simulator, api: Api) -> None:
    for operation in ("list", "qr"):
        simulator.fault(operation, "html_502")
    simulator.fault("qr", "html_504", channel="loja")

    simulator.clear_faults("qr")
    assert api("GET", "channels/loja/qr").status_code == 200
    assert api("GET", "channels").status_code == 502
    simulator.clear_faults()
    assert api("GET", "channels").status_code == 200


def test_a_fault_takes_the_place_of_the_one_before(simulator: Simulator, api: Api) -> None:
    simulator.fault("list", "html_502", times=1)
    on = simulator.fault("list", "empty_list")

    assert simulator.state()["faults"] == [on]
    assert on == {
        "operation": "list",
        "fault": "empty_list",
        "channel": None,
        "times": None,
        "seconds": 0.0,
        "megabytes": 16.0,
        "location": "/sim/elsewhere",
        "effect": False,
    }
    assert api("GET", "channels").json()["channels"] == []


def test_stopping_lets_go_of_the_calls_that_are_held() -> None:
    with SimulatorServer(SECRET) as server:
        simulator = Simulator(server.url)
        simulator.fault("list", "hang")
        call = Background(Api(server.url), "GET", "channels")
        wait_until(simulator.requests, 20, "the call")

    assert call.answer().status_code == 200
