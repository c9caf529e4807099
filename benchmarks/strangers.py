"""Hostile connections to both programs, direct and through nginx: response times of other clients.

    python -m benchmarks.strangers [SECONDS]

Needs Alertmanager, and nginx for half of the cases (apt-get install nginx prometheus-alertmanager).
Each kind of connection is held for SECONDS (2), with ten health checks per second. With the hook,
Alertmanager with the shipped configuration gets an alert too. Prints the slowest health check, the
time until the alert is accepted, and the program's memory. Exit code 1: a health check took a
second, or the alert thirty.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from demo.configuration import ALERTMANAGER, Addresses, write_alertmanager
from demo.loop import find_program
from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.ports import free
from tests.support.programs import Program
from tests.support.waiting import wait_until
from zapwatch.config import Listen

_CHANNELS = 300
_MOST_SECONDS = 1.0
_EVERY_SECONDS = 0.1
_WAIT_SECONDS = 10.0
_ALERT_SECONDS = 30.0  # Alertmanager retries after a 503
_PIPELINED = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 240
_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
_BODY = b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
_LARGE = b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1_000_000
# Name, connections, bytes that each sends first and then ten times a second.
_KINDS = (
    ("that do not read", 4, _PIPELINED, b""),
    ("that do not read", 16, _PIPELINED, b""),
    ("that do not read", 256, _PIPELINED, b""),
    ("with a slow head", 256, _HEAD, b"x"),
    ("with a slow body", 256, _BODY, b"x"),
    ("that say nothing", 1000, b"", b""),
    ("with an unfinished body", 20, _LARGE, b""),
)
_NGINX = """
daemon off; worker_rlimit_nofile 8192;
pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
    server {{
        listen {at};
        client_max_body_size 11m; proxy_request_buffering off; proxy_http_version 1.1;
        location / {{ proxy_pass {url}; proxy_set_header Host $http_host; }}
    }}
}}
"""


def main() -> int:
    """Run the benchmark and print the results; return the exit code."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    worst = 0.0
    print("connections | program | health, slowest | alert | MiB before | MiB")
    with SimulatorServer(SECRET) as simulator, tempfile.TemporaryDirectory() as name:
        for number in range(_CHANNELS):
            simulator.gateway.put(f"channel{number:03d}", {"reconnect_seconds": 0})
        settings = hook_settings(simulator.url, EXPORTER_LISTEN="127.0.0.1:0")
        for arguments in (("exporter",), ("reconnect_hook", "serve")):
            with Program(Path(name), *arguments, settings=settings) as program:
                worst = max(worst, _attack(Path(name), program, program.url, arguments[0], seconds))
                if shutil.which("nginx") is None:
                    print("nginx is not installed: only half was measured")
                    continue
                with _nginx(Path(name), program.url) as url:
                    title = f"nginx, {arguments[0]}"
                    worst = max(worst, _attack(Path(name), program, url, title, seconds))
    return worst >= _MOST_SECONDS


def _attack(folder: Path, program: Program, url: str, title: str, seconds: float) -> float:
    """Hold each kind of connection in turn; return the slowest health check in seconds."""
    worst = 0.0
    with _alertmanager(folder, url) if "hook" in title else contextlib.nullcontext() as sender:
        for kind, count, first, then in _KINDS:
            _ask(url)
            before = _memory(program)
            with contextlib.ExitStack() as held:
                connections = [held.enter_context(_connect(url, first)) for _ in range(count)]
                health = held.enter_context(asked_for_health(url))
                until = time.monotonic() + seconds
                told = "" if sender is None else f"{_tell(sender, program):.1f} s"
                while time.monotonic() < until:
                    for connection in connections if then else ():
                        with contextlib.suppress(OSError):
                            connection.send(then)
                    time.sleep(_EVERY_SECONDS)
                after = _memory(program)
            slowest = max(health)
            worst = max(worst, slowest)
            print(
                f"{count} {kind} | {title} | {slowest:.3f} s | {told} | {before:.0f} | {after:.0f}",
                flush=True,
            )
    return worst


def _connect(url: str, first: bytes) -> socket.socket:
    host, _, port = url.rpartition("/")[2].partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(_WAIT_SECONDS)
    connection.connect((host, int(port)))
    connection.setblocking(False)  # noqa: FBT003 - the socket's own interface
    with contextlib.suppress(OSError):
        connection.send(first)
    return connection


def _ask(url: str) -> None:
    requests.get(f"{url}/-/healthy", timeout=_WAIT_SECONDS).raise_for_status()


@contextmanager
def asked_for_health(url: str) -> Iterator[list[float]]:
    """Check the health ten times a second; yield the durations in seconds."""
    ended = threading.Event()
    seconds: list[float] = []

    def ask() -> None:
        while not ended.wait(_EVERY_SECONDS):
            seconds.append(_health(url))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seconds
    finally:
        ended.set()
        asking.join()


def _health(url: str) -> float:
    """Return the duration of a health check in seconds; the timeout if there was no answer."""
    began = time.monotonic()
    try:
        _ask(url)
    except requests.RequestException:
        return _WAIT_SECONDS
    return time.monotonic() - began


def _tell(alertmanager: str, hook: Program) -> float:
    """Send Alertmanager an alert, and return the seconds until the hook has accepted it."""
    before = _accepted(hook)
    began = time.monotonic()
    body = [{"labels": alert(f"stranger{began}")["labels"]}]
    requests.post(f"{alertmanager}/api/v2/alerts", json=body, timeout=_WAIT_SECONDS)
    # Not its row: of a channel that the gateway does not list, it is gone with the next list.
    wait_until(lambda: _accepted(hook) > before, "the alert to be accepted")
    return time.monotonic() - began


def _accepted(hook: Program) -> float:
    name = "whatsapp_reconnect_alerts_total"
    return hook.metrics().get(name, status="firing", result="accepted") or 0.0


def _memory(program: Program) -> float:
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def _alertmanager(folder: Path, url: str) -> Iterator[str]:
    """Run Alertmanager with the hook at ``url``; yield its URL."""
    host, _, port = url.rpartition("/")[2].partition(":")
    at = free()
    addresses = Addresses(at, Listen(host, int(port)), at, at)
    command = [
        find_program("prometheus-alertmanager", "alertmanager"),
        f"--config.file={write_alertmanager(folder, addresses, ALERTMANAGER, TOKEN)}",
        f"--storage.path={folder}",
        f"--web.listen-address={at}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    with _running(command, f"http://{at}"):
        yield f"http://{at}"


@contextmanager
def _running(command: list[str], url: str) -> Iterator[None]:
    """Run a program; enter the block when it answers."""
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: _health(url) < _WAIT_SECONDS, f"{command[0]}")
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _nginx(folder: Path, url: str) -> Iterator[str]:
    at = free()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, at=at, url=url))
    with _running(["nginx", "-p", str(folder), "-c", str(config)], f"http://{at}"):
        yield f"http://{at}"


if __name__ == "__main__":
    raise SystemExit(main())
