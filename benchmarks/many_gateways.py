"""Many gateways on one installation: time to repair drops on all of them, and its cost.

    python -m benchmarks.many_gateways [GATEWAYS CHANNELS]

By default 20 gateways with 500 channels each; 25 of each gateway drop. Exporter, hook, Prometheus
and Alertmanager are real, with the shipped configuration. The gateways are simulated in a separate
process, each with its own message log.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import requests

from benchmarks.idle_gateways import costs
from demo.configuration import Addresses
from demo.loop import PROGRAMS, Loop, get
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from tests.support.ports import free

_DROPPED = 25  # per gateway, all at once
_TRAFFIC_SECONDS = 60.0  # between two messages of a channel
_SETTLE_SECONDS = 120.0
_SECRET = "a-secret-of-the-benchmarks"
_TOKEN = "the-token-of-the-benchmarks"
_RULE_SECONDS = re.compile(r'rule_group_last_duration_seconds\{rule_group="[^;]*;([^"]+)"\} (\S+)')


def main() -> None:
    """Run the benchmark and print the results."""
    gateways, channels = map(int, sys.argv[1:3] or (20, 500))
    all_channels = gateways * channels
    print(f"{gateways} gateways with {channels} channels each, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        ours, theirs = multiprocessing.Pipe()
        simulators = multiprocessing.get_context("spawn").Process(
            target=_simulate, args=(folder, theirs, gateways, channels)
        )
        simulators.start()
        theirs.close()  # so that recv() fails if the simulators end
        running.callback(simulators.join)
        running.callback(ours.send, "end")
        urls: list[str] = ours.recv()
        loop = running.enter_context(_loop(folder, urls))
        loop.wait_until_ready()

        def listed() -> float:
            return _query(loop, "count(whatsapp_channel_connected)") or 0

        _wait(
            lambda: listed() == all_channels,
            lambda: f"{all_channels} channels in Prometheus: it has {listed():.0f}",
        )
        print(f"watching {all_channels} channels", flush=True)
        time.sleep(_SETTLE_SECONDS)
        _print_scrapes(loop)
        for program in PROGRAMS:
            print(f"  {program:16} {costs(loop.children.pid(program))}", flush=True)
        _print_drops(folder / "hook.log", urls, min(_DROPPED, channels))


def _simulate(folder: Path, told: Connection, gateways: int, channels: int) -> None:
    """Simulate all gateways until a message arrives."""
    with ExitStack() as running:
        urls = []
        for number in range(gateways):
            log = open_message_log(_log_url(folder, number))
            server = SimulatorServer(_SECRET, message_log=log, traffic_seconds=_TRAFFIC_SECONDS)
            urls.append(running.enter_context(server).url)
            simulator = Simulator(urls[-1])
            for channel in range(channels):
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
    at = Addresses(*(free() for _ in range(4)))
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


def _print_drops(log: Path, urls: list[str], of_each: int) -> None:
    """Drop channels of all gateways at once, and print the times of their repairs."""
    drops = len(urls) * of_each
    began = time.monotonic()
    dropped: dict[tuple[str, str], float] = {}
    for url in urls:
        for channel in (f"channel{number}" for number in range(of_each)):
            dropped[url, channel] = time.monotonic()
            Simulator(url).drop(channel)
    print(f"dropped {drops} in {time.monotonic() - began:.1f} s", flush=True)
    repaired: list[float] = []

    def all_repaired() -> bool:
        lines = log.read_text().count("outcome=reconnected") if log.exists() else 0
        repaired.extend([time.monotonic()] * (lines - len(repaired)))
        return lines >= drops

    _wait(all_repaired, lambda: f"{drops} repairs in the hook's log: it has {len(repaired)}")
    half, last = statistics.median(repaired) - began, repaired[-1] - began
    print(f"  repaired: half within {half:.0f} s, all within {last:.0f} s")
    calls = [(url, call) for url in urls for call in Simulator(url).requests("qr")]
    print(f"  calls of getQr: {len(calls)} for {drops} drops")
    first: dict[tuple[str, str], float] = {}
    for url, call in calls:
        first.setdefault((url, call["channel"]), call["monotonic"])
    missing = dropped.keys() - first.keys()
    if missing:
        raise LookupError(f"the journals have no getQr for {len(missing)} of the channels")
    waited = [first[one] - at for one, at in dropped.items()]
    print(f"  drop to getQr: median {statistics.median(waited):.1f} s, worst {max(waited):.1f} s")
    minutes = (repaired[-1] - min(first.values())) / 60
    print(f"  repairs: {drops / minutes:.0f} a minute, from the first getQr to the last repair")


def _query(loop: Loop, query: str) -> float | None:
    """Return the first value of a Prometheus query, None without one."""
    url = f"http://{loop.at.prometheus}/api/v1/query"
    found = requests.get(url, params={"query": query}, timeout=10).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def _value(loop: Loop, query: str) -> float:
    value = _query(loop, query)
    if value is None:
        raise LookupError(f"Prometheus has nothing for {query}")
    return value


def _wait(
    condition: Callable[[], bool], awaited: Callable[[], str], seconds: float = 300.0
) -> None:
    """Wait for a condition; ``awaited`` describes it and the progress for the error."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{seconds:.0f} s were not enough for {awaited()}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
