"""The simulated gateway's HTTP API: the contract's shapes, its secret and its ids."""

from __future__ import annotations

from urllib.parse import quote

import requests

from demo.simulator.client import Simulator
from tests.support.hooks import SECRET
from tests.support.simulated import CONNECTED, PNG, Api


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


_CALLS = [
    ("GET", "channels"),
    ("POST", "channels"),
    ("GET", "channels/loja/qr"),
    ("POST", "channels/loja/start-session"),
    ("DELETE", "channels/loja"),
    ("GET", "status"),
]


def test_a_wrong_secret_is_401_json_and_nothing_happens(simulator: Simulator, api: Api) -> None:
    before = simulator.put_channel("loja", status="disconnected")
    for secret in (None, "", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper(), "é".encode()):
        for method, path in _CALLS:
            answer = api(method, path, secret, json={"channel": "another"})
            assert answer.status_code == 401
            told = {"success": False, "error": "Unauthorized: wrong gateway secret"}
            assert answer.json() == told
    assert simulator.state()["channels"] == [before]
    assert {(one["secret_right"], one["status"]) for one in simulator.requests()} == {(False, 401)}


def test_a_percent_encoded_id_is_that_channel_in_every_call(simulator: Simulator, api: Api) -> None:
    simulator.put_channel("a")
    simulator.put_channel("a b")
    for channel in (
        *("Pixel12 Digital", "a/b", "a+b", "a%2Fb", "100%", "São João ☎"),
        *("x?y#z;w=1&v", "a\\b", "a\nb"),
    ):
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
        assert simulator.requests("qr")[-1]["path"] == f"/api/{path}/qr", "as it was sent"
        simulator.remove(channel)
    assert api("GET", "channels/a+b/qr").status_code == 404, "a plus sent as it is, is no space"


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
