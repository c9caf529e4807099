"""The same two views under several WSGI servers: throughput as the connections increase.

    python -m benchmarks.web_servers [PYTHON] [SECONDS]

Needs ``wrk`` (apt-get install wrk). PYTHON is an interpreter with Flask and the servers to compare
(default: this one; missing servers are skipped). Each figure is measured for SECONDS (1): a storm
(POST /alerts with 2 KB) and a scrape (GET /metrics of 200 KB), over 1, 8, 32 and 256 connections.
Prints requests per second and their ratio to waitress with 8 threads. Then it times /-/healthy
beside 16 connections that do not read, and the server's end.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CONNECTIONS = (1, 8, 32, 256)
_BASE = "waitress, 8 threads"
_APP = """
import sys
from flask import Flask, Response, request
app = Flask("app")
page = b"x" * 200_000
@app.post("/alerts")
def alerts():
    request.get_data()
    return Response("{}", 202, mimetype="application/json")
@app.get("/metrics")
def metrics():
    return Response(page, mimetype="text/plain")
@app.get("/-/healthy")
def healthy():
    return Response("well", mimetype="text/plain")
def load():
    return app
"""
_WAITRESS = """
import waitress
from app import app
waitress.serve(app, host="127.0.0.1", port={port}, threads={threads}, connection_limit=900)
"""
_GUNICORN = """
import sys
from gunicorn.app.wsgiapp import run
sys.argv = ["gunicorn", "--worker-class=gthread", "--threads={threads}", "--bind=127.0.0.1:{port}",
            "--log-level=error", "app:app"]
run()
"""
_CHEROOT = """
from cheroot.wsgi import Server
from app import app
Server(("127.0.0.1", {port}), app, numthreads={threads}, request_queue_size=1024).safe_start()
"""
_GRANIAN = """
from granian import Granian
from granian.constants import Interfaces
if __name__ == "__main__":
    Granian("app:app", "127.0.0.1", {port}, interface=Interfaces.WSGI, log_enabled=False,
            blocking_threads={threads}).serve()
"""
_IN_PROCESS = """
from app import app
from granian.constants import Interfaces
from granian.server.mt import MTServer
class Server(MTServer):
    def _check_gil(self): pass
Server("", "127.0.0.1", {port}, interface=Interfaces.WSGI, log_enabled=False, websockets=False,
       blocking_threads={threads}, workers_kill_timeout=1,
       ).serve(target_loader=lambda: app, wrap_loader=False)
import os; os._exit(0)
"""
# Name, required module, program, threads.
_SERVERS = (
    (_BASE, "waitress", _WAITRESS, 8),
    ("waitress, 1 thread", "waitress", _WAITRESS, 1),
    ("gunicorn gthread, 8 threads", "gunicorn", _GUNICORN, 8),
    ("cheroot, 8 threads", "cheroot", _CHEROOT, 8),
    ("granian, a worker process, 1 thread", "granian", _GRANIAN, 1),
    ("granian, a worker process, 16 threads", "granian", _GRANIAN, 16),
    ("granian in this process, 1 thread", "granian", _IN_PROCESS, 1),
    ("granian in this process, 16 threads", "granian", _IN_PROCESS, 16),
)
_STORM = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = string.rep("x", 2000)
"""


def main() -> None:
    """Run the benchmark and print the results."""
    if shutil.which("wrk") is None:
        raise SystemExit("web_servers: wrk is not installed: apt-get install wrk")
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    columns = [f"{kind} {count}" for kind in ("storm", "scrape") for count in _CONNECTIONS]
    print("server | " + " | ".join(columns) + " | MiB | health beside 16 | end")
    base: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(_APP)
        (folder / "storm.lua").write_text(_STORM)
        for server, module, program, threads in _SERVERS:
            found = subprocess.run(
                [python, "-c", f"import {module}"], capture_output=True, check=False
            )
            if found.returncode != 0:
                print(f"{server} | not installed")
                continue
            port = _free_port()
            (folder / "run.py").write_text(program.format(port=port, threads=threads))
            rates, rest = _measure(folder, python, port, seconds)
            base = base or rates
            cells = (f"{rate:.0f} ({rate / b:.2f})" for rate, b in zip(rates, base, strict=True))
            print(f"{server} | {' | '.join(cells)} | {rest}", flush=True)


def _measure(folder: Path, python: str, port: int, seconds: int) -> tuple[list[float], str]:
    process = subprocess.Popen(
        [python, "run.py"], cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        _wait_until_there(port)
        rates = [
            _wrk(folder, port, count, seconds, path)
            for path in ("alerts", "metrics")
            for count in _CONNECTIONS
        ]
        memory = _memory(process.pid)
        beside = _health_beside_connections_that_do_not_read(port)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
            end = f"{time.monotonic() - began:.2f} s"
        except subprocess.TimeoutExpired:
            end = "not in 10 s"
    finally:
        process.kill()
        process.wait()
    return rates, f"{memory:.0f} | {beside} | {end}"


def _wrk(folder: Path, port: int, connections: int, seconds: int, path: str) -> float:
    script = ["-s", str(folder / "storm.lua")] if path == "alerts" else []
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            *script,
            f"http://127.0.0.1:{port}/{path}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return float(found[1]) if found else 0.0


def _health_beside_connections_that_do_not_read(port: int) -> str:
    held = []
    for _ in range(16):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.setblocking(False)  # noqa: FBT003 - the socket's own interface
        with contextlib.suppress(OSError):
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        held.append(connection)
    time.sleep(3)
    began = time.monotonic()
    try:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        asked.request("GET", "/-/healthy")
        asked.getresponse().read()
    except (OSError, http.client.HTTPException):
        return "none in 5 s"
    else:
        return f"{time.monotonic() - began:.3f} s"
    finally:
        for connection in held:
            connection.close()


def _memory(pid: int) -> float:
    """Return the resident memory of a process and its descendants in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(kilobytes) / 1024 + sum(_memory(int(child)) for child in children)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_there(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("web_servers: the server did not start")


if __name__ == "__main__":
    main()
