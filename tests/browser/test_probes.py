"""Whether a channel is alive: the button that asks it, and what the page says came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Locator, Page, expect

from demo.simulator.client import Simulator
from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from reconnect_hook import probe, reconciler
from tests.browser.axe import check
from tests.support.gateways import answer, sample
from tests.support.hooks import SECRET, TOKEN
from tests.support.http_servers import ConsumerWebhook, Exposition
from tests.support.looks import Look, Windows, log_in, two_windows
from tests.support.message_logs import WrittenLog
from tests.support.site import Site
from tests.support.waiting import wait_until

_CHANNELS = ("loja", "nunca", "caiu")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    """Run a gateway that has a request which only a living session can answer."""
    with SimulatorServer(SECRET, api="wppconnect") as made:
        yield made


@pytest.fixture
def simulator(server: SimulatorServer) -> Iterator[Simulator]:
    made = Simulator(server.url)
    made.put_channel("loja")
    made.put_channel("nunca")
    made.put_channel("caiu", session="dead")
    yield made
    made.clear_faults()


@pytest.fixture
def webhook() -> Iterator[ConsumerWebhook]:
    """Let the operator's system take what is delivered again."""
    with ConsumerWebhook() as made:
        yield made


@pytest.fixture
def pages(
    browser: Browser,
    simulator: Simulator,
    webhook: ConsumerWebhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Windows]:
    """Open windows on a hook in this process, so that a second query need not wait a minute."""
    monkeypatch.chdir(tmp_path)
    for module in (probe, reconciler):
        monkeypatch.setattr(module, "SECOND_QUERY_SECONDS", 0.1)
    prometheus = Exposition(
        answer(
            [sample("gateway_up", "wpp", 1), sample("message_log_up", "wpp", 1)]
            + [sample("channel_connected", "wpp", int(c != "caiu"), channel=c) for c in _CHANNELS]
        )
    )
    there = f"http://{prometheus.at}"
    log = WrittenLog(sa.make_url("sqlite:///log.sqlite3"))
    log.write_history("caiu", [7200])
    more = {
        "PROMETHEUS_URL": there,
        "ALERTMANAGER_URL": there,
        "PROBE": "delivery",
        "PROBE_OVERRIDES": "nunca=off",
        "MESSAGE_LOG_URL": log.reader,
        "MESSAGE_REPLAY_URL": webhook.url,
        "WPP_GATEWAY_TYPE": "wppconnect",
    }
    site = Site(simulator.url, **{name: str(value) for name, value in more.items()})
    with site.served() as url, two_windows(browser, url) as opened:
        for _, page in opened:
            log_in(page, TOKEN)
        yield opened
    prometheus.close()


def test_a_channel_that_is_asked_proves_to_be_alive(pages: Windows, simulator: Simulator) -> None:
    simulator.fault("query", "hang", channel="loja")
    for _, page in pages:
        page.goto("/channels/loja")
        expect(page.locator(".proof")).to_have_count(0)
    _press(pages)
    for look, page in pages:
        expect(page.locator(".proof")).to_contain_text(look.say("Probing …"))
        expect(_button(look, page)).to_be_disabled()
        check(page)
    simulator.clear_faults("query")
    # Nobody reloads it.
    for look, page in pages:
        proof = page.locator(".proof")
        expect(proof).to_contain_text(look.say("working"))
        assert proof.locator("time").get_attribute("title"), "the absolute time is there on hover"
        expect(page.locator(".logged summary")).to_contain_text(look.say("working"))
        expect(_button(look, page)).to_be_enabled()
        check(page)
    assert [one["channel"] for one in simulator.requests("query")] == ["loja"]
    assert simulator.requests("qr") == []


def test_one_that_does_not_answer_is_shown_as_dead_and_repaired(
    pages: Windows, simulator: Simulator
) -> None:
    simulator.fault("query", "http_500_json", channel="loja")
    for _, page in pages:
        page.goto("/channels/loja")
    _press(pages)
    for look, page in pages:
        expect(page.locator(".proof")).to_contain_text(look.say("not responding"))
        words = "Connected at the gateway, but the channel did not respond to the probe."
        expect(page.locator(".verdict")).to_contain_text(look.say(words))
        check(page)
    wait_until(lambda: simulator.requests("close_session", "loja"), "its repair to begin")


def test_a_broken_delivery_is_shown_and_nothing_is_reconnected(
    pages: Windows, server: SimulatorServer, simulator: Simulator
) -> None:
    lost = SimulatedMessage("loja", outgoing=False, at=time.time() - 300)
    server.gateway.births.bear(lost)
    for _, page in pages:
        page.goto("/channels/loja")
    _press(pages)
    for look, page in pages:
        expect(page.locator(".proof")).to_contain_text(
            look.say("connected, but its messages do not arrive")
        )
        words = (
            "Connected, but what the gateway receives does not arrive. "
            "Reconnecting does not solve that."
        )
        expect(page.locator(".verdict")).to_contain_text(look.say(words))
        check(page)
    assert simulator.requests("close_session") == []


def test_there_is_no_button_where_nothing_can_ask(pages: Windows) -> None:
    for look, page in pages:
        for channel, why in (("nunca", "never to be asked"), ("caiu", "known to be down")):
            page.goto(f"/channels/{channel}")
            expect(page.get_by_role("button", name=look.say("Reconnect now"))).to_be_visible()
            assert _button(look, page).count() == 0, why
        page.goto("/channels/loja")
        expect(_button(look, page)).to_be_visible()


def test_missed_messages_are_found_listed_and_delivered_again(
    pages: Windows, server: SimulatorServer, webhook: ConsumerWebhook
) -> None:
    for _, page in pages:
        page.goto("/channels/loja")
    for number in range(3):
        message = SimulatedMessage(
            "loja", outgoing=False, id=f"LOST{number}", words="a secret", at=time.time() - 600
        )
        server.gateway.births.bear(message)
    card = "[data-part=missed]"
    look, page = pages[0]
    expect(page.locator(card)).to_contain_text(look.say("No audit yet."))
    page.get_by_role("button", name=look.say("Audit now")).click()
    for look, page in pages:
        expect(page.locator(f"{card} li")).to_have_count(3)
        one = page.locator(f"{card} li").first
        expect(one).to_contain_text(look.say("chat ending in %(digits)s") % {"digits": "0001"})
        expect(one).to_contain_text(look.say("not delivered"))
        check(page)
    webhook.status = 503
    look, page = pages[0]
    page.get_by_role("button", name=look.say("Deliver again")).click()
    for look, page in pages:
        expect(page.locator(f"{card} li").nth(2)).to_contain_text("HTTP 503")
        expect(page.locator(card)).to_contain_text(look.say("Not all could be delivered again:"))
        refused = look.say("the webhook does not take them")
        expect(page.locator(card)).to_contain_text(f"{refused}: HTTP 503")
        check(page)
    webhook.status = 204
    look, page = pages[0]
    page.get_by_role("button", name=look.say("Deliver again")).click()
    for look, page in pages:
        expect(page.locator(card)).to_contain_text(look.say("No message is missing."))
        assert page.get_by_text(look.say("delivered again"), exact=False).count() >= 3
        assert "a secret" not in page.content()
        check(page)
    assert len(webhook.events) == 6


def _button(look: Look, page: Page) -> Locator:
    return page.get_by_role("button", name=look.say("Probe now"))


def _press(pages: Windows) -> None:
    """Ask in one window; the other one gets to know."""
    _button(*pages[0]).click()
