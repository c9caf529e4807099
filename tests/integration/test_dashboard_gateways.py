"""The page and the API with several gateways: each channel is its own gateway's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from reconnect_hook.dashboard import snapshot
from tests.support.gateways import Gateways, answer, sample
from tests.support.hooks import TOKEN, log_lines, state
from tests.support.http_servers import Exposition
from tests.support.site import BEARER, HookApp
from tests.support.waiting import wait_until
from zapwatch.config import GatewaySettings, parse
from zapwatch.db import StateError


class Site(HookApp):
    """The hook's application, whose Prometheus knows ``loja`` at both gateways."""

    def __init__(self, gateways: Gateways) -> None:
        self.gateways = gateways
        self.prometheus = Exposition("")
        self.say(a=1, b=1)
        url = f"http://{self.prometheus.at}"
        super().__init__(parse(gateways.settings(PROMETHEUS_URL=url, ALERTMANAGER_URL=url)))

    def close(self) -> None:
        super().close()
        self.prometheus.close()

    @property
    def present(self) -> list[GatewaySettings]:
        return [one.gateway for one in self.supervisor.controllers.values()]

    def say(self, **up: int) -> None:
        samples = []
        for name, value in up.items():
            samples += [
                sample("gateway_up", name, value),
                sample("message_log_up", name, 1),
                sample("channel_connected", name, 1 if name == "a" else 0, channel="loja"),
            ]
        self.prometheus.text = answer(samples)

    def get(self, path: str) -> tuple[int, Any]:
        answer = self.http.get(path, headers=BEARER)
        return answer.status_code, answer.get_json()

    def post(self, path: str, **body: object) -> tuple[int, Any]:
        answer = self.http.post(path, headers=BEARER, json=body)
        return answer.status_code, answer.get_json()

    def browser(self) -> FlaskClient:
        made = self.app.test_client()
        made.post("/login", data={"token": TOKEN})
        return made


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(snapshot, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(snapshot, "_STALE_SECONDS", 0.0)
    with Gateways(tmp_path, "a", "b") as gateways:
        made = Site(gateways)
        yield made
        made.close()


def test_the_api_tells_and_takes_the_gateway(site: Site) -> None:
    status, body = site.get("/api/channels")
    assert status == 200
    kinds = {(one["gateway"], one["channel"]): one["status"] for one in body["channels"]}
    assert kinds == {("a", "loja"): "connected", ("b", "loja"): "disconnected"}
    assert body["gateways"] == [{"gateway": "a", "troubles": []}, {"gateway": "b", "troubles": []}]
    assert [one["gateway"] for one in site.get("/api/channels?gateway=b")[1]["channels"]] == ["b"]
    assert site.get("/api/channels?gateway=c")[1]["channels"] == []

    assert site.get("/api/channels/loja?gateway=b")[1]["status"] == "disconnected"
    error = "there are several gateways: add ?gateway= and the name of one"
    assert site.get("/api/channels/loja") == (404, {"error": error})
    for path in ("channels", "attempts"):
        assert site.get(f"/api/{path}/loja?gateway=c")[0] == 404


def test_what_is_asked_for_happens_at_the_gateway_that_was_named(site: Site) -> None:
    of = site.gateways.of
    for simulator in of.values():
        simulator.drop("loja")
    assert site.post("/api/pause/loja?gateway=a", hours=1)[0] == 200
    assert site.post("/api/reconnect/loja?gateway=a")[0] == 409
    assert site.post("/api/reconnect/loja?gateway=b") == (202, {"accepted": True})
    wait_until(lambda: site.get("/api/attempts/loja?gateway=b")[1]["attempts"], "it")
    assert site.get("/api/attempts/loja?gateway=a")[1]["attempts"] == []
    assert not of["a"].requests("qr")
    assert site.post("/api/reconnect/loja")[0] == 404
    assert site.post("/api/resume/loja?gateway=a")[0] == 200
    assert site.get("/api/channels/loja?gateway=a")[1]["paused"] is None


def test_a_gateway_that_is_down_is_named_and_is_nobody_elses_trouble(site: Site) -> None:
    site.say(a=0, b=1)
    _, body = site.get("/api/channels")
    assert body["troubles"] == ["gateway"]
    assert body["gateways"] == [
        {"gateway": "a", "troubles": ["gateway"]},
        {"gateway": "b", "troubles": []},
    ]
    browser = site.browser()
    words = "The gateway is not responding."
    assert '<span class="at">a</span> <strong>' + words in browser.get("/").text
    assert words in browser.get("/channels/loja?gateway=a").text
    assert words not in browser.get("/channels/loja?gateway=b").text


def test_the_pages_name_the_gateway_and_lead_to_it(site: Site) -> None:
    browser = site.browser()
    page = browser.get("/").text
    assert "2 gateways" in page
    for name in ("a", "b"):
        assert f'href="/channels/loja?gateway={name}"' in page
        assert f'<span class="at">{name}</span>' in page
        assert f"<option>{name}</option>" in page
    only = browser.get("/?gateway=b").text
    assert "<option selected>b</option>" in only
    assert 'href="/channels/loja?gateway=a"' not in only
    order = browser.get("/live/channels?gateway=a").get_json()["order"]
    assert order == ["a loja"]

    channel = browser.get("/channels/loja?gateway=b").text
    assert '<h1 class="title">loja <span class="at">b</span></h1>' in channel
    for path in ("/live/channel/loja", "/reconnect/loja", "/pause/loja"):
        assert f'{path}?gateway=b"' in channel
    assert browser.get("/channels/loja").status_code == 404
    assert browser.get("/channels/loja?gateway=c").status_code == 404
    assert "Disconnected" in channel
    assert "The channel is working." in browser.get("/channels/loja?gateway=a").text


def test_a_form_leads_back_to_the_same_gateway(site: Site) -> None:
    site.gateways.of["b"].drop("loja")
    browser = site.browser()
    for path in ("pause", "resume", "reconnect"):
        answer = browser.post(f"/{path}/loja?gateway=b", data={"hours": "8"})
        assert answer.headers["Location"] == "/channels/loja?gateway=b"
    wait_until(lambda: site.gateways.of["b"].requests("qr"), "the call")
    assert not site.gateways.of["a"].requests("qr")


def test_the_code_is_the_one_of_the_gateway_that_was_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.dashboard.qr._LOOKED_AT_SECONDS", 0.0)
    site.gateways.of["b"].unpair("loja")
    samples = [
        sample("gateway_up", "b", 1),
        sample("channel_connected", "b", 0, channel="loja"),
        sample("channel_status", "b", 1, channel="loja", status="qr_required"),
    ]
    site.prometheus.text = answer(samples)
    browser = site.browser()

    def state_of(name: str) -> object:
        return browser.get(f"/live/qr/loja?gateway={name}").get_json()["state"]

    wait_until(lambda: state_of("b") == "code", "the code")
    assert state_of("a") == "none"
    assert not site.gateways.of["a"].requests("qr")


def test_a_gateway_that_was_removed_leaves_the_page_and_its_links_are_dead(site: Site) -> None:
    made = site.post("/api/scan-links/loja?gateway=a")[1]
    assert len(site.get("/api/channels")[1]["channels"]) == 2
    site.supervisor.apply_config(site.present[1:])
    assert [one["gateway"] for one in site.get("/api/channels")[1]["channels"]] == ["b"]
    assert site.get("/api/channels/loja")[1]["gateway"] == "b", "the only one need not be named"
    page = site.browser().get("/").text
    assert 'href="/channels/loja"' in page
    assert '<span class="gateway" title="The monitored gateway">b</span>' in page

    assert site.browser().get(urlsplit(made["url"]).path).status_code == 404
    end = f"/api/scan-links/{made['id']}"
    assert site.http.delete(end, headers=BEARER).status_code == 204
    (ended,) = [line for line in log_lines(Path.cwd()) if "outcome=revoked" in line]
    assert f"link={made['id']}" in ended
    assert ended.rstrip().endswith("gateway=a")


def test_a_gateway_that_is_replaced_has_its_message_sources_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.present
    with_log = replace(second, message_log_url=sa.make_url("sqlite:///log.sqlite3"))
    site.supervisor.apply_config([first, with_log])
    sources = site.supervisor.controllers["b"].sources
    closed: list[object] = []
    for source in sources:
        monkeypatch.setattr(source, "close", partial(closed.append, source))
    site.supervisor.apply_config([first, second])
    assert sources
    assert closed == sources


def test_a_state_that_fails_at_a_reload_leaves_the_gateways_as_they_were(site: Site) -> None:
    """Else the next reload would take the new ones for those that are repaired at."""
    present = site.present
    changed = [present[0], replace(present[1], timeout=present[1].timeout + 1)]
    state(Path.cwd(), "ALTER TABLE gateway RENAME TO away")
    with pytest.raises(StateError):
        site.supervisor.apply_config([*changed, replace(present[1], name="new")])
    state(Path.cwd(), "ALTER TABLE away RENAME TO gateway")
    assert b'gateway="new"' not in site.http.get("/metrics").data
    assert site.present == present
    site.supervisor.apply_config(changed)
    assert site.post("/api/reconnect/loja?gateway=b")[0] == 202
    wait_until(lambda: site.get("/api/attempts/loja?gateway=b")[1]["attempts"], "it")
