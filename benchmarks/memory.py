"""The exporter's resident memory over an hour's worth of polls, driven faster.

    python -m benchmarks.memory [POLLS]

720 polls of each source are an hour at the shipped pace. The exporter runs as a process on a real
MariaDB, each channel gets messages all the time, and somebody scrapes.
"""

from __future__ import annotations

import sys
import time

from benchmarks.exporter_at_work import AtWork, exporter_at_work
from tests.support.mariadb import MariaDb

_SIZES = (10, 1000, 10_000)
_POLLS = 720
_WARM = 20  # polls until everything has been in memory once
_STEPS = 6


def main() -> None:
    """Measure and print."""
    polls = int(sys.argv[1]) if len(sys.argv) > 1 else _POLLS
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


def _run_to(at_work: AtWork, polls: int) -> None:
    while at_work.polls() < polls:
        at_work.messages()
        at_work.scrape()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
