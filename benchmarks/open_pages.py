"""Cost of open pages: ``python -m benchmarks.open_pages [--pages 50] [--minutes 5]``.

Runs the whole stack with a simulated gateway, sends the requests of that many open pages, and
prints the hook's share of a core and its calls to the gateway, with the pages and without them.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests

from benchmarks.whole_stack import TOKEN, whole_stack
from demo.loop import Loop
from demo.simulator.client import Simulator
from tests.support.waiting import wait_until

_LIVE_SECONDS = 3.0  # as in page.js
_TICKS = os.sysconf("SC_CLK_TCK")


class OpenPage(threading.Thread):
    """Polls for changes, as the overview's script does."""

    def __init__(self, url: str, cookie: str, begin: float, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._cookie = cookie
        self._begin = begin
        self._ended = end
        self.answers = 0

    def run(self) -> None:
        """Poll until the end event is set."""
        tag = ""
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Cookie"] = self._cookie
            self._ended.wait(self._begin)
            while not self._ended.is_set():
                query = {"q": "", "show": "all", "sort": "urgency", "since": tag}
                answer = session.get(f"{self._url}/live/channels", params=query, timeout=30)
                answer.raise_for_status()
                self.answers += 1
                if answer.status_code == 200:
                    tag = answer.json()["tag"]
                self._ended.wait(_LIVE_SECONDS)


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="with the pages; without: a half"
    )
    parser.add_argument("--channels", type=int, default=20)
    options = parser.parse_args()
    channels = [f"channel-{number:03}" for number in range(options.channels)]
    with whole_stack(channels, {}) as (loop, simulator):
        _measure(loop, simulator, options.pages, options.minutes * 60)


def _measure(loop: Loop, simulator: Simulator, pages: int, seconds: float) -> None:
    url = f"http://{loop.at.hook}"
    cookie = _log_in(url)
    wait_until(lambda: _known(url, cookie), "the page to know the channels")
    time.sleep(20)  # until the hook no longer counts a page as open
    without = _during(loop, simulator, seconds / 2, lambda: None)
    ended = threading.Event()
    opened = [
        OpenPage(url, cookie, number * _LIVE_SECONDS / pages, ended) for number in range(pages)
    ]

    def begin() -> None:
        for page in opened:
            page.start()

    with_pages = _during(loop, simulator, seconds, begin)
    ended.set()
    for page in opened:
        page.join()
    answers = sum(page.answers for page in opened)
    print(f"{'':24}{'of a core':>12}{'hook to gateway':>18}{'all lists, a min':>18}")
    for name, (share, calls, lists) in (
        ("no page", without),
        (f"{pages} pages", with_pages),
    ):
        print(f"{name:24}{share:12.1%}{calls:18}{lists:18.1f}")
    print(f"{answers} answers in {seconds:.0f} s; the exporter's lists go on as before")


def _during(
    loop: Loop, simulator: Simulator, seconds: float, begin: Callable[[], None]
) -> tuple[float, int, float]:
    """Return the hook's share of a core, its calls, and all list calls per minute."""
    simulator.clear_requests()
    calls, cpu, at = _hook_calls(loop), _cpu(loop), time.monotonic()
    begin()
    time.sleep(seconds)
    took = time.monotonic() - at
    lists = len(simulator.requests("list")) / took * 60
    return (_cpu(loop) - cpu) / took, _hook_calls(loop) - calls, lists


def _hook_calls(loop: Loop) -> int:
    """Return the number of the hook's gateway calls, from its metrics."""
    page = requests.get(f"http://{loop.at.hook}/metrics", timeout=30).text
    name = "whatsapp_gateway_request_duration_seconds_count"
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith(name))


def _cpu(loop: Loop) -> float:
    """Return the hook's CPU time in seconds."""
    fields = (
        Path(f"/proc/{loop.children.pid('reconnect_hook')}/stat")
        .read_text()
        .rpartition(")")[2]
        .split()
    )
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _log_in(url: str) -> str:
    with requests.Session() as session:
        session.post(f"{url}/login", {"token": TOKEN}, timeout=30)
        return f"zapwatch={session.cookies['zapwatch']}"


def _known(url: str, cookie: str) -> bool:
    page = requests.get(f"{url}/live/channels", headers={"Cookie": cookie}, timeout=30)
    return bool(page.json()["rows"])


if __name__ == "__main__":
    main()
