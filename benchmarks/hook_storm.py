"""Storms of notifications at the reconnect hook: how many a second, how late, how many calls.

    python -m benchmarks.hook_storm [SECONDS]

Needs ``wrk`` (apt-get install wrk). Each storm comes over 8 connections for some seconds (5) to a
hook of its own with its state on SQLite, beside a view that does nothing but read the body, on the
same server. The gateway is simulated: all channels are up again by themselves but for some.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.programs import Program, environment
from tests.support.waiting import wait_until

_CONNECTIONS = 8
_CHANNELS = 10_000
_STILL_DOWN = 100
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
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(99), summary.errors.status + summary.errors.timeout))
end
"""
_NOTHING = """
from flask import Flask, Response, request
from zapwatch.logs import log_to_stderr
from zapwatch.front import Front, Server, refuse_nobody
from zapwatch.config import Listen
log_to_stderr()
app = Flask("nothing")
@app.post("/alerts")
def alerts():
    request.get_data()
    return Response("{}", 202, mimetype="application/json")
server = Server("nothing", "NOTHING", Listen("127.0.0.1", 0))
print(f"alerts at {server.url}/alerts", flush=True)
server.run(Front(app, is_known=refuse_nobody, urgent="/alerts"))
"""


@dataclass(frozen=True)
class Rate:
    """What wrk measured."""

    requests: int
    a_second: float
    p99_ms: float
    failed: int


def main() -> None:
    """Measure and print."""
    if shutil.which("wrk") is None:
        raise SystemExit("hook_storm: wrk is not installed: apt-get install wrk")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    names = [f"channel{number:05d}" for number in range(_CHANNELS)]
    storms = {
        "one channel": [payload(alert("channel00000"))],
        f"{_CHANNELS} channels, 1 alert a payload": [payload(alert(name)) for name in names],
        f"{_CHANNELS} channels, 500 alerts a payload": [
            payload(*map(alert, names[begin : begin + 500])) for begin in range(0, _CHANNELS, 500)
        ],
    }
    for title, bodies in storms.items():
        with tempfile.TemporaryDirectory() as folder:
            _storm(Path(folder), title, bodies, seconds)
    print("For comparison, measured before: a webhook-to-script server with a curl script accepted")
    print("1,135 notifications a second about one channel, and fired 1,538 getQr calls within 5 s.")


def _storm(folder: Path, title: str, bodies: list[bytes], seconds: int) -> None:
    (folder / "bodies").write_bytes(b"\n".join(bodies) + b"\n")
    script = folder / "storm.lua"
    script.write_text(_LUA % {"bodies": folder / "bodies", "token": TOKEN})
    with _nothing() as url:
        nothing = _measure(url, script, seconds)
    with SimulatorServer(SECRET) as simulator:
        for number in range(_CHANNELS):
            down = number < _STILL_DOWN
            simulator.gateway.put(f"channel{number:05d}", {"reconnect_seconds": 0})
            if down:
                simulator.gateway.act(f"channel{number:05d}", "drop")
        with Program(
            folder, "reconnect_hook", "serve", settings=hook_settings(simulator.url, **_SETTINGS)
        ) as hook:
            rate = _measure(hook.url, script, seconds)
            accepted = hook.metrics().all("whatsapp_reconnect_alerts_total", status="firing")
            began = time.monotonic()
            wait_until(
                lambda: (
                    hook.metrics().get("whatsapp_reconnect_queue_length") == 0
                    and hook.metrics().get("whatsapp_reconnect_in_flight") == 0
                ),
                600,
                "the queue to be empty",
            )
            drained = time.monotonic() - began
        calls = Counter(call["channel"] for call in simulator.calls("qr"))
        lists = len(simulator.calls("list"))
    each = len(bodies) and bodies[0].count(b'"fingerprint"')
    print(f"{title}:")
    print(
        f"  {rate.a_second:.0f} payloads ({rate.a_second * each:.0f} alerts) a second, "
        f"p99 {rate.p99_ms:.1f} ms, {rate.failed} refused"
    )
    print(
        f"  a view that does nothing: {nothing.a_second:.0f} a second, p99 {nothing.p99_ms:.1f} ms;"
        f" the hook's rate is {rate.a_second / nothing.a_second:.2f} of it"
    )
    print(f"  verdicts: { ({result[0]: int(count) for result, count in accepted.items()}) }")
    print(
        f"  getQr calls: {sum(calls.values())} for {len(calls)} channels, at most "
        f"{max(calls.values(), default=0)} for one; {lists} lists; "
        f"queue empty {drained:.0f} s later"
    )


_SETTINGS = {"RECONNECT_COOLDOWN_SECONDS": "300"}


def _measure(url: str, script: Path, seconds: int) -> Rate:
    done = subprocess.run(
        ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"{url}/alerts"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise SystemExit(f"hook_storm: wrk said something else:\n{done.stdout}")
    requests, microseconds, p99, failed = map(int, found.groups())
    return Rate(requests, requests / microseconds * 1e6, p99 / 1000, failed)


@contextmanager
def _nothing() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _NOTHING],
        env=environment({}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split()[-1].removesuffix("/alerts")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
