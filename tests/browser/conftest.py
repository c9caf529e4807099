"""What the browser's tests share: one Chromium, one stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET
from tests.support.looks import (
    CHANNELS,
    TWO_LOOKS,
    WORLD_TOKEN,
    Look,
    Windows,
    launch,
    log_in,
    two_windows,
    window,
)
from tests.support.loop import World
from tests.support.waiting import TIMEOUT

expect.set_options(timeout=TIMEOUT * 1000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = launch(playwright)
        yield made
        made.close()


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run exporter, hook, Prometheus and Alertmanager, with the gateway simulated."""
    folder = tmp_path_factory.mktemp("world")
    url = sa.make_url(f"sqlite:///{folder}/log.sqlite3")
    settings = {"SILENT_HOURS": "1", "RECONNECT_COOLDOWN_SECONDS": "0"}
    with World(folder, url, CHANNELS, settings) as made:
        yield made


@pytest.fixture(params=TWO_LOOKS, ids=str)
def look(request: pytest.FixtureRequest) -> Look:
    made = request.param
    assert isinstance(made, Look)
    return made


@pytest.fixture
def page(browser: Browser, world: World, look: Look) -> Iterator[Page]:
    """Open a window that is logged in, on the whole stack."""
    with window(browser, look, f"http://{world.loop.at.hook}") as opened:
        log_in(opened, WORLD_TOKEN)
        yield opened


@pytest.fixture
def pages(browser: Browser, world: World) -> Iterator[Windows]:
    with two_windows(browser, f"http://{world.loop.at.hook}") as opened:
        for _, page in opened:
            log_in(page, WORLD_TOKEN)
        yield opened


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with SimulatorServer(SECRET) as server:
        yield Simulator(server.url)
