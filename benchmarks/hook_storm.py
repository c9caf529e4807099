"""Notification storms at the reconnect hook: throughput, latency, number of getQr calls.

    python -m benchmarks.hook_storm [SECONDS]

Needs ``wrk``, and for the first table ``webhook`` and ``curl`` (apt-get install wrk webhook curl).

That table compares, for one disconnected channel over 8, 32 and 256 connections: the hook, a view
on the same server that only reads the body, and the webhook server (adnanh/webhook) that starts
curl for each notification. Then follow storms over 8 connections for SECONDS (5), each with a new
hook and its state on SQLite. The gateway is simulated: all channels but a few reconnect by
themselves. Exit code 1: a notification was refused, or a health check took a second.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.strangers import asked_for_health
from benchmarks.wrk import Rate, empty_view, posting, result, script
from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.ports import free
from tests.support.programs import Program
from tests.support.waiting import wait_until
from zapwatch.config import Listen

_CONNECTIONS = 8
_BESIDE_WEBHOOK = (8, 32, 256)
_CHANNELS = 10_000
_STILL_DOWN = 100


def _cells(rate: Rate) -> str:
    return f"{rate.a_second:.0f} | {rate.p99:.0f} ms | {rate.failed}"


def main() -> int:
    """Run the benchmark and print the results; return the exit code."""
    if shutil.which("wrk") is None:
        raise SystemExit("hook_storm: wrk is not installed: apt-get install wrk")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    names = [f"channel{number:05d}" for number in range(_CHANNELS)]
    with tempfile.TemporaryDirectory() as folder:
        bad = _beside_webhook(Path(folder), seconds)
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
    return bad


def _beside_webhook(folder: Path, seconds: int) -> bool:
    """Print the first table; return whether a notification was refused or health took a second."""
    storm = script(folder / "storm.lua", [payload(alert("channel00000"))], TOKEN)
    bad = False
    print(
        "server | connections | a second | p99 | failed | the hook's rate beside it | getQr calls"
    )
    with SimulatorServer(SECRET) as simulator:
        simulator.gateway.put("channel00000", {"session": "dead"})
        settings = hook_settings(simulator.url, **_SETTINGS)
        with Program(folder, "reconnect_hook", "serve", settings=settings) as hook:
            for connections in _BESIDE_WEBHOOK:
                before = len(simulator.calls("qr"))
                with asked_for_health(hook.url) as health:
                    rate = _measure(hook.url, storm, seconds, connections)
                calls = len(simulator.calls("qr")) - before
                slowest = f"health {max(health):.2f} s"
                print(f"the hook | {connections} | {_cells(rate)} | {slowest} | {calls}")
                bad = bad or rate.failed > 0 or max(health) >= 1
                with empty_view("flask", "/alerts") as url:
                    view = _measure(url, storm, seconds, connections)
                ratio = rate.a_second / view.a_second
                print(f"a view that does nothing | {connections} | {_cells(view)} | {ratio:.2f}")
                if shutil.which("webhook") is None:
                    continue
                with _webhook(folder, simulator.url) as url:
                    other = _measure(url, storm, seconds, connections)
                ratio = rate.a_second / other.a_second
                calls = len(simulator.calls("qr")) - before - calls
                print(
                    f"webhook, curl | {connections} | {_cells(other)} | {ratio:.2f} | {calls}",
                    flush=True,
                )
    return bad


def _storm(folder: Path, title: str, bodies: list[bytes], seconds: int) -> None:
    storm = script(folder / "storm.lua", bodies, TOKEN)
    with empty_view("flask", "/alerts") as url:
        nothing = _measure(url, storm, seconds)
    with SimulatorServer(SECRET) as simulator:
        for number in range(_CHANNELS):
            down = number < _STILL_DOWN
            simulator.gateway.put(f"channel{number:05d}", {"reconnect_seconds": 0})
            if down:
                simulator.gateway.act(f"channel{number:05d}", "drop")
        with Program(
            folder, "reconnect_hook", "serve", settings=hook_settings(simulator.url, **_SETTINGS)
        ) as hook:
            rate = _measure(hook.url, storm, seconds)
            accepted = hook.metrics().all("whatsapp_reconnect_alerts_total", status="firing")
            began = time.monotonic()
            wait_until(
                lambda: (
                    hook.metrics().get("whatsapp_reconnect_queue_length") == 0
                    and hook.metrics().get("whatsapp_reconnect_in_flight") == 0
                ),
                "the queue to be empty",
                600,
            )
            drained = time.monotonic() - began
        calls = Counter(call["channel"] for call in simulator.calls("qr"))
        lists = len(simulator.calls("list"))
    each = len(bodies) and bodies[0].count(b'"fingerprint"')
    print(f"{title}:")
    print(
        f"  {rate.a_second:.0f} payloads ({rate.a_second * each:.0f} alerts) a second, "
        f"p99 {rate.p99:.1f} ms, {rate.failed} refused"
    )
    print(
        f"  a view that does nothing: {nothing.a_second:.0f} a second, p99 {nothing.p99:.1f} ms;"
        f" the hook's rate is {rate.a_second / nothing.a_second:.2f} of it"
    )
    print(f"  verdicts: { ({result[0]: int(count) for result, count in accepted.items()}) }")
    print(
        f"  getQr calls: {sum(calls.values())} for {len(calls)} channels, at most "
        f"{max(calls.values(), default=0)} for one; {lists} lists; "
        f"queue empty {drained:.0f} s later"
    )


_SETTINGS = {"RECONNECT_COOLDOWN_SECONDS": "300"}


def _measure(url: str, storm: Path, seconds: int, connections: int = _CONNECTIONS) -> Rate:
    return result(posting(f"{url}/alerts", storm, seconds, connections))


@contextmanager
def _webhook(folder: Path, gateway: str) -> Iterator[str]:
    """Run Debian's webhook server, which starts curl for each notification; yield its URL."""
    at = free()
    script = folder / "getqr.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"exec curl -s -o /dev/null -H 'X-Gateway-Secret: {SECRET}' "
        f"{gateway}/api/channels/channel00000/qr\n"
    )
    script.chmod(0o755)
    hooks = folder / "hooks.json"
    hooks.write_text(json.dumps([{"id": "alerts", "execute-command": str(script)}]))
    command = [
        "webhook",
        "-hooks",
        str(hooks),
        "-ip",
        at.host,
        "-port",
        str(at.port),
        "-urlprefix",
        "",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: _listens(at), "webhook to listen")
        yield f"http://{at}"
    finally:
        # Hundreds of curl processes still run.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(at: Listen) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((at.host, at.port)) == 0


if __name__ == "__main__":
    raise SystemExit(main())
