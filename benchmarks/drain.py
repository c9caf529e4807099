"""Time until every one of many channels that drop at once gets its getQr, against the optimum.

    python -m benchmarks.drain [CHANNELS]

A real hook and the simulated gateway, whose getQr takes 0.2 s. The optimum is channels x 0.2 s /
RECONNECT_WORKERS. The channels reconnect 0.2 s after the call, 30 s after it, or never. Then a
failed session behind 500 that are starting: its call must follow within one poll and one list.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests

from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.programs import Program
from tests.support.waiting import wait_until

_WORKERS = 4
_CALL_SECONDS = 0.2
_STARTING = 500
_PAYLOAD = 50  # alerts


def main() -> None:
    """Run all cases and print their results."""
    channels = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for title, seconds in (("0.2 s", 0.2), ("30 s", 30.0), ("never", None)):
        with tempfile.TemporaryDirectory() as folder:
            _drain(Path(folder), channels, title, seconds)
    with tempfile.TemporaryDirectory() as folder:
        _behind_starting(Path(folder))


def _post(hook: Program, names: list[str]) -> None:
    for begin in range(0, len(names), _PAYLOAD):
        body = payload(*map(alert, names[begin : begin + _PAYLOAD]))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        requests.post(f"{hook.url}/alerts", body, headers=headers, timeout=60).raise_for_status()


def _drain(folder: Path, channels: int, title: str, seconds: float | None) -> None:
    names = [f"channel{number:05d}" for number in range(channels)]
    settings = {"RECONNECT_WORKERS": str(_WORKERS), "RECONNECT_COOLDOWN_SECONDS": "3600"}
    with SimulatorServer(SECRET) as simulator:
        session = "dead" if seconds is None else "paired"
        for name in names:
            values = {"session": session, "reconnect_seconds": seconds or 0.0}
            simulator.gateway.put(name, values)
            simulator.gateway.act(name, "drop")
        simulator.faults.switch_on("qr", {"fault": "slow", "seconds": _CALL_SECONDS})
        settings = hook_settings(simulator.url, **settings, RECONNECT_VERIFY_SECONDS="60")
        with Program(folder, "reconnect_hook", "serve", settings=settings) as hook:
            began = time.monotonic()
            _post(hook, names)
            wait_until(
                lambda: len({call["channel"] for call in simulator.calls("qr")}) == channels,
                "all to be asked",
                channels * 2,
            )
            took = time.monotonic() - began
        calls = simulator.calls("qr")
        lists = len(simulator.calls("list"))
    each = Counter(call["channel"] for call in calls)
    possible = channels * _CALL_SECONDS / _WORKERS
    print(
        f"{channels} channels, back after {title}: all asked after {took:.1f} s, possible "
        f"{possible:.1f} s, ratio {took / possible:.2f}; getQr for one channel at most "
        f"{max(each.values())}, in flight at most {_most_at_once(calls)}; {lists} lists",
        flush=True,
    )


def _most_at_once(calls: list[dict[str, object]]) -> int:
    """Return the maximum number of concurrent calls, each of ``_CALL_SECONDS``."""
    begun = sorted(float(str(call["epoch"])) for call in calls)
    most, first = 0, 0
    for index, moment in enumerate(begun):
        while begun[first] <= moment - _CALL_SECONDS:
            first += 1
        most = max(most, index - first + 1)
    return most


def _behind_starting(folder: Path) -> None:
    names = [f"channel{number:05d}" for number in range(_STARTING)]
    with SimulatorServer(SECRET) as simulator:
        for name in names:
            simulator.gateway.put(name, {"status_text": "initializing"})
        simulator.gateway.put("failed", {"reconnect_seconds": 0.0})
        simulator.gateway.act("failed", "drop")
        settings = hook_settings(simulator.url, RECONNECT_WORKERS=str(_WORKERS))
        with Program(folder, "reconnect_hook", "serve", settings=settings) as hook:
            _post(hook, names)
            began = time.monotonic()
            _post(hook, ["failed"])
            wait_until(lambda: simulator.calls("qr"), "the failed one to be asked")
            took = time.monotonic() - began
        others = [call for call in simulator.calls("qr") if call["channel"] != "failed"]
    print(
        f"a failed session behind {_STARTING} that start: asked after {took:.1f} s, "
        f"{len(others)} calls for the others"
    )


if __name__ == "__main__":
    main()
