"""Makes the README's pictures from the real stack: ``python -m benchmarks.page_screenshots``.

Exporter, hook, Prometheus, Alertmanager and Chromium are real, the gateway is simulated, and
Prometheus is given a past of a week, as it would have it by then.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Browser, Page, sync_playwright

from stack.configuration import ROOT, Addresses, free_or_other
from stack.loop import Loop
from stack.past import Past, Trouble, write_past
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from stack.simulator.traffic import open_message_log
from tests.browser.looks import Look, launch, log_in, window
from tests.support.waiting import wait_until
from whatsapp.settings import Listen

_IMAGES = ROOT / "docs" / "images"
_TOKEN = "the-token-of-the-screenshots"
_SECRET = "a-secret-of-the-screenshots"
_QUIET = "Suporte Noturno"
_LOST = "Loja Centro"
_STUBBORN = "financeiro"
_PASTS = [
    Past("atendimento", 140, [Trouble(19.2, 0.6)]),
    Past("imobsites", 60, [Trouble(9.5, 3.4, silent=True)]),
    Past(_LOST, 85, [Trouble(0.25, 0.25), Trouble(30, 1)]),
    Past("pixel12digital", 45, [Trouble(6.5, 0.4), Trouble(14, 0.7)]),
    Past("Recepção", 25),
    Past(_STUBBORN, 35, [Trouble(0.3, 0.3)]),
    Past(_QUIET, 18, [Trouble(12, 1.2, silent=True)]),
    Past("vendas-sp", 210),
]


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_IMAGES, help="where to put them")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with _stack() as (loop, simulator), sync_playwright() as playwright:
        browser = launch(playwright)
        url = f"http://{loop.at.hook}"
        _play(loop, simulator)
        desktop, phone = Look(1280, "en"), Look(360, "pt-BR", "dark")
        _shoot(browser, url, desktop, "/", folder / "overview.png", 880)
        _shoot(browser, url, phone, "/", folder / "overview-phone.png", 760)
        _shoot(browser, url, desktop, f"/channels/{_LOST}", folder / "qr.png", 760)
        _shoot(browser, url, Look(360, "pt-BR"), f"/channels/{_LOST}", folder / "qr-phone.png", 760)
        _shoot(browser, url, desktop, "/channels/atendimento", folder / "channel.png", None)
        browser.close()


@contextmanager
def _stack() -> Iterator[tuple[Loop, Simulator]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_url = f"sqlite:///{folder}/log.sqlite3"
        engine = open_message_log(log_url)
        with SimulatorServer(_SECRET, message_log=engine, traffic_seconds=4) as server:
            simulator = Simulator(server.url)
            env = {
                **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
                "WPP_GATEWAY_BASE_URL": server.url,
                "WPP_GATEWAY_SECRET": _SECRET,
                "MESSAGE_LOG_URL": log_url,
                "EXPORTER_POLL_SECONDS": "1",
                "RECONNECT_COOLDOWN_SECONDS": "30",
                "RECONNECT_VERIFY_SECONDS": "2",
                "HOOK_STATE_URL": f"sqlite:///{folder}/state.sqlite3",
                "HOOK_LOG_FILE": f"{folder}/hook.log",
            }
            at = Addresses(*(free_or_other(Listen("127.0.0.1", 0)) for _ in range(4)))
            loop = Loop(folder / "loop", at, env, _TOKEN)
            write_past(folder / "loop" / "prometheus", time.time() - 30, "wpp", _PASTS)
            for past in _PASTS:
                simulator.put_channel(past.channel, reconnect_seconds=1)
            with loop:
                loop.wait_until_ready()
                yield loop, simulator


def _play(loop: Loop, simulator: Simulator) -> None:
    """Let some channels fail, and wait until the page knows."""
    wait_until(lambda: len(_channels(loop)) == len(_PASTS), 90, "all channels")
    for _ in range(2):
        simulator.drop("atendimento")
        _ask(loop, "reconnect/atendimento")
        wait_until(lambda: _channels(loop)["atendimento"]["repair"] is None, 60, "the repair")
        simulator.connect("atendimento")
    simulator.put_channel(_STUBBORN, session="dead")
    simulator.drop(_STUBBORN)
    _ask(loop, f"pause/{_QUIET}", {"hours": 8})
    simulator.unpair(_LOST)
    _ask(loop, f"reconnect/{_LOST}")
    wanted = {_LOST: "needs-scan", _STUBBORN: "disconnected", "atendimento": "connected"}
    wait_until(
        lambda: {name: _channels(loop)[name]["status"] for name in wanted} == wanted,
        120,
        "the channels to be as wanted",
    )


def _channels(loop: Loop) -> dict[str, dict[str, object]]:
    answer = requests.get(
        f"http://{loop.at.hook}/api/channels", auth=("script", _TOKEN), timeout=30
    ).json()
    return {one["channel"]: one for one in answer["channels"]}


def _ask(loop: Loop, path: str, body: object = None) -> None:
    url = f"http://{loop.at.hook}/api/{path}"
    requests.post(url, json=body, auth=("script", _TOKEN), timeout=30).raise_for_status()


def _shoot(
    browser: Browser, url: str, look: Look, path: str, image: Path, height: int | None
) -> None:
    with window(browser, look, url) as page:
        log_in(page, _TOKEN)
        page.goto(path)
        _settle(page)
        if height is None:
            page.screenshot(path=image, full_page=True)
        else:
            page.set_viewport_size({"width": look.width, "height": height})
            page.screenshot(path=image)
    print(f"{image} {image.stat().st_size / 1000:.0f} kB")


def _settle(page: Page) -> None:
    """Wait for the strips and, where there is one, for the code."""
    page.wait_for_function("document.querySelector('.strip rect.connected')")
    if page.locator("#qr").count():
        page.wait_for_selector("#qr .code:not(.waiting) img")


if __name__ == "__main__":
    main()
