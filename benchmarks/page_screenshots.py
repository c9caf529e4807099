"""Takes screenshots of the pages on the real stack: ``python -m benchmarks.page_screenshots``.

Exporter, hook, Prometheus, Alertmanager and Chromium are real, the gateway is simulated, and
Prometheus is backfilled with a week of samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import requests
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.whole_stack import TOKEN, whole_stack
from demo.configuration import ALERTMANAGER, ROOT
from demo.loop import Loop
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings
from tests.support.hooks import TOKEN as HOOK_TOKEN
from tests.support.inbox import Inbox
from tests.support.looks import Look, launch, log_in, window
from tests.support.past import Past, PastProblem
from tests.support.programs import Program
from tests.support.waiting import wait_until

_IMAGES = ROOT / "docs" / "images"
_SETTINGS = {
    "EXPORTER_POLL_SECONDS": "1",
    "RECONNECT_COOLDOWN_SECONDS": "30",
    "RECONNECT_VERIFY_SECONDS": "2",
}
_QUIET = "Suporte Noturno"
_LOST = "Loja Centro"
_STUBBORN = "financeiro"
_PASTS = [
    Past("atendimento", 140, [PastProblem(19.2, 0.6)]),
    Past("imobsites", 60, [PastProblem(9.5, 3.4, silent=True)]),
    Past(_LOST, 85, [PastProblem(0.25, 0.25), PastProblem(30, 1)]),
    Past("pixel12digital", 45, [PastProblem(6.5, 0.4), PastProblem(14, 0.7)]),
    Past("Recepção", 25),
    Past(_STUBBORN, 35, [PastProblem(0.3, 0.3)]),
    Past(_QUIET, 18, [PastProblem(12, 1.2, silent=True)]),
    Past("vendas-sp", 210),
]


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_IMAGES, help="where to put them")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    channels = [past.channel for past in _PASTS]
    with (
        TemporaryDirectory() as place,
        Inbox() as inbox,
        whole_stack(
            channels, _SETTINGS, _PASTS, _with_people(Path(place) / "alertmanager", inbox)
        ) as (loop, simulator),
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        url = f"http://{loop.at.hook}"
        _play(loop, simulator)
        desktop, phone = Look(1280, "en"), Look(360, "pt-BR", "dark")
        _shoot(browser, url, desktop, "/", folder / "overview.png", None)
        _shoot(browser, url, phone, "/", folder / "overview-phone.png", 760)
        _shoot(browser, url, desktop, f"/channels/{_LOST}", folder / "qr.png", 760)
        _shoot(browser, url, Look(360, "pt-BR"), f"/channels/{_LOST}", folder / "qr-phone.png", 760)
        _shoot(browser, url, desktop, "/channels/atendimento", folder / "channel.png", None)
        _shoot_scan_pages(browser, folder)
        _shoot_steps(browser, url, desktop, folder / "steps.png")
        browser.close()


def _with_people(folder: Path, inbox: Inbox) -> Path:
    """Return a copy of Alertmanager's folder with a Slack receiver for operators."""
    copytree(ALERTMANAGER, folder)
    file = folder / "alertmanager.yml"
    config = yaml.safe_load(file.read_text())
    people = next(one for one in config["receivers"] if one["name"] == "people")
    people["slack_configs"] = [{"api_url": f"{inbox.http}/slack", "channel": "#whatsapp"}]
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def _shoot_scan_pages(browser: Browser, folder: Path) -> None:
    """Take the share dialog and the visitor's page, on a gateway with pairing codes."""
    with (
        TemporaryDirectory() as place,
        SimulatorServer(SECRET, api="waha") as server,
        Program(
            Path(place),
            "reconnect_hook",
            "serve",
            settings=hook_settings(server.url, WPP_GATEWAY_TYPE="waha"),
        ) as hook,
    ):
        Simulator(server.url).put_channel(_LOST, session="unpaired", status="qr_required")

        def api(method: str, path: str, body: object = None) -> dict[str, str]:
            url, auth = f"{hook.url}/api/{path}", ("script", HOOK_TOKEN)
            found = requests.request(method, url, json=body, auth=auth, timeout=30)
            return dict(found.json())

        api("POST", f"reconnect/{_LOST}")
        wait_until(
            lambda: api("GET", f"channels/{_LOST}").get("status") == "needs-scan", "the code"
        )
        for name in ("matriz", "balcão"):
            link = api("POST", f"scan-links/{_LOST}", {"name": name})
        requests.get(link["url"], timeout=30)
        for language, image in (("en", "scan-phone.png"), ("pt-BR", "scan-phone-pt.png")):
            look = Look(360, language)
            with window(browser, look, hook.url) as page:
                page.goto(link["url"])
                page.wait_for_selector("#qr .code:not(.waiting) img")
                page.fill(".pair input", "+55 29 91234-5678")
                page.click(".pair-form button")
                page.wait_for_selector(".pair-code:visible")
                _save(page, folder / image, full_page=True)
        with window(browser, Look(1280, "en"), hook.url) as page:
            log_in(page, HOOK_TOKEN)
            page.goto(f"/channels/{_LOST}")
            page.wait_for_selector("#qr .code:not(.waiting) img")
            page.click("#qr a.share")
            page.fill("dialog input[name=name]", "front desk")
            page.locator("dialog").screenshot(path=folder / "share.png")


def _play(loop: Loop, simulator: Simulator) -> None:
    """Make some channels fail, and wait until the API shows their statuses."""
    wait_until(lambda: len(_channels(loop)) == len(_PASTS), "all channels")
    for _ in range(2):
        simulator.drop("atendimento")
        _ask(loop, "reconnect/atendimento")
        wait_until(lambda: _channels(loop)["atendimento"]["repair"] is None, "the repair")
        simulator.connect("atendimento")
    simulator.put_channel(_STUBBORN, session="dead")
    simulator.drop(_STUBBORN)
    _ask(loop, f"pause/{_QUIET}", {"hours": 8})
    simulator.unpair(_LOST)
    _ask(loop, f"reconnect/{_LOST}")
    wanted = {_LOST: "needs-scan", _STUBBORN: "disconnected", "atendimento": "connected"}
    wait_until(
        lambda: {name: _channels(loop)[name]["status"] for name in wanted} == wanted,
        "the channels to be as wanted",
    )


def _channels(loop: Loop) -> dict[str, dict[str, object]]:
    answer = requests.get(
        f"http://{loop.at.hook}/api/channels", auth=("script", TOKEN), timeout=30
    ).json()
    return {one["channel"]: one for one in answer["channels"]}


def _ask(loop: Loop, path: str, body: object = None) -> None:
    url = f"http://{loop.at.hook}/api/{path}"
    requests.post(url, json=body, auth=("script", TOKEN), timeout=30).raise_for_status()


def _shoot(
    browser: Browser, url: str, look: Look, path: str, image: Path, height: int | None
) -> None:
    with window(browser, look, url) as page:
        log_in(page, TOKEN)
        page.goto(path)
        _settle(page)
        if height is None:
            _save(page, image, full_page=True)
        else:
            page.set_viewport_size({"width": look.width, "height": height})
            _save(page, image)


def _save(page: Page, image: Path, *, full_page: bool = False) -> None:
    page.screenshot(path=image, full_page=full_page)
    print(f"{image} {image.stat().st_size / 1000:.0f} kB")


def _shoot_steps(browser: Browser, url: str, look: Look, image: Path) -> None:
    with window(browser, look, url) as page:
        log_in(page, TOKEN)
        page.goto("/channels/atendimento")
        page.click(".logged summary")
        page.locator("[data-part=log]").screenshot(path=image)
    print(f"{image} {image.stat().st_size / 1000:.0f} kB")


def _settle(page: Page) -> None:
    """Wait for the timelines and, on a page with one, for the QR code."""
    page.wait_for_function("document.querySelector('.strip rect.connected')")
    if page.locator("#qr").count():
        page.wait_for_selector("#qr .code:not(.waiting) img")


if __name__ == "__main__":
    main()
