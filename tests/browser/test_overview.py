"""All channels at a glance."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.simulator.client import Simulator
from reconnect_hook.dashboard import readings, views
from tests.browser.axe import check
from tests.support.hooks import TOKEN
from tests.support.looks import CHANNELS, LOOKS, MISSING, Look, Windows, in_one_look, log_in, window
from tests.support.loop import World
from tests.support.site import Site
from tests.support.waiting import wait_until


def row(channel: str) -> str:
    return f'.row:has(a.name:text-is("{channel}"))'


def names(page: Page) -> list[str]:
    return page.locator(".row a.name").all_inner_texts()


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_it_shows_every_channel_and_breaks_no_rule(page: Page, look: Look) -> None:
    page.goto("/")
    expect(page.locator(".row")).to_have_count(len(CHANNELS))
    assert sorted(names(page)) == sorted(CHANNELS)
    first = page.locator(row("atendimento"))
    expect(first.locator(".chip")).to_have_text(look.say("Connected"))
    expect(first.locator(".limit")).to_have_text("/ 1 h")
    expect(first.locator("svg.strip")).to_be_visible()
    read = first.aria_snapshot()
    for words in ("Last message", "alert after"):
        assert look.say(words) in read, "a screen reader knows what the times are"
    when = first.locator("time").first
    assert "2026" not in when.inner_text()
    assert when.get_attribute("title"), "the absolute time is there on hover"
    check(page)
    page.emulate_media(forced_colors="active")
    colors = "all => new Set(all.map((one) => getComputedStyle(one).backgroundColor)).size"
    assert page.locator(".swatch").evaluate_all(colors) == 6, "the legend keeps its colours"


def test_a_drop_shows_without_reloading_and_comes_first(pages: Windows, world: World) -> None:
    for _, page in pages:
        page.goto("/")
        page.locator(f"{row('pixel12digital')} .name").focus()
    world.simulator.put_channel("imobsites", session="dead")
    world.simulator.drop("imobsites")
    try:
        for look, page in pages:
            chip = page.locator(f"{row('imobsites')} .chip")
            expect(chip).to_have_text(look.say("Disconnected"))
            expect(page.locator(".row a.name").first).to_have_text("imobsites")
            expect(page.locator(f"{row('pixel12digital')} .name")).to_be_focused()
            check(page)
    finally:
        world.simulator.put_channel("imobsites", session="paired")
        world.simulator.connect("imobsites")
    for look, page in pages:
        chip = page.locator(f"{row('imobsites')} .chip")
        expect(chip).to_have_text(look.say("Connected"))


@in_one_look
def test_a_choice_narrows_the_list_and_stays_in_the_address(page: Page, look: Look) -> None:
    page.goto("/")
    expect(page.locator(".row")).to_have_count(len(CHANNELS))
    page.fill("input[name=q]", "LOJA cen")
    expect(page.locator(".row")).to_have_count(1)
    assert names(page) == ["Loja Centro"]
    assert "q=LOJA+cen" in page.url
    page.reload()
    assert names(page) == ["Loja Centro"]
    page.fill("input[name=q]", "")
    page.select_option("select[name=sort]", "name")
    expect(page.locator(".row")).to_have_count(len(CHANNELS))
    wait_until(lambda: names(page) == sorted(CHANNELS, key=str.casefold), "the order")
    page.select_option("select[name=show]", "paused")
    expect(page.locator("#empty")).to_be_visible()
    page.reload()
    told = page.get_by_role("status").filter(has_text=look.say("No channel matches."))
    expect(told).to_be_visible()
    expect(page.locator("#channels, .columns").filter(visible=True)).to_have_count(0)
    check(page)


def test_the_language_can_be_switched_and_is_kept(page: Page, look: Look) -> None:
    page.goto("/")
    other = "Português" if look.language == "en" else "English"
    page.click(f".languages a[lang={'pt-BR' if other == 'Português' else 'en'}]")
    words = "Todos os canais" if other == "Português" else "All channels"
    expect(page.locator("select[name=show] option").first).to_have_text(words)
    page.goto("/channels/atendimento")
    expect(page.locator(".back")).to_contain_text(words)
    assert page.locator("html").get_attribute("lang") == ("pt-BR" if other != "English" else "en")


@in_one_look
def test_names_of_all_sorts_lead_to_their_pages(page: Page, look: Look) -> None:
    page.goto("/")
    page.click(row('a/../b \\"q\\" & <i>') + " a.name")
    expect(page.locator("h1")).to_have_text('a/../b "q" & <i>')
    page.click(".languages a[aria-current]")
    expect(page.locator("h1")).to_have_text('a/../b "q" & <i>')
    expect(page.locator(".verdict .chip")).to_have_text(look.say("Connected"))
    page.goto(MISSING)
    expect(page.locator("main")).to_contain_text(look.say("There is no such page or channel."))
    check(page)


@in_one_look
def test_notifications_and_documentation_fit_a_phone(page: Page, look: Look) -> None:
    page.goto("/notify")
    first, second = (card.bounding_box() for card in page.locator(".card").all())
    assert first is not None
    assert second is not None
    assert second["y"] - first["y"] - first["height"] > 5
    check(page)
    page.goto("/docs/")
    link = page.locator(".docs td a").first.bounding_box()
    assert link is not None
    assert link["height"] < 30, "a name is not broken into two lines"
    check(page)


@in_one_look
def test_of_too_many_channels_the_most_urgent_are_shown(
    browser: Browser,
    look: Look,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(views, "_MOST_ROWS", 5)
    monkeypatch.setattr(readings, "LIST_SECONDS", 0.5)
    for name in "abcdef":
        simulator.put_channel(name)
    with (
        closing(Site(simulator.url)) as site,
        site.served() as url,
        window(browser, look, url) as page,
    ):
        log_in(page, TOKEN)
        shown = page.locator(".row a.name")
        expect(shown).to_have_text([*"abcde"])
        words = "The first %(most)s of %(found)s channels are shown. Search for the others."
        expect(page.get_by_text(look.say(words, most=5, found=6))).to_be_visible()
        check(page)
        simulator.drop("f")
        expect(shown).to_have_text([*"fabcd"])
        simulator.connect("f")
        expect(shown).to_have_text([*"abcde"])
        page.fill("input[name=q]", "f")
        expect(shown).to_have_text(["f"])
        expect(page.get_by_text(look.say(words, most=5, found=6))).to_have_count(0)
