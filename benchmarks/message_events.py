"""Events posted to the exporter: throughput, latency, and their effect on scrapes.

    python -m benchmarks.message_events [SECONDS]

Needs ``wrk`` (apt-get install wrk). Events of 1 KB about all channels arrive over 8 connections:
first at full speed, compared with a view on the same server that only reads the body; then at
about 1,000 a second, while the exporter is scraped as by Prometheus. Sender, exporter and scraper
share the machine. The last part posts media, as Evolution does with base64 enabled.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.exporter_at_work import AtWork, exporter_at_work
from benchmarks.wrk import Rate, empty_view, posting, result, script
from demo.simulator.payloads import message_payload
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until

_CHANNELS = 1000
_CONNECTIONS = 8
_A_SECOND = 1000
_SCRAPE_PAUSE = 0.05  # seconds
_MEDIA_MB = 5
_TOKEN = "not-a-real-token"


def _told(rate: Rate) -> str:
    return (
        f"{rate.a_second:,.0f} a second, p50 {rate.p50:.2f} ms, p99 {rate.p99:.2f} ms, "
        f"{rate.failed} refused"
    )


def main() -> None:
    """Run the benchmark and print the results."""
    if shutil.which("wrk") is None:
        raise SystemExit("message_events: wrk is not installed: apt-get install wrk")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder, MariaDb() as server:
        fast, paced = _scripts(Path(folder))
        events = {
            "MESSAGE_SOURCE": "events",
            "MESSAGES_TOKEN": _TOKEN,
            "MESSAGES_STATE_URL": f"sqlite:///{folder}/messages.sqlite3",
        }
        with empty_view("bare", "/") as url:
            nothing = result(_posting(url, fast, seconds))
        print(f"a view that does nothing: {_told(nothing)}")
        with exporter_at_work(server, _CHANNELS, poll_seconds=1, more=events) as at_work:
            wait_until(lambda: at_work.program.get("/-/ready").status_code == 200, "the list")
            taken = result(_posting(at_work.program.url, fast, seconds))
            print(f"events of {_CHANNELS:,} channels: {_told(taken)}")
            print(f"    {taken.a_second / nothing.a_second:.2f} of the rate of nothing")
            _one_by_one(at_work)
            _scrapes(at_work, "without events", seconds)
            with _posting(at_work.program.url, paced, seconds + 5) as process:
                time.sleep(1)
                _scrapes(at_work, f"with {_A_SECOND:,} events a second", seconds)
                print(f"    events meanwhile: {_told(result(process))}")
            _media(at_work)


def _scripts(folder: Path) -> tuple[Path, Path]:
    """Write wrk's scripts: one at full speed, one at a fixed rate."""
    bodies = [
        json.dumps(message_payload(f"channel{number}", "onmessage")).encode()
        for number in range(_CHANNELS)
    ]
    delay = f"delay = function() return {1000 * _CONNECTIONS // _A_SECOND} end"
    fast = script(folder / "fast.lua", bodies, _TOKEN)
    return fast, script(folder / "paced.lua", bodies, _TOKEN, delay)


def _posting(url: str, script: Path, seconds: int) -> subprocess.Popen[str]:
    return posting(f"{url}/messages/wpp", script, seconds, _CONNECTIONS)


def _one_by_one(at_work: AtWork) -> None:
    """Print the latency of single events, without concurrency."""
    body = json.dumps(message_payload("channel1", "onmessage")).encode()
    seconds = [at_work.post(body, _TOKEN) for _ in range(500)]
    p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[-1]
    print(f"one after the other: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")


def _scrapes(at_work: AtWork, what: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    taken = []
    while time.monotonic() < until:
        taken.append(at_work.scrape()[0])
        time.sleep(_SCRAPE_PAUSE)
    p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[-1]
    print(f"a scrape {what}: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms ({len(taken)})")


def _media(at_work: AtWork) -> None:
    payload = message_payload("channel1", "onmessage") | {"base64": "A" * _MEDIA_MB * 1024 * 1024}
    body = json.dumps(payload).encode()
    seconds = statistics.median(at_work.post(body, _TOKEN) for _ in range(20))
    print(f"an event with {_MEDIA_MB} MB of media: p50 {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
