"""500 channels, and a past of a week, on a real Prometheus."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.axe import check
from tests.support.hooks import TOKEN, hook_settings
from tests.support.http_servers import Exposition
from tests.support.looks import Look, in_one_look, log_in, window
from tests.support.past import Past, PastProblem, write_past
from tests.support.programs import Fork, Program
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_until

_COUNT = 500
_WITH_PAST = "channel-007"
_LEARNED = 16_234.5  # seconds
_AUTH = ("tests", TOKEN)


def _metrics(now: float) -> str:
    """Return 500 channels: each tenth is disconnected, and one is silent."""
    lines = ['whatsapp_gateway_up{gateway="wpp"} 1', 'whatsapp_message_log_up{gateway="wpp"} 1']
    for number in range(_COUNT):
        labels = f'{{gateway="wpp",channel="channel-{number:03}"}}'
        connected = int(number % 10 != 3)
        silent = number == 42
        lines += [
            f"whatsapp_channel_connected{labels} {connected}",
            f"whatsapp_channel_silence_threshold_seconds{labels} {_LEARNED if silent else 14400}",
            f"whatsapp_channel_seconds_since_last_message{labels} {20_000 if silent else number}",
        ]
    return "\n".join(lines) + f"\nnow {now}\n"


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder: Path = tmp_path_factory.mktemp("many")
    exposition = Exposition(_metrics(time.time()))
    prometheus = Prometheus(folder, exposition.at)
    past = Past(_WITH_PAST, 60, [PastProblem(6, 1.5), PastProblem(15, 2, silent=True)])
    write_past(prometheus.data, time.time() - 120, [past])
    settings = hook_settings(
        "http://127.0.0.1:1",
        PROMETHEUS_URL=prometheus.url,
        ALERTMANAGER_URL="http://127.0.0.1:1",
    )
    with prometheus, Fork(folder, "reconnect_hook", "serve", settings=settings) as program:
        yield program
    exposition.close()


@pytest.fixture
def page(browser: Browser, hook: Program, look: Look) -> Iterator[Page]:
    with window(browser, look, hook.url) as opened:
        log_in(opened, TOKEN)
        yield opened


def test_the_page_of_500_channels_is_made_within_300_ms(hook: Program) -> None:
    def rows() -> int:
        answer = requests.get(f"{hook.url}/", auth=_AUTH, timeout=30)
        return answer.text.count('<li class="row ')

    wait_until(lambda: rows() == _COUNT, "all channels")
    begun = _cpu_seconds(hook)
    for _ in range(10):
        assert rows() == _COUNT
    # Of the processor, since others use this machine too: usually 15 ms.
    seconds = (_cpu_seconds(hook) - begun) / 10
    assert seconds < 0.3
    print(f"500 channels: {seconds * 1000:.0f} ms")  # noqa: T201


def _cpu_seconds(program: Program) -> float:
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@in_one_look
def test_500_channels_can_be_searched_and_sorted(page: Page, look: Look) -> None:
    page.goto("/")
    expect(page.locator(".row")).to_have_count(_COUNT)
    expect(page.locator(".row .name").first).to_have_text("channel-003")
    expect(page.locator(".row .chip").first).to_have_text(look.say("Disconnected"))
    page.select_option("select[name=show]", "trouble")
    expect(page.locator(".row")).to_have_count(51)
    page.select_option("select[name=sort]", "message")
    expect(page.locator(".row .name").first).to_have_text("channel-042")
    expect(page.locator(".row .chip").first).to_have_text(look.say("No messages"))
    expect(page.locator(".row .limited").first).to_have_text("/ 4,5 h")
    page.fill("input[name=q]", "channel-01")
    expect(page.locator(".row")).to_have_count(1)
    check(page)


def test_the_past_is_drawn(page: Page, hook: Program, look: Look) -> None:
    def has_strip() -> bool:
        text = requests.get(f"{hook.url}/channels/{_WITH_PAST}", auth=_AUTH, timeout=30).text
        return 'class="disconnected"' in text

    wait_until(has_strip, "the last 24 hours")
    page.goto(f"/channels/{_WITH_PAST}")
    strip = page.locator(".wide-strip svg")
    label = strip.get_attribute("aria-label") or ""
    words = look.say("disconnected for %(hours)s h", hours="@").partition("@")[0]
    assert words in label
    assert look.say("no messages for %(hours)s h", hours="@").partition("@")[0] in label
    down = strip.locator("rect.disconnected")
    # An hour and a half is six or seven quarters.
    assert 5 <= sum(float(width or 0) for width in _widths(down)) <= 8
    facts = page.locator(".facts").text_content() or ""
    assert re.search(r"9[34](?:[.,]\d+)?%.*99(?:[.,]\d+)?%", facts), facts
    bars = page.locator(".chart g")
    assert bars.count() > 100
    # The server is in UTC, whoever looks is in São Paulo.
    begins = int(bars.first.get_attribute("data-hour") or 0)
    there = time.strftime("%H:00", time.gmtime(begins - 3 * 3600))
    assert there.lstrip("0") in _as_24_hours(bars.first.locator("title").text_content() or "")
    chart = page.locator(".chart").get_attribute("aria-label") or ""
    assert any(character.isdigit() for character in chart)
    check(page)
    page.goto("/channels/channel-000")  # known since the test began
    unknown = re.compile(look.say("unknown for %(hours)s h", hours=r"23[.,]\d"))
    expect(page.locator(".wide-strip svg")).to_have_attribute("aria-label", unknown)


def _as_24_hours(text: str) -> str:
    found = re.search(r"(\d+):(\d\d)\W*(AM|PM)?", text)
    assert found is not None, text
    hour = int(found[1]) % 12 + 12 * (found[3] == "PM") if found[3] else int(found[1])
    return f"{hour}:{found[2]}"


def _widths(shapes: object) -> list[str | None]:
    return [one.get_attribute("width") for one in shapes.all()]  # type: ignore[attr-defined]


def test_what_is_polled_is_only_what_has_changed(hook: Program) -> None:
    first = requests.get(f"{hook.url}/live/channels", auth=_AUTH, timeout=30).json()
    assert len(first["rows"]) == _COUNT

    def unchanged() -> bool:
        again = requests.get(
            f"{hook.url}/live/channels", {"since": first["tag"]}, auth=_AUTH, timeout=30
        )
        if again.status_code == 204:
            return True
        first["tag"] = again.json()["tag"]
        return False

    wait_until(unchanged, "an answer without a body")
