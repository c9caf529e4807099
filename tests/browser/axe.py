"""What holds for every page: no rule of accessibility is broken, nothing sticks out at the side."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # All others would be sent here, and are half of the work.
    "resultTypes": ["violations"],
}


def check(page: Page) -> None:
    """Look at the page as it is now."""
    results = Axe().run(page, options=_OPTIONS)
    assert results.violations_count == 0, results.generate_report()
    sticks_out = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert sticks_out <= 0, f"{sticks_out} pixels"
