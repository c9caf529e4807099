"""The simulated gateway's HTTP API: the contract's shapes, its secret and its ids."""

from __future__ import annotations

import base64
from typing import Any
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


@pytest.mark.parametrize(
    ("knobs", "entry"),
    [
        ({"id_field": "name"}, {"name": "loja", "status": "connected"}),
        ({"id_field": "channel_id"}, {"channel_id": "loja", "status": "connected"}),
        ({"id_field": "none"}, {"status": "connected"}),
        ({"status_text": " CONNECTED "}, {"id": "loja", "name": "loja", "status": " CONNECTED "}),
        ({"status_text": ""}, {"id": "loja", "name": "loja", "status": ""}),
        ({"status_text": None}, {"id": "loja", "name": "loja", "status": None}),
        ({"status_text": "(missing)"}, {"id": "loja", "name": "loja"}),
    ],
)
def test_an_entry_of_the_list_can_look_odd(
    simulator: Simulator, api: Api, knobs: Any, entry: Any
) -> None:
    simulator.put_channel("loja", **knobs)

    assert api("GET", "channels").json()["channels"] == [entry]


def test_an_odd_entry_can_look_as_it_is_again(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("loja", status_text="unknown")
    simulator.put_channel("loja", status_text="(as it is)", status="initializing")

    assert api.statuses() == {"loja": "initializing"}


@pytest.mark.parametrize(
    "field",
    [
        *("qr", "qr_base64", "qrcode", "base64Qrimg", "base64", "base64Image", "image"),
        *("qrcode_base64", "data", "data.qr", "data.base64", "data.base64Qrimg"),
        *("result", "result.qr", "result.base64", "result.base64Qrimg"),
    ],
)
def test_a_qr_code_is_where_it_was_told_to_be(simulator: Simulator, api: Api, field: str) -> None:
    simulator.put_channel("loja", session="unpaired", qr_field=field)

    answer = api.qr("loja")

    assert answer["success"] is True
    assert set(answer) == {"success", field.partition(".")[0]}
    value: Any = answer
    for key in field.split("."):
        value = value[key]
    assert base64.b64decode(value, validate=True).startswith(PNG)


def test_a_qr_code_can_be_a_data_url(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("loja", session="unpaired", qr_form="data_url")

    head, comma, value = api.qr("loja")["qr"].partition(",")

    assert (head, comma) == ("data:image/png;base64", ",")
    assert base64.b64decode(value, validate=True).startswith(PNG)


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


def test_an_encoded_slash_may_be_small(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("a/b")

    assert api("GET", "channels/a%2fb/qr").json() == CONNECTED


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


@pytest.mark.parametrize("body", ["", "[]", "{}", "{oops", '{"channel": ""}', '{"channel": 7}'])
def test_a_channel_is_not_made_without_a_name(simulator: Simulator, api: Api, body: str) -> None:
    answer = api("POST", "channels", data=body)

    assert answer.status_code == 400
    assert answer.json() == {"success": False, "error": "The field 'channel' is missing"}
    assert simulator.state()["channels"] == []
