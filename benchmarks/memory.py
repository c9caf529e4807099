"""Memory of both programs at rest, and of the exporter over an hour's worth of fast polls.

    python -m benchmarks.memory [POLLS]

At rest each has two channels; prints startup time and memory. 720 polls of each source are an hour
at the shipped interval: the exporter runs as a process on a real MariaDB, with constant messages
for each channel and constant scrapes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.exporter_at_work import AtWork, exporter_at_work
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings
from tests.support.mariadb import MariaDb
from tests.support.programs import Program

_SIZES = (10, 1000, 10_000)
_POLLS = 720
_WARM = 20  # polls until memory has reached its working size
_STEPS = 6
_REST_SECONDS = 5.0


def main() -> None:
    """Run the benchmark and print the results."""
    polls = int(sys.argv[1]) if len(sys.argv) > 1 else _POLLS
    with SimulatorServer(SECRET) as simulator, tempfile.TemporaryDirectory() as folder:
        for name in ("loja", "obra"):
            simulator.gateway.put(name, {})
        _at_rest(Path(folder), simulator.url, "exporter")
        _at_rest(Path(folder), simulator.url, "reconnect_hook", "serve")
    with MariaDb() as server:
        for channels in _SIZES:
            started = time.perf_counter()
            with exporter_at_work(server, channels, poll_seconds=0.05) as at_work:
                _run_to(at_work, _WARM)
                first = at_work.resident_megabytes()
                seen = [first]
                for step in range(1, _STEPS + 1):
                    _run_to(at_work, _WARM + polls * step // _STEPS)
                    seen.append(at_work.resident_megabytes())
            shown = ", ".join(f"{megabytes:.0f}" for megabytes in seen)
            print(
                f"{channels:6,} channels, {polls} polls in {time.perf_counter() - started:.0f} s: "
                f"{shown} MB; in the end {seen[-1] / first:.2f} times as much as after {_WARM}"
            )


def _at_rest(folder: Path, gateway: str, *arguments: str) -> None:
    settings = hook_settings(gateway, EXPORTER_LISTEN="127.0.0.1:0")
    began = time.perf_counter()
    with Program(folder, *arguments, settings=settings) as program:
        program.get("/-/healthy").raise_for_status()
        ready = time.perf_counter() - began
        process = Path(f"/proc/{program.process.pid}")
        ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        busy = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        time.sleep(_REST_SECONDS)
        megabytes = int((process / "status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    print(
        f"{arguments[0]}: ready after {ready:.2f} s, {busy:.2f} s of processor time; "
        f"{megabytes:.0f} MiB at rest"
    )


def _run_to(at_work: AtWork, polls: int) -> None:
    while at_work.polls() < polls:
        at_work.messages()
        at_work.scrape()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
