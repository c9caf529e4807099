"""Scrapes of the exporter while it polls, against rendering the same metrics at each scrape.

    python -m benchmarks.scrape

The exporter runs as a process on a real MariaDB, polls every second, and is scraped 200 times as by
Prometheus (OpenMetrics, gzip). The baseline is prometheus-client's generate_latest on the same
families. Then the scrapes are repeated during a list call of 90 s, and the exporter's shutdown in
that call is timed.
"""

from __future__ import annotations

import statistics
import time

from prometheus_client import generate_latest

from benchmarks.exporter_at_work import AtWork, exporter_at_work
from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.pollers import GatewayState, LogState, StateStore
from exporter.silence.model import Threshold
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode
from zapwatch.messages.message import ActivitySnapshot, Direction

_SIZES = (10, 1000, 10_000)
_SCRAPES = 200
_PAUSE_SECONDS = 0.05
_SLOW_LIST_SECONDS = 90.0
_NAIVE_RUNS = 5


def main() -> None:
    """Run the benchmark and print the results."""
    with MariaDb() as server:
        for channels in _SIZES:
            naive = _naive_seconds(channels)
            with exporter_at_work(server, channels, poll_seconds=1) as at_work:
                _wait_until_heard(at_work, channels)
                polls = at_work.polls()
                p50, p99 = _scrapes(at_work)
                polls = at_work.polls() - polls
                print(
                    f"{channels:6,} channels: generate_latest {naive * 1000:.1f} ms; a scrape p50 "
                    f"{p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms: {naive / p50:.0f} and "
                    f"{naive / p99:.0f} times as fast ({_SCRAPES} scrapes during {polls} polls)"
                )
                _slow_list(at_work, p99)


def _naive_seconds(channels: int) -> float:
    """Return the seconds to render the metrics of ``channels`` channels once."""
    listed = tuple(Channel(f"channel{number}", Status.CONNECTED) for number in range(channels))
    now = time.time()
    view = ActivitySnapshot(
        now,
        {channel.key: now - 60 for channel in listed},
        {(channel.key, direction): 7 for channel in listed for direction in Direction},
        rows_read=channels,
        last_heard={channel.key: now - 60 for channel in listed},
    )
    store = StateStore()
    store.update(gateway=GatewayState(up=True, channels=listed), log=LogState(up=True, view=view))
    fixed = Threshold(14_400, SilenceMode.FIXED)
    metrics = ExporterMetrics(store, "wpp", lambda *_: fixed, lambda *_: 1800.0, with_log=True)

    registry = make_registry(ExporterCollector([metrics]))

    def write() -> float:
        started = time.perf_counter()
        generate_latest(registry)
        return time.perf_counter() - started

    return statistics.median(write() for _ in range(_NAIVE_RUNS))


def _wait_until_heard(at_work: AtWork, channels: int) -> None:
    age = "\nwhatsapp_channel_seconds_since_last_message{"
    wait_until(lambda: at_work.program.get("/metrics").text.count(age) == channels, "every age")


def _scrapes(at_work: AtWork) -> tuple[float, float]:
    """Return median and 99th percentile in seconds."""
    at_work.scrape()
    seconds = []
    for number in range(_SCRAPES):
        if number % 20 == 0:
            at_work.messages()
        seconds.append(at_work.scrape()[0])
        time.sleep(_PAUSE_SECONDS)
    return statistics.median(seconds), statistics.quantiles(seconds, n=100)[-1]


def _slow_list(at_work: AtWork, p99_before: float) -> None:
    calls = at_work.gateway.calls
    at_work.gateway.seconds = _SLOW_LIST_SECONDS
    wait_until(lambda: at_work.gateway.calls > calls, "a call that takes long")
    _, p99 = _scrapes(at_work)
    started = time.perf_counter()
    at_work.program.end()
    seconds = time.perf_counter() - started
    print(
        f"    while a list call takes {_SLOW_LIST_SECONDS:.0f} s: p99 {p99 * 1000:.1f} ms, "
        f"{p99 / p99_before:.2f} times as long; the exporter ends within {seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
