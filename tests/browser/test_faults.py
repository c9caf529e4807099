"""What cannot be reached is said in a plain sentence; and who does not know the token stays out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect

from demo.simulator.client import Simulator
from reconnect_hook.dashboard import qr
from tests.browser.axe import check
from tests.support.hooks import TOKEN, hook_settings
from tests.support.looks import (
    CHANNELS,
    WORLD_TOKEN,
    Look,
    Windows,
    in_one_look,
    log_in,
    two_windows,
    window,
)
from tests.support.loop import World
from tests.support.programs import Fork
from tests.support.site import NOBODY, Site

_CODE = "#qr .code:not(.waiting) img"


def test_a_gateway_that_does_not_answer_is_told_and_so_is_its_return(
    pages: Windows, world: World
) -> None:
    for _, page in pages:
        page.goto("/")
        expect(page.locator("#head .trouble")).to_have_count(0)
    world.simulator.fault("list", "html_502")
    try:
        for look, page in pages:
            words = look.say("The gateway is not responding.")
            expect(page.locator("#head .trouble")).to_contain_text(words)
            help_page = page.get_by_role("link", name=look.say("What to do"))
            expect(help_page).to_have_attribute("href", "/docs/runbook/WhatsAppGatewayDown")
            expect(page.locator(".row .chip.unknown").first).to_have_text(look.say("Unknown"))
            expect(page.locator(".tile b")).to_have_text(["?", "?", f"?/{len(CHANNELS)}", "0"])
            expect(page.locator(".row .done").first).not_to_contain_text(look.say("Nothing to do"))
            check(page)
        url = f"http://{world.loop.at.hook}/api/reconnect/pixel12digital"
        requests.post(url, auth=("tests", WORLD_TOKEN), timeout=30).raise_for_status()
        for look, page in pages:
            page.goto("/channels/pixel12digital")
            # A time in the past would be no time of the next one.
            expect(page.locator(".steps .past").first).to_contain_text(re.compile(r"[4-9] s"))
            words = f"{look.say('Next reconnection:')} {look.say('now')}"
            expect(page.locator(".repair")).to_contain_text(words)
            page.goto("/")
    finally:
        world.simulator.clear_faults()
    # An answer that never comes: what is shown is marked as old.
    look, page = pages[0]
    page.route("**/live/**", lambda _: None)
    words = look.say("Not live: Zapwatch does not answer. What you see is from")
    expect(page.locator("#stale")).to_contain_text(words)
    page.unroute("**/live/**")
    expect(page.locator("#stale")).to_be_hidden()
    for _, page in pages:
        expect(page.locator("#head .trouble")).to_have_count(0)
        expect(page.locator(".row .chip.unknown")).to_have_count(0)


def test_without_prometheus_a_broken_channel_is_found_reconnected_and_scanned(
    browser: Browser, simulator: Simulator, tmp_path: Path
) -> None:
    simulator.put_channel("vendas")
    simulator.put_channel("loja", session="unpaired")
    simulator.drop("loja")
    settings = hook_settings(simulator.url, PROMETHEUS_URL=NOBODY, ALERTMANAGER_URL=NOBODY)
    with (
        Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as lonely,
        two_windows(browser, lonely.url) as both,
    ):
        for _, page in both:
            log_in(page, TOKEN)
        _find_the_broken(both)
        _press_reconnect(both)
        _expect_the_code_first(both)
        simulator.scan("loja")
        _expect_connected(both)
        assert len(simulator.requests("list")) < 20, "one list in ten seconds for all who look"
        lonely.process.kill()
        _expect_not_live(both)


@in_one_look
def test_a_page_that_was_open_before_the_first_channel_can_be_searched(
    browser: Browser, simulator: Simulator, tmp_path: Path, look: Look
) -> None:
    settings = hook_settings(simulator.url, PROMETHEUS_URL=NOBODY, ALERTMANAGER_URL=NOBODY)
    with (
        Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as hook,
        window(browser, look, hook.url) as page,
    ):
        log_in(page, TOKEN)
        none = "No channel is known yet. It may take some seconds after the start."
        expect(page.locator("#empty")).to_have_text(look.say(none))
        for name in ("atendimento", "loja", "matriz", "obra", "vendas"):
            simulator.put_channel(name)
        expect(page.locator(".row")).to_have_count(5)
        page.fill("input[name=q]", "nobody")
        expect(page.locator(".row")).to_have_count(0)
        expect(page.locator("#empty")).to_have_text(look.say("No channel matches."))


def _find_the_broken(both: Windows) -> None:
    for look, page in both:
        page.goto("/")
        banner = page.locator(".trouble.alarming")
        expect(banner).to_contain_text(look.say("Neither Prometheus nor Alertmanager answers."))
        expect(page.locator(".row .chip").first).to_have_text(look.say("Disconnected"))
        expect(page.locator(".row .name")).to_have_text(["loja", "vendas"])
        expect(page.locator(".tile b")).to_have_text(["1", "1", "1/2", "0"])
        expect(page).to_have_title(re.compile(r"^\(1\) "))
        check(page)
        page.click(".row .name >> text=loja")
        words = look.say("No automatic reconnection: use “Reconnect now”")
        expect(page.locator("[data-part=repair]")).to_contain_text(words)
        check(page)


def _expect_the_code_first(both: Windows) -> None:
    for look, page in both:
        expect(page.locator(_CODE)).to_be_visible()
        expect(page.locator("[data-part=repair] .button.primary")).to_have_count(0)
        outcome = look.say("waiting for QR scan")
        expect(page.locator(".attempt")).to_contain_text(outcome[:1].upper() + outcome[1:])
        steps = page.locator(".logged")
        steps.locator("summary").click()
        for words in ("Requested by", "Call to the gateway:", "a QR code is available"):
            expect(steps).to_contain_text(look.say(words))
        expect(page.locator("[data-part=week]")).to_contain_text(
            look.say("Unknown while Prometheus does not answer.")
        )
        check(page)


def _expect_connected(both: Windows) -> None:
    for look, page in both:
        expect(page.locator("#qr.connected")).to_have_count(1)
        expect(page.locator(".verdict .chip")).to_have_text(look.say("Connected"))
        expect(page).to_have_title(re.compile(r"^loja "))
        check(page)
        page.goto("/")
        expect(page.locator(".tile b")).to_have_text(["0", "0", "2/2", "0"])
        expect(page.locator("#stale")).to_be_hidden()


def _expect_not_live(both: Windows) -> None:
    for look, page in both:
        words = look.say("Not live: Zapwatch does not answer. What you see is from")
        expect(page.locator("#stale")).to_contain_text(words)
        check(page)


def test_after_wrong_tokens_a_code_is_refused_shown_and_needed_again(
    browser: Browser, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(qr, "_SCANNED_SECONDS", 1.0)
    simulator.put_channel("loja", session="unpaired")
    with Site(simulator.url).served() as url, two_windows(browser, url) as both:
        _guess_the_token(*both[0])
        log_in(both[1][1], TOKEN)
        for _, page in both:
            page.goto("/channels/loja")
            # An answer that breaks off is not the end of it.
            page.route("**/live/qr/**", _break_off, times=1)
        _press_reconnect(both)
        _expect_code(both)
        simulator.fault("qr", "html_504")
        for look, page in both:
            words = look.say("The gateway does not return a code. Retrying every few seconds.")
            expect(page.locator(".qr-words")).to_have_text(words)
            expect(page.locator("#qr .code.waiting")).to_have_count(1)
        simulator.clear_faults()
        _expect_code(both)
        simulator.scan("loja")
        for look, page in both:
            expect(page.locator("#qr.connected")).to_have_count(1)
            expect(page.locator(".verdict")).to_contain_text(look.say("The channel is working."))
        simulator.unpair("loja")
        # Somebody else asks, so that the page is not loaded anew.
        requests.post(f"{url}/api/reconnect/loja", auth=("tests", TOKEN), timeout=30)
        _expect_code(both)


def _expect_code(both: Windows) -> None:
    for _, page in both:
        expect(page.locator(_CODE)).to_be_visible()


def _break_off(route: Route) -> None:
    route.fulfill(status=200, content_type="application/json", body='{"state": ')


def _press_reconnect(both: Windows) -> None:
    """Ask for a repair in one window; the other one gets to know."""
    look, page = both[0]
    page.click(f"button:text-is('{look.say('Reconnect now')}')")


def _guess_the_token(look: Look, page: Page) -> None:
    """Enter wrong ones until the address has to wait, and then the right one."""
    page.goto("/channels/loja")
    for _ in range(5):
        page.fill("input[name=token]", "wrong")
        page.click(".login button")
        expect(page.locator(".trouble")).to_have_text(look.say("Wrong password."))
    check(page)
    page.fill("input[name=token]", "wrong again")
    page.click(".login button")
    words = look.say("After %(count)s wrong passwords, please wait a minute.", count=5)
    expect(page.locator(".trouble")).to_have_text(words)
    # Whoever has the right one is not kept out by somebody who guesses.
    page.fill("input[name=token]", TOKEN)
    page.click(".login button")
    expect(page.locator(".login")).to_be_hidden()
