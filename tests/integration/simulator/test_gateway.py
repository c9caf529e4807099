"""The simulated gateway's HTTP API: the contract's shapes, its secret and its ids."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET
from tests.support.simulated import CONNECTED, PNG, Api


def test_the_list_has_the_contracts_shape(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("pixel12digital")
    simulator.put_channel("ImobSites", name="Sites", status="qr_required")

    answer = api("GET", "channels")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "success": True,
        "channels": [
            {"id": "pixel12digital", "name": "pixel12digital", "status": "connected"},
            {"id": "ImobSites", "name": "Sites", "status": "qr_required"},
        ],
        "total": 2,
    }


def test_a_qr_code_can_be_an_http_url_of_the_same_image(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("loja", session="unpaired", qr_form="http_url")
    url = api.qr("loja")["qr"]
    other_url = api.qr("loja")["qr"]

    image = requests.get(url, timeout=20)

    assert url.startswith(api.url)
    assert image.headers["Content-Type"] == "image/png"
    assert image.content.startswith(PNG)
    assert image.content.endswith(b"IEND\xaeB`\x82")
    assert requests.get(other_url, timeout=20).content != image.content, "each code is another"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "channels/nobody/qr", 404),
        ("POST", "channels/nobody/start-session", 404),
        ("DELETE", "channels/nobody", 404),
        ("GET", "channels/loja", 404),
        ("POST", "channels/loja/qr", 404),
        ("GET", "channels/lo/ja/qr", 404),
        ("PUT", "channels", 404),
        ("GET", "status", 404),
    ],
)
def test_unknown_channels_and_calls_are_404_json(
    simulator: Simulator, api: Api, method: str, path: str, status: int
) -> None:
    simulator.put_channel("loja")

    answer = api(method, path)

    assert answer.status_code == status
    body = answer.json()
    assert body["success"] is False
    known = {True: "Channel not found", False: "No such call"}
    assert body["error"] == known["nobody" in path]


_CALLS = [
    ("GET", "channels"),
    ("POST", "channels"),
    ("GET", "channels/loja/qr"),
    ("POST", "channels/loja/start-session"),
    ("DELETE", "channels/loja"),
    ("GET", "status"),
]


@pytest.mark.parametrize(
    "secret", [None, "", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper(), "é".encode()]
)
def test_a_wrong_secret_is_401_json_and_nothing_happens(
    simulator: Simulator, api: Api, secret: str | bytes | None
) -> None:
    before = simulator.put_channel("loja", status="disconnected")

    for method, path in _CALLS:
        answer = api(method, path, secret, json={"channel": "another"})

        assert answer.status_code == 401
        assert answer.json() == {"success": False, "error": "Unauthorized: wrong gateway secret"}
        assert simulator.state()["channels"] == [before]
    noted = [(call["secret_right"], call["status"]) for call in simulator.requests()]
    assert noted == [(False, 401)] * len(_CALLS)


def test_a_secret_need_not_be_ascii(clock: HandMovedClock) -> None:
    with SimulatorServer("sécret ☎", clock=clock) as server:
        api = Api(server.url)

        assert api("GET", "channels", "sécret ☎".encode()).status_code == 200
        assert api("GET", "channels", "sécret ☏".encode()).status_code == 401


@pytest.mark.parametrize(
    "channel",
    ["Pixel12 Digital", "a/b", "a+b", "a%2Fb", "100%", "São João ☎", "x?y#z;w=1&v", "a\\b", "a\nb"],
)
def test_a_percent_encoded_id_is_that_channel_in_every_call(
    simulator: Simulator, api: Api, channel: str
) -> None:
    simulator.put_channel("a")
    simulator.put_channel("a b")
    simulator.put_channel(channel, status="disconnected")
    path = f"channels/{quote(channel, safe='')}"

    assert api("GET", f"{path}/qr").json() == CONNECTED
    assert api.statuses() == {"a": "connected", "a b": "connected", channel: "initializing"}
    assert api("POST", f"{path}/start-session").json()["success"] is True
    assert api("DELETE", path).json()["success"] is True
    assert channel not in api.statuses()
    created = api("POST", "channels", json={"channel": channel})
    assert created.json() == {"success": True, "channel": {"id": channel, "name": channel}}
    assert [call["operation"] for call in simulator.requests(channel=channel)] == [
        *("qr", "start_session", "delete", "create")
    ]
    assert simulator.requests("qr")[0]["path"] == f"/api/{path}/qr", "as it was sent"


def test_a_plus_sent_as_it_is_is_no_space(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("a b")

    assert api("GET", "channels/a+b/qr").status_code == 404
    simulator.put_channel("a+b")
    assert api("GET", "channels/a+b/qr").status_code == 200


def test_a_deleted_channel_comes_back_without_its_pairing(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("loja")

    gone = api("DELETE", "channels/loja")
    assert (gone.status_code, gone.json()["success"]) == (200, True)
    assert api.statuses() == {}
    made = api("POST", "channels", json={"channel": "loja"})
    assert made.status_code == 201
    assert api.statuses() == {"loja": "disconnected"}
    assert api.qr("loja")["qr"]
    again = api("POST", "channels", json={"channel": "loja"})
    assert (again.status_code, again.json()["error"]) == (409, "Channel already exists")
