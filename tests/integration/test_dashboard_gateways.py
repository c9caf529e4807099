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

from reconnect_hook.app import create_app
from reconnect_hook.dashboard import snapshot
from reconnect_hook.dashboard.register import add_page
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import HookSupervisor, open_store
from tests.support.gateways import Gateways, answer, sample
from tests.support.hooks import TOKEN, log_lines, state
from tests.support.http_servers import Exposition
from tests.support.waiting import wait_until
from zapwatch.config import parse
from zapwatch.db import StateError

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_SECONDS = 60.0


class Site:
    """The hook's application, whose Prometheus knows ``loja`` at both gateways."""

    def __init__(self, gateways: Gateways) -> None:
        self.gateways = gateways
        self.prometheus = Exposition("")
        self.say(a=1, b=1)
        url = f"http://{self.prometheus.at}"
        settings = parse(gateways.settings(PROMETHEUS_URL=url, ALERTMANAGER_URL=url))
        metrics = HookMetrics()
        self._store = open_store(settings)
        self.supervisor = HookSupervisor(settings, self._store, metrics)
        self.supervisor.apply_config(settings.gateways)
        self.app = create_app(self.supervisor, metrics, token=TOKEN)
        add_page(self.app, self.supervisor, settings)
        self.http = self.app.test_client()

    def close(self) -> None:
        self.supervisor.stop(5)
        self._store.database.close()
        self.prometheus.close()

    def say(self, **up: int) -> None:
        samples = [
            one
            for name, value in up.items()
            for one in (
                sample("gateway_up", name, value),
                sample("message_log_up", name, 1),
                sample("channel_connected", name, 1 if name == "a" else 0, channel="loja"),
            )
        ]
        self.prometheus.text = answer(samples)

    def get(self, path: str) -> tuple[int, Any]:
        answer = self.http.get(path, headers=_BEARER)
        return answer.status_code, answer.get_json()

    def post(self, path: str, **body: object) -> tuple[int, Any]:
        answer = self.http.post(path, headers=_BEARER, json=body)
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
    status, body = site.get("/api/channels/loja")
    assert (status, body) == (
        404,
        {"error": "there are several gateways: add ?gateway= and the name of one"},
    )
    for path in ("channels", "attempts"):
        assert site.get(f"/api/{path}/loja?gateway=c")[0] == 404


def test_what_is_asked_for_happens_at_the_gateway_that_was_named(site: Site) -> None:
    of = site.gateways.of
    for simulator in of.values():
        simulator.drop("loja")
    assert site.post("/api/pause/loja?gateway=a", hours=1)[0] == 200
    assert site.post("/api/reconnect/loja?gateway=a")[0] == 409
    assert site.post("/api/reconnect/loja?gateway=b") == (202, {"accepted": True})
    wait_until(lambda: site.get("/api/attempts/loja?gateway=b")[1]["attempts"], _SECONDS, "it")
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
    wait_until(lambda: site.gateways.of["b"].requests("qr"), _SECONDS, "the call")
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
    wait_until(
        lambda: browser.get("/live/qr/loja?gateway=b").get_json()["state"] == "code",
        _SECONDS,
        "the code",
    )
    assert browser.get("/live/qr/loja?gateway=a").get_json()["state"] == "none"
    assert not site.gateways.of["a"].requests("qr")


def test_a_gateway_that_was_removed_leaves_the_page(site: Site) -> None:
    assert len(site.get("/api/channels")[1]["channels"]) == 2
    present = [one.gateway for one in site.supervisor.controllers.values()]
    site.supervisor.apply_config(present[1:])
    assert [one["gateway"] for one in site.get("/api/channels")[1]["channels"]] == ["b"]
    assert site.get("/api/channels/loja")[1]["gateway"] == "b", "the only one need not be named"
    page = site.browser().get("/").text
    assert 'href="/channels/loja"' in page
    assert '<span class="gateway" title="The monitored gateway">b</span>' in page


def test_a_link_of_a_removed_gateway_is_dead_and_its_end_is_logged(site: Site) -> None:
    made = site.post("/api/scan-links/loja?gateway=a")[1]
    present = [one.gateway for one in site.supervisor.controllers.values()]
    site.supervisor.apply_config(present[1:])
    assert site.browser().get(urlsplit(made["url"]).path).status_code == 404
    end = f"/api/scan-links/{made['id']}"
    assert site.http.delete(end, headers=_BEARER).status_code == 204
    ended = [line for line in log_lines(Path.cwd()) if "outcome=revoked" in line]
    assert len(ended) == 1
    assert f"link={made['id']}" in ended[0]
    assert ended[0].rstrip().endswith("gateway=a")


def test_a_gateway_that_is_replaced_has_its_message_sources_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (one.gateway for one in site.supervisor.controllers.values())
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
    present = [one.gateway for one in site.supervisor.controllers.values()]
    changed = [present[0], replace(present[1], timeout=present[1].timeout + 1)]
    state(Path.cwd(), "ALTER TABLE gateway RENAME TO away")
    with pytest.raises(StateError):
        site.supervisor.apply_config([*changed, replace(present[1], name="new")])
    state(Path.cwd(), "ALTER TABLE away RENAME TO gateway")
    assert b'gateway="new"' not in site.http.get("/metrics").data
    assert [one.gateway for one in site.supervisor.controllers.values()] == present
    site.supervisor.apply_config(changed)
    assert site.post("/api/reconnect/loja?gateway=b")[0] == 202
    wait_until(
        lambda: bool(site.get("/api/attempts/loja?gateway=b")[1]["attempts"]),
        _SECONDS,
        "the repair",
    )
