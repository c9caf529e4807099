"""First read and polls of the message log, on tables from 10 thousand to 10 million rows.

    python -m benchmarks.message_log [ROWS ...]

Builds each table, with rows of 0.8 KB, in a real MariaDB. A poll is the exporter's, for all
channels at once, with 10 new rows since the last one. On the table with a million rows the cron
script's statement and ``reconnect_hook check`` are timed as well. Needs 25 GB of disk for 10
million rows, and stops at 3 million if there is less. Takes some minutes.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.big_log import BigLog, Statements, big_log, names
from benchmarks.exporter_at_work import Gateway
from tests.support.hooks import hook_settings
from tests.support.programs import run
from tests.support.raw_server import RawServer
from zapwatch.messages.log_tailer import LogTailer
from zapwatch.messages.webhook_log import MessageLog

_SIZES = (10_000, 1_000_000, 10_000_000)
_IF_DISK_IS_SHORT = 3_000_000
_DISK_BYTES = 25e9
_CHANNELS = (10, 1000)
_LOOKBACK_SECONDS = 7 * 86400.0
_POLLS = 100
_NEW_ROWS = 10
_BACKLOG = 1_000_000
_CRON_ROWS = 1_000_000
_CRON_RUNS = 3
_CHECKED = 10  # channels


@dataclass(frozen=True)
class Figures:
    """Durations in seconds."""

    first_look: float
    poll: float
    longest_statement: float


def main() -> None:
    """Run the benchmark and print the results."""
    sizes = [int(text) for text in sys.argv[1:]] or list(_SIZES)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if max(sizes) > _IF_DISK_IS_SHORT and free < _DISK_BYTES:
        print(f"only {free / 1e9:.0f} GB of disk are free: at most {_IF_DISK_IS_SHORT} rows")
        sizes = sorted({min(size, _IF_DISK_IS_SHORT) for size in sizes})
    polls: dict[int, dict[int, float]] = {count: {} for count in _CHANNELS}
    with big_log() as log:
        for size in sizes:
            started = time.perf_counter()
            log.fill(size)
            built = time.perf_counter() - started
            print(f"\n{size:,} rows, {log.gigabytes():.1f} GB, built in {built:.0f} s")
            for count in _CHANNELS:
                figures = _measure(log, count)
                polls[count][size] = figures.poll
                print(
                    f"  {count:4} channels: first look {figures.first_look:.3f} s, a poll "
                    f"{figures.poll * 1000:.2f} ms, longest statement "
                    f"{figures.longest_statement:.3f} s"
                )
            _look_for_nobody(log)
            if size == _CRON_ROWS:
                _compare_with_cron(log, {count: polls[count][size] for count in _CHANNELS})
        _explain(log)
        _catch_up(log)
    print()
    for count, seconds in polls.items():
        ratio = seconds[sizes[-1]] / seconds[sizes[0]]
        print(f"{count} channels: a poll of {sizes[-1]:,} rows takes {ratio:.2f} times as long as")
        print(f"  one of {sizes[0]:,}")


def _measure(log: BigLog, channels: int) -> Figures:
    reading = MessageLog(log.reader)
    statements = Statements(reading)
    messages = LogTailer(reading, _LOOKBACK_SECONDS)
    wanted = names(channels)
    started = time.perf_counter()
    messages.find(wanted)
    first_look = time.perf_counter() - started
    polls = []
    for _ in range(_POLLS):
        log.add(_NEW_ROWS)
        started = time.perf_counter()
        view = messages.poll(wanted)
        polls.append(time.perf_counter() - started)
    assert sum(view.messages.values()) == _POLLS * _NEW_ROWS, "each new row was heard"
    reading.close()
    return Figures(first_look, statistics.median(polls), statements.longest)


def _look_for_nobody(log: BigLog) -> None:
    """Search for a channel without messages, which reads all rows of a week."""
    reading = MessageLog(log.reader)
    statements = Statements(reading)
    messages = LogTailer(reading, _LOOKBACK_SECONDS)
    started = time.perf_counter()
    view = messages.find(["unlisted"])
    seconds = time.perf_counter() - started
    reading.close()
    print(
        f"  a channel that was never heard: {view.rows_read:,} rows of a week in {seconds:.1f} s, "
        f"longest statement {statements.longest:.3f} s"
    )


def _compare_with_cron(log: BigLog, polls: dict[int, float]) -> None:
    statement = statistics.median(log.cron_seconds() for _ in range(_CRON_RUNS))
    print(f"  the cron script's statement: {statement:.2f} s for one channel, which is")
    for count, poll in polls.items():
        print(f"  {statement / poll:,.0f} times a poll for {count} channels; and it has to be made")
        print(f"    for each channel: {count * statement / poll:,.0f} times")
    script = _CHECKED * statement
    for which, seconds in zip(("first", "next"), _check_seconds(log), strict=True):
        print(
            f"  `check` of {_CHECKED} channels, the {which} run, start of Python included: "
            f"{seconds:.1f} s; the script's statements {script:.1f} s, {script / seconds:.0f} times"
        )


def _check_seconds(log: BigLog) -> list[float]:
    """Return the duration of a first ``check`` and of the next; the gateway answers at once."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder, RawServer(Gateway(_CHECKED).talk) as gateway:
        url = log.reader.render_as_string(hide_password=False)
        settings = hook_settings(gateway.url, MESSAGE_LOG_URL=url)
        for _ in range(2):
            started = time.perf_counter()
            run(Path(folder), "reconnect_hook", "check", settings=settings).check_returncode()
            seconds.append(time.perf_counter() - started)
    return seconds


def _explain(log: BigLog) -> None:
    """Print each kind of statement with its plan."""
    reading = MessageLog(log.reader)
    statements = Statements(reading)
    newest = reading.head(0).newest_id
    reading.head(newest, newest - 1000)
    reading.rows_after(newest - 1000, 1000)
    reading.rows_before(newest, 1000)
    reading.rows_among(range(newest - 100, newest), 100)
    reading.ids_between(newest - 1000, newest, 1000)
    reading.close()
    print("\nEvery statement, with its plan on the largest table:")
    bad = 0
    for kind, (statement, values) in statements.kinds.items():
        print(f"\n  {_shortened(kind)}")
        for step in log.explain(statement, values):
            extra = step["Extra"] or ""
            scanned = step["type"] == "ALL" and "Table function" not in extra
            bad += scanned or "filesort" in extra
            print(
                f"    {step['table'] or '-'}: {step['type'] or '-'}, key {step['key'] or '-'}, "
                f"rows {step['rows'] or '-'}, {extra or '-'}"
            )
    print(f"\n  full scans or filesorts: {bad}")


def _catch_up(log: BigLog) -> None:
    """Read a week's backlog, as after an outage of the exporter or its connection."""
    log.fill(1000)
    reading = MessageLog(log.reader)
    statements = Statements(reading)
    messages = LogTailer(reading, _LOOKBACK_SECONDS)
    wanted = names(1000)
    messages.poll(wanted)
    log.append(_BACKLOG)
    before = _peak_megabytes()
    started = time.perf_counter()
    view = messages.poll(wanted)
    polls = 1
    while view.unread:
        view = messages.poll(wanted)
        polls += 1
    seconds = time.perf_counter() - started
    reading.close()
    print(
        f"\na backlog of {_BACKLOG:,} rows: {seconds:.1f} s in {polls} polls, longest statement "
        f"{statements.longest:.3f} s, {_peak_megabytes() - before:.0f} MB of memory more"
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _shortened(statement: str) -> str:
    begin, end = statement[:90], statement[-110:]
    return statement if len(statement) <= 205 else f"{begin} ... {end}"


if __name__ == "__main__":
    main()
