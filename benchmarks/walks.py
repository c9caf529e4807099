"""Traces one status, alert, event and suspicion: ``python -m benchmarks.walks``.

Prints for each walk the number of modules, of module changes between consecutive calls in a
thread, and of calls. The simulated gateway runs in the same process and does not count. The figures
vary a little with the waits.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from werkzeug.test import Client

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from exporter.app import create_app as create_exporter
from exporter.event_buffer import Post
from exporter.supervisor import Supervisor
from reconnect_hook import echo, probe, probe_limits
from reconnect_hook.app import create_app as create_hook
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import HookSupervisor, open_store
from zapwatch.config import parse

_ROOT = f"{Path(__file__).parent.parent.resolve()}/"
_PACKAGES = ("zapwatch/", "exporter/", "reconnect_hook/")
_SECRET = "0123456789abcdef-not-a-real-secret"
_TOKEN = "not-a-real-token-of-the-walks"
_AUTHORIZATION = {"Authorization": f"Bearer {_TOKEN}"}
_PATIENCE = 60.0  # seconds
_HOOK_THREADS = ("MainThread", "reconciler", "gateway-call")
# Modules and module changes before the current layout: the same walks on commit 4e622a2.
_BEFORE = {
    "a channel's status to a line of /metrics": (19, 147),
    "an alert to getQr to a line of the log": (27, 290),
    "a gateway's event to an age in /metrics": (24, 117),
    "a suspicion to a lost echo to a repair": (40, 1028),
}


class Recorder:
    """Records calls into the product's modules, by thread."""

    def __init__(self) -> None:
        """Record nothing until ``walk``."""
        self._on = False
        self._calls: dict[str, list[str]] = defaultdict(list)

    def install(self) -> None:
        """Trace this thread and all threads that start later."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    @contextmanager
    def walk(self, title: str, threads: Collection[str] = ()) -> Iterator[None]:
        """Record the block's calls, limited to ``threads`` by name, and print the figures."""
        self._calls.clear()
        self._on = True
        yield
        self._on = False
        walked = [
            calls
            for thread, calls in self._calls.items()
            if not threads or any(name in thread for name in threads)
        ]
        modules = {module for calls in walked for module in calls}
        changes = sum(a != b for calls in walked for a, b in pairwise(calls))
        count = sum(map(len, walked))
        before_modules, before_changes = _BEFORE[title]
        print(
            f"{title}: {len(modules)} modules (were {before_modules}), {changes} changes of module "
            f"(were {before_changes}), {count} calls"
        )

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self._on or event != "call":
            return
        path = frame.f_code.co_filename
        if path.startswith(_ROOT) and path.removeprefix(_ROOT).startswith(_PACKAGES):
            self._calls[threading.current_thread().name].append(path)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() >= give_up_at:
            raise TimeoutError(what)
        time.sleep(0.005)


def _settings(url: str, **more: str) -> dict[str, str]:
    return {
        "WPP_GATEWAY_BASE_URL": url,
        "WPP_GATEWAY_SECRET": _SECRET,
        "MESSAGE_LOG_URL": "none",
        "HOOK_TOKEN": _TOKEN,
        "RECONNECT_VERIFY_SECONDS": "5",
        "RECONNECT_COOLDOWN_SECONDS": "0",
        **more,
    }


@contextmanager
def _exporter(values: dict[str, str]) -> Iterator[tuple[Callable[[], None], Client]]:
    """Create an exporter whose pollers run only on demand."""
    settings = parse(values)
    post = Post(settings)
    # Written by a poll, not once a second.
    post._inbox.start = lambda: None  # type: ignore[method-assign] # noqa: SLF001
    post.follow(settings.gateways)
    supervisor = Supervisor(settings, post)
    monitor = supervisor._make(settings.gateways[0], several=False)
    supervisor._show()  # noqa: SLF001
    app = create_exporter(supervisor.page, lambda: supervisor.waiting)
    client = Client(post.receiver(app, supervisor.hurry))
    for poller in monitor._pollers:  # noqa: SLF001
        poller.poll_once()
    client.get("/metrics")

    def render() -> None:
        # The list's, or with a message source that one's: an event needs no list.
        monitor._pollers[-1].poll_once()  # noqa: SLF001
        supervisor.page.refresh()

    yield render, client


@contextmanager
def _hook(values: dict[str, str]) -> Iterator[Any]:
    settings = parse(values)
    metrics = HookMetrics()
    supervisor = HookSupervisor(settings, open_store(settings), metrics)
    supervisor.apply_config(settings.gateways)
    scheduler = supervisor._scheduler  # noqa: SLF001
    try:
        # The first pass prunes old records, which is no part of an alert.
        _wait_for(lambda: scheduler._prune_at > scheduler._polled_at + 600 > 0, "the first pass")  # noqa: SLF001
        yield create_hook(supervisor, metrics, token=_TOKEN).test_client()
    finally:
        supervisor.stop(1)


def _alert(name: str, remediation: str) -> dict[str, Any]:
    labels = {"alertname": name, "gateway": "wpp", "channel": "loja", "remediation": remediation}
    return {"version": "4", "alerts": [{"status": "firing", "labels": labels}]}


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _walk_status(recorder: Recorder, simulator: Simulator, url: str) -> None:
    with _exporter(_settings(url)) as (render, client):
        simulator.drop("loja")
        with recorder.walk("a channel's status to a line of /metrics"):
            render()
            text = client.get("/metrics").text
        if 'whatsapp_channel_connected{channel="loja",gateway="wpp"} 0.0' not in text:
            raise RuntimeError("the drop is not in the metrics")


def _walk_alert(recorder: Recorder, url: str) -> None:
    log = Path("alert.log")
    with _hook(_settings(url, HOOK_LOG_FILE=str(log))) as client:
        payload = _alert("WhatsAppChannelDisconnected", "reconnect")
        with recorder.walk("an alert to getQr to a line of the log", _HOOK_THREADS):
            client.post("/alerts", json=payload, headers=_AUTHORIZATION)
            _wait_for(lambda: "outcome=reconnected" in _read(log), "the repair")


def _walk_event(recorder: Recorder, url: str) -> None:
    values = _settings(url, MESSAGE_SOURCE="events", MESSAGES_TOKEN=_TOKEN)
    with _exporter(values) as (render, client):
        event = {"event": "message", "sessionId": "loja", "id": "x", "timestamp": int(time.time())}
        with recorder.walk("a gateway's event to an age in /metrics"):
            client.post("/messages/wpp", json=event, headers=_AUTHORIZATION)
            render()
            text = client.get("/metrics").text
        if 'whatsapp_channel_seconds_since_last_message{channel="loja"' not in text:
            raise RuntimeError("the message is not in the metrics")


def _walk_suspicion(recorder: Recorder) -> None:
    log, messages = Path("suspicion.log"), f"sqlite:///{Path.cwd()}/messages.sqlite3"
    echo.ECHO_SECONDS, echo.DELIVERY_SECONDS = 1.0, 0.5
    probe.GAP_SECONDS, probe_limits.ECHO_GAP_SECONDS = 0.02, 0.0
    names = ("loja", "obra", "casa")
    written = open_message_log(messages)
    with SimulatorServer(_SECRET, message_log=written, traffic_seconds=3600) as server:
        simulator = Simulator(server.url)
        for name in names:
            simulator.put_channel(name)
        simulator.traffic(paused=True)
        values = _settings(
            server.url,
            MESSAGE_LOG_URL=messages,
            PROBE="echo",
            PROBE_ECHO_NUMBERS=",".join(f"{name}={simulator.number(name)}" for name in names),
            HOOK_STATE_URL="sqlite:///suspicion.sqlite3",
            HOOK_LOG_FILE=str(log),
            RECONNECT_VERIFY_SECONDS="3",
        )
        simulator.zombie("loja")
        with _hook(values) as client:
            payload = _alert("WhatsAppChannelSuspect", "probe")
            with recorder.walk("a suspicion to a lost echo to a repair", _HOOK_THREADS):
                client.post("/alerts", json=payload, headers=_AUTHORIZATION)
                _wait_for(lambda: "reason=echo_lost" in _read(log), "the repair after the echo")


def main() -> None:
    """Run the four walks and print their figures."""
    logging.disable()
    recorder = Recorder()
    recorder.install()
    os.chdir(tempfile.mkdtemp())
    with SimulatorServer(_SECRET) as server:
        simulator = Simulator(server.url)
        for name in ("loja", "obra"):
            simulator.put_channel(name)
        _walk_status(recorder, simulator, server.url)
        _walk_alert(recorder, server.url)
        _walk_event(recorder, server.url)
    _walk_suspicion(recorder)


if __name__ == "__main__":
    main()
