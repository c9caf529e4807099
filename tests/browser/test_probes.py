"""Whether a channel is alive: the button that asks it, and what the page says came of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import make_server

from reconnect_hook.fleet import Fleet
from reconnect_hook.metrics import Metrics
from reconnect_hook.page.site import add_page
from reconnect_hook.probes import examination
from reconnect_hook.service import open_store
from reconnect_hook.web import create_app
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from tests.browser.axe import check
from tests.browser.looks import TWO_LOOKS, Look, log_in, window
from tests.support.gateways import answer, sample
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.prometheus import Exposition
from whatsapp.settings import parse

_CHANNELS = ("loja", "nunca", "caiu")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Run a gateway that has a request which only a living session can answer."""
    with SimulatorServer(SECRET, api="wppconnect") as server:
        made = Simulator(server.url)
        made.put_channel("loja")
        made.put_channel("nunca")
        made.put_channel("caiu", session="dead")
        yield made
        made.clear_faults()


@pytest.fixture
def page(
    browser: Browser,
    look: Look,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Page]:
    """Open a window on a hook in this process, so that a second query need not wait a minute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examination, "SECOND_QUERY_SECONDS", 0.1)
    prometheus = Exposition(
        answer(
            [sample("gateway_up", "wpp", 1), sample("message_log_up", "wpp", 1)]
            + [sample("channel_connected", "wpp", int(c != "caiu"), channel=c) for c in _CHANNELS]
        )
    )
    there = f"http://{prometheus.at}"
    more = {"PROMETHEUS_URL": there, "ALERTMANAGER_URL": there, "PROBE_OVERRIDES": "nunca=off"}
    with _hook(hook_settings(simulator.url, **more)) as url, window(browser, look, url) as opened:
        log_in(opened, TOKEN)
        yield opened
    prometheus.close()


@contextmanager
def _hook(values: dict[str, str]) -> Iterator[str]:
    settings = parse(values)
    gateway = replace(settings.gateways[0], type="wppconnect")
    metrics = Metrics()
    fleet = Fleet(settings, open_store(settings), metrics)
    fleet.follow([gateway])
    app = create_app(fleet, metrics, token=TOKEN)
    add_page(app, fleet, settings)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        fleet.stop(5)


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_a_channel_that_is_asked_proves_to_be_alive(
    page: Page, look: Look, simulator: Simulator
) -> None:
    simulator.fault("query", "hang", channel="loja")
    page.goto("/channels/loja")
    proof = page.locator(".proof")
    expect(proof).to_have_count(0)
    ask = page.get_by_role("button", name=look.say("Ask now"))
    ask.click()
    expect(proof).to_contain_text(look.say("Being asked …"))
    expect(ask).to_be_disabled()
    check(page)
    simulator.clear_faults("query")
    # Nobody reloads it.
    expect(proof).to_contain_text(look.say("alive, proved"))
    assert proof.locator("time").get_attribute("title"), "the absolute time is there on hover"
    expect(ask).to_be_enabled()
    assert [one["channel"] for one in simulator.requests("query")] == ["loja"]
    assert simulator.requests("restart") == []
    check(page)


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_one_that_does_not_answer_is_shown_as_dead_and_repaired(
    page: Page, look: Look, simulator: Simulator
) -> None:
    simulator.zombie("loja")
    page.goto("/channels/loja")
    page.get_by_role("button", name=look.say("Ask now")).click()
    expect(page.locator(".proof")).to_contain_text(look.say("dead, proved"))
    expect(page.locator(".episode").first).to_contain_text(
        look.say("it did not answer when it was asked")
    )
    check(page)


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_there_is_no_button_where_nothing_can_ask(page: Page, look: Look) -> None:
    ask = page.get_by_role("button", name=look.say("Ask now"))
    for channel, why in (
        ("nunca", "it is never to be asked"),
        ("caiu", "that it is down is known"),
    ):
        page.goto(f"/channels/{channel}")
        expect(page.get_by_role("button", name=look.say("Reconnect now"))).to_be_visible()
        assert ask.count() == 0, why
    page.goto("/channels/loja")
    expect(ask).to_be_visible()
