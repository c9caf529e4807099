"""Seconds from drop to getQr: p50 and p95 of random drops on the shipped configuration.

    python -m benchmarks.drop_to_getqr [DROPS]

Runs real Prometheus, Alertmanager and MariaDB with the shipped intervals against a simulated
gateway, and compares with the cron script, which finds a drop after 450 s on average.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from demo.configuration import RULES
from tests.support.loop import World
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until

_CRON_SECONDS = 900.0
_SPREAD_SECONDS = 120.0


def main() -> None:
    """Run the benchmark and print the results."""
    drops = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    channels = tuple(f"channel{number:02d}" for number in range(drops))
    shipped = {"EXPORTER_POLL_SECONDS": "5", "SILENT_HOURS": "4"}
    with tempfile.TemporaryDirectory() as folder, MariaDb() as server:
        url = server.url(server.create_database())
        with World(Path(folder), url, channels, shipped, RULES) as world:
            dropped = _drop_all(world, channels)
            wait_until(lambda: len(_called(world)) == drops, "every drop to be found")
            called = _called(world)
    seconds = sorted(called[channel] - dropped[channel] for channel in channels)
    p50 = statistics.median(seconds)
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    print(f"{drops} drops at random moments, to getQr: p50 {p50:.1f} s, p95 {p95:.1f} s,")
    cron = _CRON_SECONDS / 2
    print(f"slowest {seconds[-1]:.1f} s; ", end="")
    print(f"the cron script: {cron:.0f} s, {cron / p50:.0f} times as long")


def _drop_all(world: World, channels: tuple[str, ...]) -> dict[str, float]:
    moments = sorted(random.uniform(0, _SPREAD_SECONDS) for _ in channels)
    began = time.monotonic()
    dropped = {}
    for channel, moment in zip(channels, moments, strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        dropped[channel] = time.monotonic()
        world.simulator.drop(channel)
    return dropped


def _called(world: World) -> dict[str, float]:
    """Return the time of each channel's first getQr call, by the same clock as the drops."""
    called: dict[str, float] = {}
    for call in world.simulator.requests("qr"):
        called.setdefault(call["channel"], call["monotonic"])
    return called


if __name__ == "__main__":
    main()
