"""Connections of strangers at both programs, direct and through nginx: who else is still answered.

    python -m benchmarks.strangers [SECONDS]

Needs nginx for half of it (apt-get install nginx). Each kind of connection is held for some seconds
(2); meanwhile health is asked for ten times a second, and an alert is posted at the hook. Printed
are the slowest answers and the program's memory. Exit code 1: an answer to health took a second.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from demo.configuration import free_or_other
from demo.simulator.server import SimulatorServer
from tests.support.alerts import alert, payload
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.programs import Program
from zapwatch.config import Listen

_CHANNELS = 300
_MOST_SECONDS = 1.0
_EVERY_SECONDS = 0.1
_WAIT_SECONDS = 10.0
_PIPELINED = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 240
_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
_BODY = b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
_LARGE = b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1_000_000
# Name, connections, what each sends at first and then ten times a second.
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
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
    server {{
        listen {at};
        client_max_body_size 11m;
        location / {{ proxy_pass {url}; proxy_set_header Host $http_host; }}
    }}
}}
"""


def main() -> int:
    """Hold, ask and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    worst = 0.0
    print("connections | program | health, slowest | alert | MiB before | MiB")
    with SimulatorServer(SECRET) as simulator, tempfile.TemporaryDirectory() as name:
        for number in range(_CHANNELS):
            simulator.gateway.put(f"channel{number:03d}", {"reconnect_seconds": 0})
        settings = hook_settings(simulator.url, EXPORTER_LISTEN="127.0.0.1:0")
        for arguments in (("exporter",), ("reconnect_hook", "serve")):
            with Program(Path(name), *arguments, settings=settings) as program:
                worst = max(worst, _attack(program, program.url, arguments[0], seconds))
                if shutil.which("nginx") is None:
                    print("nginx is not installed: only half was measured")
                    continue
                with _nginx(Path(name), program.url) as url:
                    worst = max(worst, _attack(program, url, f"nginx, {arguments[0]}", seconds))
    return worst >= _MOST_SECONDS


def _attack(program: Program, url: str, title: str, seconds: float) -> float:
    """Hold all kinds of connections one after the other, and return the slowest health."""
    worst = 0.0
    for kind, count, first, then in _KINDS:
        _ask(url)
        before = _memory(program)
        with contextlib.ExitStack() as held:
            connections = [held.enter_context(_connect(url, first)) for _ in range(count)]
            until = time.monotonic() + seconds
            slowest = 0.0
            posted = _timed(lambda: _post(url)) if "hook" in title else None
            while time.monotonic() < until:
                slowest = max(slowest, _timed(lambda: _ask(url)))
                for connection in connections if then else ():
                    with contextlib.suppress(OSError):
                        connection.send(then)
                time.sleep(_EVERY_SECONDS)
            after = _memory(program)
        worst = max(worst, slowest)
        alerted = "" if posted is None else f"{posted:.3f} s"
        print(
            f"{count} {kind} | {title} | {slowest:.3f} s | {alerted} | {before:.0f} | {after:.0f}",
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


def _post(url: str) -> None:
    requests.post(
        f"{url}/alerts",
        payload(alert("stranger")),
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=_WAIT_SECONDS,
    ).raise_for_status()


def _timed(work: Callable[[], None]) -> float:
    """Return the seconds that it took; those that were waited for where it failed."""
    began = time.monotonic()
    try:
        work()
    except requests.RequestException:
        return _WAIT_SECONDS
    return time.monotonic() - began


def _memory(program: Program) -> float:
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def _nginx(folder: Path, url: str) -> Iterator[str]:
    at = free_or_other(Listen("127.0.0.1", 0))
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, at=at, url=url))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)])
    try:
        for _ in range(100):
            with contextlib.suppress(requests.RequestException):
                _ask(f"http://{at}")
                break
            time.sleep(0.05)
        yield f"http://{at}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
