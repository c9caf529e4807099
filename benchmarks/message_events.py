"""Events posted to the exporter: throughput, latency, and their effect on scrapes.

    python -m benchmarks.message_events [SECONDS]

Needs ``wrk`` (apt-get install wrk). Events of 1 KB about all channels arrive over 8 connections:
first at full speed, compared with a view on the same server that only reads the body; then at
about 1,000 a second, while the exporter is scraped as by Prometheus. Sender, exporter and scraper
share the machine. The last part posts media, as Evolution does with base64 enabled.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exporter_at_work import AtWork, exporter_at_work
from demo.simulator.payloads import message_payload
from tests.support.mariadb import MariaDb
from tests.support.programs import environment
from tests.support.waiting import wait_until

_CHANNELS = 1000
_CONNECTIONS = 8
_A_SECOND = 1000
_SCRAPE_PAUSE = 0.05  # seconds
_MEDIA_MB = 5
_TOKEN = "not-a-real-token"
_LUA = """
local bodies = {}
for line in io.lines("%(bodies)s") do bodies[#bodies + 1] = line end
local number = 0
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer %(token)s"
wrk.headers["Content-Type"] = "application/json"
request = function()
  number = number %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[number])
end
%(delay)s
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.timeout))
end
"""
_NOTHING = """
from zapwatch.server import log_to_stderr
from types import SimpleNamespace
from zapwatch.front import Front, LoginThrottle, Server
from zapwatch.config import Listen
def nothing(environ, start_response):
    environ["wsgi.input"].read()
    start_response("202 Accepted", [("Content-Length", "0")])
    return ()
log_to_stderr()
server = Server("nothing", "NOTHING", Listen("127.0.0.1", 0))
print(server.url, flush=True)
auth = SimpleNamespace(is_known=lambda _: True, throttle=LoginThrottle())
server.run(Front(nothing, auth=auth, urgent="/"))
"""


@dataclass(frozen=True)
class Rate:
    """Results of one wrk run; durations in milliseconds."""

    a_second: float
    p50: float
    p99: float
    failed: int

    def __str__(self) -> str:
        return (
            f"{self.a_second:,.0f} a second, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, "
            f"{self.failed} refused"
        )


def main() -> None:
    """Run the benchmark and print the results."""
    if shutil.which("wrk") is None:
        raise SystemExit("message_events: wrk is not installed: apt-get install wrk")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder, MariaDb() as server:
        script, paced = _scripts(Path(folder))
        events = {
            "MESSAGE_SOURCE": "events",
            "MESSAGES_TOKEN": _TOKEN,
            "MESSAGES_STATE_URL": f"sqlite:///{folder}/messages.sqlite3",
        }
        with _nothing() as url:
            nothing = _post(url, script, seconds)
        print(f"a view that does nothing: {nothing}")
        with exporter_at_work(server, _CHANNELS, poll_seconds=1, more=events) as at_work:
            wait_until(lambda: at_work.program.get("/-/ready").status_code == 200, "the list")
            taken = _post(at_work.program.url, script, seconds)
            print(f"events of {_CHANNELS:,} channels: {taken}")
            print(f"    {taken.a_second / nothing.a_second:.2f} of the rate of nothing")
            _one_by_one(at_work)
            _scrapes(at_work, "without events", seconds)
            with _posting(at_work.program.url, paced, seconds + 5) as process:
                time.sleep(1)
                _scrapes(at_work, f"with {_A_SECOND:,} events a second", seconds)
                print(f"    events meanwhile: {_result(process.communicate()[0])}")
            _media(at_work)


def _scripts(folder: Path) -> tuple[Path, Path]:
    """Write wrk's scripts: one at full speed, one at a fixed rate."""
    (folder / "bodies").write_text(
        "".join(
            json.dumps(message_payload(f"channel{number}", "onmessage")) + "\n"
            for number in range(_CHANNELS)
        )
    )
    scripts = folder / "fast.lua", folder / "paced.lua"
    milliseconds = 1000 * _CONNECTIONS // _A_SECOND
    delays = "", f"delay = function() return {milliseconds} end"
    for script, delay in zip(scripts, delays, strict=True):
        values = {"bodies": folder / "bodies", "token": _TOKEN, "delay": delay}
        script.write_text(_LUA % values)
    return scripts


def _posting(url: str, script: Path, seconds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *("wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-s", str(script)),
            f"{url}/messages/wpp",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def _post(url: str, script: Path, seconds: int) -> Rate:
    with _posting(url, script, seconds) as process:
        return _result(process.communicate()[0])


def _result(said: str) -> Rate:
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", said)
    if found is None:
        raise SystemExit(f"message_events: wrk said something else:\n{said}")
    requests, microseconds, p50, p99, failed = map(int, found.groups())
    return Rate(requests / microseconds * 1e6, p50 / 1000, p99 / 1000, failed)


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


@contextmanager
def _nothing() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _NOTHING], env=environment({}), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
