"""Chromium windows in the sizes and languages that the page supports."""

from __future__ import annotations

import gettext
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

from reconnect_hook import dashboard as package
from tests.support.waiting import TIMEOUT, wait_until

WORLD_TOKEN = "the-token-of-the-tests"
CHANNELS = ("atendimento", 'a/../b "q" & <i>', "imobsites", "Loja Centro", "pixel12digital")
"""Token and channels of the browser tests' whole stack."""

MISSING = "/channels/nobody"
"""The only path that may answer 404."""

_CATALOGS = Path(package.__file__).parent / "translations"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@dataclass(frozen=True)
class Look:
    """A window's width, language and colour scheme."""

    width: int
    language: str
    scheme: str = "light"

    @property
    def phone(self) -> bool:
        return self.width < 500

    def say(self, text: str, **values: object) -> str:
        """Return a text of the page in this window's language."""
        if self.language != "en":
            catalog = gettext.translation("messages", _CATALOGS, [self.language.replace("-", "_")])
            translated = catalog.gettext(text)
            assert translated, text
            text = translated
        return text % values if values else text

    def __str__(self) -> str:
        return f"{self.width}-{self.language}-{self.scheme}"


LOOKS = [Look(360, "en"), Look(360, "pt-BR", "dark"), Look(1280, "en", "dark"), Look(1280, "pt-BR")]
"""Both sizes in both languages, and both schemes in each size: for the fullest pages."""

TWO_LOOKS = [LOOKS[1], Look(1280, "en")]
"""Each size, language and scheme once."""

in_one_look = pytest.mark.parametrize("look", TWO_LOOKS[:1], ids=str)
"""Marks tests that are the same in every window; the translated one suffices."""

Windows = list[tuple[Look, Page]]


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium."""
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_ARGUMENTS)


@contextmanager
def window(browser: Browser, look: Look, url: str) -> Iterator[Page]:
    """Open a window; an unexpected error or warning in its console fails the test."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": look.width, "height": 780},
        locale=look.language,
        color_scheme="dark" if look.scheme == "dark" else "light",
        timezone_id="America/Sao_Paulo",
        reduced_motion="reduce",
    )
    context.set_default_timeout(TIMEOUT * 1000)
    try:
        page = context.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if _counts(message) else None)
        yield page
        assert not said, f"the browser complains: {said}"
    finally:
        context.close()


@contextmanager
def two_windows(browser: Browser, url: str) -> Iterator[Windows]:
    """Open both of TWO_LOOKS at once, so that slow operations are awaited once."""
    with ExitStack() as stack:
        yield [(look, stack.enter_context(window(browser, look, url))) for look in TWO_LOOKS]


def _counts(message: ConsoleMessage) -> bool:
    # Other messages are harmless, such as one about a field that already has the focus.
    if message.type not in {"error", "warning"}:
        return False
    if "status of 404" in message.text and message.location["url"].endswith(MISSING):
        return False
    # The browser reports expected failures too: a refused login or code, an expired link, a hook
    # that has stopped.
    expected = (
        "status of 401",
        "status of 404",
        "status of 409",
        "status of 429",
        "net::ERR_CONNECTION_REFUSED",
        "ERR_EMPTY_RESPONSE",
    )
    return not any(one in message.text for one in expected)


def log_in(page: Page, token: str) -> None:
    """Log in by the form, from any page."""
    page.goto("/login")
    page.fill("input[name=token]", token)
    page.click(".login button")
    page.wait_for_selector("#channels", state="attached")


def wait_for_three(page: Page, codes: Collection[object]) -> None:
    """Wait until the page, whose events add to ``codes``, has shown three different ones."""

    def are_there() -> bool:
        page.evaluate("0")  # the browser's events arrive
        return len(set(codes)) >= 3

    wait_until(are_there, "the code to be renewed")
