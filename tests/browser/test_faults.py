"""What cannot be reached is said in a plain sentence; and who does not know the token stays out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from stack.simulator.client import Simulator
from tests.browser.axe import check
from tests.browser.looks import TWO_LOOKS, WAIT_MS, Look, log_in, window
from tests.e2e.world import World
from tests.support.hooks import TOKEN
from tests.support.programs import Program


@pytest.fixture
def alone(browser: Browser, lonely: Program, look: Look) -> Iterator[Page]:
    """Open a window on a hook that has neither Prometheus nor Alertmanager."""
    with window(browser, look, lonely.url) as opened:
        yield opened


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_a_gateway_that_does_not_answer_is_told_and_so_is_its_return(
    page: Page, look: Look, world: World
) -> None:
    page.goto("/")
    expect(page.locator(".trouble")).to_have_count(0)
    world.simulator.fault("list", "html_502")
    try:
        told = page.locator(".trouble")
        words = look.say("The gateway does not give its channel list.")
        expect(told).to_contain_text(words, timeout=WAIT_MS)
        expect(page.locator(".row .chip.unknown").first).to_have_text(look.say("Unknown"))
        check(page)
    finally:
        world.simulator.clear_faults()
    expect(page.locator(".trouble")).to_have_count(0, timeout=WAIT_MS)
    expect(page.locator(".row .chip.unknown")).to_have_count(0)


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_without_prometheus_it_tells_what_still_works(
    alone: Page, look: Look, simulator: Simulator
) -> None:
    simulator.put_channel("loja", session="unpaired")
    log_in(alone, TOKEN)
    sentences = (
        look.say("Prometheus does not answer."),
        look.say("Alertmanager does not answer."),
    )
    for sentence in sentences:
        expect(alone.locator("#head")).to_contain_text(sentence)
    expect(alone.locator("#empty")).to_be_visible()
    alone.goto("/channels/loja")
    alone.click(f"button:text-is('{look.say('Reconnect now')}')")
    # The repair finds that a code waits, and the code is there without any Prometheus.
    expect(alone.locator("#qr .code:not(.waiting) img")).to_be_visible(timeout=WAIT_MS)
    outcome = look.say("needs a QR code to be scanned")
    expect(alone.locator(".attempt")).to_contain_text(outcome[:1].upper() + outcome[1:])
    expect(alone.locator("[data-part=week]")).to_contain_text(
        look.say("Not known while Prometheus does not answer.")
    )
    check(alone)
    alone.goto("/")
    expect(alone.locator(".row .chip")).to_have_text(look.say("Needs a scan"))
    check(alone)


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_a_code_that_the_gateway_refuses_is_told(
    alone: Page, look: Look, simulator: Simulator
) -> None:
    simulator.put_channel("loja", session="unpaired")
    log_in(alone, TOKEN)
    alone.goto("/channels/loja")
    alone.click(f"button:text-is('{look.say('Reconnect now')}')")
    expect(alone.locator("#qr .code:not(.waiting) img")).to_be_visible(timeout=WAIT_MS)
    simulator.fault("qr", "html_504")
    words = look.say("The gateway does not give the code. It is asked again every few seconds.")
    expect(alone.locator(".qr-words")).to_have_text(words, timeout=WAIT_MS)
    expect(alone.locator("#qr .code.waiting")).to_have_count(1)
    simulator.clear_faults()
    expect(alone.locator("#qr .code:not(.waiting) img")).to_be_visible(timeout=WAIT_MS)


def test_five_wrong_tokens_make_an_address_wait(alone: Page, look: Look) -> None:
    alone.goto("/channels/loja")
    for _ in range(5):
        alone.fill("input[name=token]", "wrong")
        alone.click(".login button")
        expect(alone.locator(".trouble")).to_have_text(look.say("This is not the token."))
    check(alone)
    alone.fill("input[name=token]", TOKEN)
    alone.click(".login button")
    words = look.say("After %(count)s wrong tokens, please wait a minute.", count=5)
    expect(alone.locator(".trouble")).to_have_text(words)
    alone.goto("/")
    expect(alone.locator(".login")).to_be_visible()


@pytest.mark.parametrize("look", TWO_LOOKS, ids=str)
def test_a_page_whose_hook_has_gone_says_so(alone: Page, look: Look, lonely: Program) -> None:
    log_in(alone, TOKEN)
    expect(alone.locator("#stale")).to_be_hidden()
    lonely.process.kill()
    words = look.say("Not live: Zapwatch does not answer. What you see is from")
    expect(alone.locator("#stale")).to_contain_text(words, timeout=WAIT_MS)
    check(alone)
