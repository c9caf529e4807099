"""20 gateways with 500 channels each, one of everything: ``python -m benchmarks.many_gateways``.

Exporter, hook, Prometheus and Alertmanager are real, with the shipped configuration. The gateways
are simulated, in a process of their own, each with a message log of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import requests

from benchmarks.idle_gateways import costs
from stack.configuration import Addresses, free_or_other
from stack.loop import PROGRAMS, Loop, get
from stack.simulator.client import Simulator
from stack.simulator.server import SimulatorServer
from stack.simulator.traffic import open_message_log
from whatsapp.settings import Listen

_GATEWAYS = 20
_CHANNELS = 500  # of each
_DROPPED = 25  # of each, all at once
_TRAFFIC_SECONDS = 60.0  # between two messages of a channel
_SETTLE_SECONDS = 120.0
_SECRET = "a-secret-of-the-benchmarks"
_TOKEN = "the-token-of-the-benchmarks"
_RULE_SECONDS = re.compile(r'rule_group_last_duration_seconds\{rule_group="[^;]*;([^"]+)"\} (\S+)')


def main() -> None:
    """Measure and print."""
    print(f"{_GATEWAYS} gateways with {_CHANNELS} channels each, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        ours, theirs = multiprocessing.Pipe()
        simulators = multiprocessing.get_context("spawn").Process(
            target=_simulate, args=(folder, theirs)
        )
        simulators.start()
        theirs.close()  # so that the end of the simulators is noticed
        running.callback(simulators.join)
        running.callback(ours.send, "end")
        urls: list[str] = ours.recv()
        loop = running.enter_context(_loop(folder, urls))
        loop.wait_until_ready()
        _wait(lambda: _value(loop, "count(whatsapp_channel_connected)") == _GATEWAYS * _CHANNELS)
        print(f"watching {_GATEWAYS * _CHANNELS} channels", flush=True)
        time.sleep(_SETTLE_SECONDS)
        _print_scrapes(loop)
        for program in PROGRAMS:
            print(f"  {program:16} {costs(loop.children.pid(program))}", flush=True)
        _print_drops(folder / "hook.log", urls)


def _simulate(folder: Path, told: Connection) -> None:
    """Be all gateways, until told to end."""
    with ExitStack() as running:
        urls = []
        for number in range(_GATEWAYS):
            log = open_message_log(_log_url(folder, number))
            server = SimulatorServer(_SECRET, message_log=log, traffic_seconds=_TRAFFIC_SECONDS)
            urls.append(running.enter_context(server).url)
            simulator = Simulator(urls[-1])
            for channel in range(_CHANNELS):
                simulator.put_channel(f"channel{channel}", reconnect_seconds=1)
        told.send(urls)
        told.recv()


def _log_url(folder: Path, number: int) -> str:
    return f"sqlite:///{folder}/log{number}.sqlite3"


def _loop(folder: Path, urls: list[str]) -> Loop:
    file = folder / "gateways.yaml"
    entries = (
        f"- {{name: g{number}, type: wrapper, url: '{url}', secret: {_SECRET}, "
        f"message_log_url: '{_log_url(folder, number)}'}}\n"
        for number, url in enumerate(urls)
    )
    file.write_text("gateways:\n" + "".join(entries))
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("WPP_", "DB_"))},
        "GATEWAYS_FILE": str(file),
        "HOOK_STATE_URL": f"sqlite:///{folder}/state.sqlite3",
        "HOOK_LOG_FILE": f"{folder}/hook.log",
    }
    at = Addresses(*(free_or_other(Listen("127.0.0.1", 0)) for _ in range(4)))
    return Loop(folder / "loop", at, env, _TOKEN)


def _print_scrapes(loop: Loop) -> None:
    exporter = '{job="zapwatch-exporter"}'
    for what, query in (
        ("scrape, median", f"quantile_over_time(0.5, scrape_duration_seconds{exporter}[2m])"),
        ("scrape, slowest", f"max_over_time(scrape_duration_seconds{exporter}[2m])"),
    ):
        print(f"  {what:16} {_value(loop, query) * 1000:.0f} ms")
    print(f"  samples          {_value(loop, f'scrape_samples_scraped{exporter}'):.0f}")
    groups = _RULE_SECONDS.findall(get(f"http://{loop.at.prometheus}/metrics").text)
    for group, seconds in groups:
        print(f"  rules {group:10} {float(seconds) * 1000:.0f} ms")


def _print_drops(log: Path, urls: list[str]) -> None:
    """Drop channels of all gateways at once, and print how long it takes to repair them."""
    dropped_at = time.monotonic()
    for url in urls:
        for channel in range(_DROPPED):
            Simulator(url).drop(f"channel{channel}")
    print(f"dropped {_GATEWAYS * _DROPPED} in {time.monotonic() - dropped_at:.1f} s", flush=True)
    seen: list[float] = []

    def all_repaired() -> bool:
        lines = log.read_text().count("outcome=reconnected") if log.exists() else 0
        seen.extend([time.monotonic() - dropped_at] * (lines - len(seen)))
        return lines >= _GATEWAYS * _DROPPED

    _wait(all_repaired)
    print(f"  repaired: half within {statistics.median(seen):.0f} s, all within {seen[-1]:.0f} s")
    calls = [sum(c["operation"] == "qr" for c in Simulator(url).requests()) for url in urls]
    print(f"  calls of getQr: {sum(calls)} for {_GATEWAYS * _DROPPED} drops")


def _value(loop: Loop, query: str) -> float:
    url = f"http://{loop.at.prometheus}/api/v1/query"
    found = requests.get(url, params={"query": query}, timeout=10).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def _wait(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.5)


if __name__ == "__main__":
    main()
