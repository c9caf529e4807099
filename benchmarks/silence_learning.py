"""Cost of learning: time, memory, and the effect on polls and scrapes.

    python -m benchmarks.silence_learning [ROWS]

An exporter of 1,000 channels runs as a process on a real MariaDB with ROWS rows (1 million) evenly
over a month. It polls every second and is scraped constantly, while it learns and afterwards.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.big_log import BigLog
from benchmarks.exporter_at_work import AtWork, exporter_at_work
from tests.support.mariadb import MariaDb

_ROWS = 1_000_000
_CHANNELS = 1000
_PAUSE_SECONDS = 0.1
_SCRAPES = 20  # between two checks whether it has learned
_AFTER = 300  # scrapes
_LEARNED = "whatsapp_silence_learned_messages"
_POLLS = "whatsapp_message_log_poll_duration_seconds"


class _Measured:
    """Seconds of scrapes and polls, and peak memory, since its creation."""

    def __init__(self, at_work: AtWork) -> None:
        self._at_work = at_work
        self._scrapes: list[float] = []
        self._polls = self._poll_seconds()
        self.megabytes = 0.0

    def scrape(self) -> None:
        """Scrape once, and update the peak memory."""
        self._scrapes.append(self._at_work.scrape()[0])
        self.megabytes = max(self.megabytes, self._at_work.resident_megabytes())
        time.sleep(_PAUSE_SECONDS)

    def __str__(self) -> str:
        (before, before_count), (now, count) = self._polls, self._poll_seconds()
        p99 = sorted(self._scrapes)[int(0.99 * (len(self._scrapes) - 1))]
        return (
            f"scrape p50 {statistics.median(self._scrapes) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms;"
            f" a poll {(now - before) / max(1, count - before_count) * 1000:.2f} ms (mean of "
            f"{count - before_count:.0f})"
        )

    def _poll_seconds(self) -> tuple[float, float]:
        now = self._at_work.program.metrics()
        return now.get(f"{_POLLS}_sum") or 0.0, now.get(f"{_POLLS}_count") or 0.0


def main() -> None:
    """Run the benchmark and print the results."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS
    with MariaDb({"innodb-buffer-pool-size": "128M", "innodb-log-file-size": "1G"}) as server:
        log = BigLog(server)
        log.fill(rows)
        settings = {"SILENCE_MODE": "adaptive", "SILENCE_STATE_FILE": "silence.json"}
        with exporter_at_work(server, _CHANNELS, 1, url=log.writer.url, more=settings) as at_work:
            at_work.program.get("/-/ready")
            before = at_work.resident_megabytes()
            started = time.perf_counter()
            while_learning = _Measured(at_work)
            while not (messages := at_work.program.metrics().get(_LEARNED, gateway="wpp")):
                for _ in range(_SCRAPES):
                    while_learning.scrape()
            seconds = time.perf_counter() - started
            print(
                f"{rows:,} rows, {_CHANNELS} channels: {messages:,.0f} messages learned "
                f"in {seconds:.0f} s; memory {before:.0f} MB before, at most "
                f"{while_learning.megabytes:.0f} MB"
            )
            after = _Measured(at_work)
            for _ in range(_AFTER):
                after.scrape()
            for name, measured in (("while learning", while_learning), ("after", after)):
                print(f"  {name:15} {measured}")


if __name__ == "__main__":
    main()
