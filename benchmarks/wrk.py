"""Storms of requests by wrk, and the empty view they are compared with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import environment

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
%(more)s
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status + summary.errors.timeout
    + summary.errors.connect + summary.errors.read + summary.errors.write))
end
"""
_EMPTY = """
from flask import Flask, Response, request
from zapwatch.server import log_to_stderr
from types import SimpleNamespace
from zapwatch.front import Front, LoginThrottle, Server
from zapwatch.config import Listen
log_to_stderr()
flask = Flask("nothing")
@flask.post("/alerts")
def alerts():
    request.get_data()
    return Response("{}", 202, mimetype="application/json")
def bare(environ, start_response):
    environ["wsgi.input"].read()
    start_response("202 Accepted", [("Content-Length", "0")])
    return ()
server = Server("nothing", "NOTHING", Listen("127.0.0.1", 0))
print(server.url, flush=True)
auth = SimpleNamespace(is_known=lambda _: True, throttle=LoginThrottle())
"""


@dataclass(frozen=True)
class Rate:
    """Results of one wrk run; durations in milliseconds."""

    requests: int
    a_second: float
    p50: float
    p99: float
    failed: int


def script(path: Path, bodies: Iterable[bytes], token: str, more: str = "") -> Path:
    """Write wrk's script at ``path``, which posts the bodies in turn; ``more`` is Lua."""
    lines = path.with_suffix(".bodies")
    lines.write_bytes(b"".join(body + b"\n" for body in bodies))
    path.write_text(_LUA % {"bodies": lines, "token": token, "more": more})
    return path


def posting(url: str, script: Path, seconds: int, connections: int) -> subprocess.Popen[str]:
    """Start wrk; ``result`` waits for its end."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Rate:
    """Return what a run of wrk printed; raise SystemExit if that is something else."""
    said, _ = process.communicate()
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", said)
    if found is None:
        raise SystemExit(f"wrk printed something else:\n{said}")
    requests, microseconds, p50, p99, failed = map(int, found.groups())
    return Rate(requests, requests / microseconds * 1e6, p50 / 1000, p99 / 1000, failed)


@contextmanager
def empty_view(app: str, urgent: str) -> Iterator[str]:
    """Serve a view that only reads the body, of ``flask`` or ``bare``; yield the server's URL."""
    program = f"{_EMPTY}server.run(Front({app}, auth=auth, urgent={urgent!r}))\n"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, env=environment({}), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
