"""Several gateways on one page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.axe import check
from tests.support.gateways import Gateways, answer, sample
from tests.support.hooks import TOKEN
from tests.support.http_servers import Exposition
from tests.support.looks import Look, log_in, two_windows
from tests.support.programs import Fork

_NAMES = ("pixelhub", "loja-evolution")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a hook whose Prometheus knows a channel at each gateway, one of which is down."""
    directory = tmp_path_factory.mktemp("gateways")
    prometheus = Exposition(
        answer(
            one
            for name in _NAMES
            for one in (
                sample("gateway_up", name, int(name == "pixelhub")),
                sample("message_log_up", name, 1),
                sample("channel_connected", name, int(name == "pixelhub"), channel="Loja"),
            )
        )
    )
    there = f"http://{prometheus.at}"
    with Gateways(directory, *_NAMES) as gateways:
        settings = gateways.settings(PROMETHEUS_URL=there, ALERTMANAGER_URL=there)
        with Fork(directory, "reconnect_hook", "serve", settings=settings) as hook:
            yield hook.url
    prometheus.close()


def test_channels_of_all_are_listed_and_one_gateway_can_be_chosen(
    browser: Browser, url: str
) -> None:
    with two_windows(browser, url) as opened:
        for look, page in opened:
            log_in(page, TOKEN)
            _choose(page, look)


def _choose(page: Page, look: Look) -> None:
    page.goto("/")
    expect(page.locator(".row")).to_have_count(2)
    expect(page.locator(".row .at")).to_have_text(["loja-evolution", "pixelhub"])
    expect(page.locator(".trouble .at")).to_have_text("loja-evolution")
    check(page)

    page.select_option("select[name=gateway]", "pixelhub")
    expect(page.locator(".row")).to_have_count(1)
    assert "gateway=pixelhub" in page.url
    page.click(".row a.name")
    expect(page.locator("h1 .at")).to_have_text("pixelhub")
    expect(page.locator(".verdict .chip")).to_have_text(look.say("Connected"))
    with page.expect_response(lambda one: "/live/channel/Loja?gateway=pixelhub&since=" in one.url):
        pass
    check(page)
