"""One poll of the message log against the statement that the cron script ran for each channel.

    python -m benchmarks.message_log_poll [ROWS]

Builds a table of 1,000,000 rows of about 1 KB in a real MariaDB. A poll here is what the exporter
does every few seconds, with 10 new rows since the last one, for all channels at once.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import sqlalchemy as sa

from stack.simulator.schema import create_message_log, insert_message
from tests.support.mariadb import MariaDb
from whatsapp.last_messages import LastMessages
from whatsapp.message_log import MessageLog

_CHANNELS = ("pixel12digital", "imobsites")
_POLLS = 50
_CRON_RUNS = 3
_CRON = sa.text(
    "SELECT created_at FROM webhook_raw_logs WHERE payload_json LIKE :pattern "
    "AND event_type IN ('message', 'onmessage', 'onselfmessage', 'message.sent', "
    "'message.received') ORDER BY created_at DESC LIMIT 1"
)


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with MariaDb({"innodb-buffer-pool-size": "2G", "innodb-log-file-size": "512M"}) as server:
        url = server.url(server.create_database())
        engine = sa.create_engine(url)
        _fill(engine, rows)
        messages = LastMessages(MessageLog(url), 7 * 86400)
        first = _seconds(lambda: messages.poll(_CHANNELS))
        polls = []
        for _ in range(_POLLS):
            _add(engine, 10)
            polls.append(_seconds(lambda: messages.poll(_CHANNELS)))
        with engine.connect() as connection:
            cron = [
                _seconds(lambda: connection.execute(_CRON, {"pattern": f"%{_CHANNELS[0]}%"}).all())
                for _ in range(_CRON_RUNS)
            ]
        engine.dispose()
    poll, statement = statistics.median(polls), statistics.median(cron)
    print(
        f"{rows} rows of about 1 KB: a poll takes {poll * 1000:.1f} ms (the first {first:.2f} s),"
    )
    print(f"and the cron script's statement {statement:.1f} s a channel: ", end="")
    print(f"{statement / poll:.0f} times as long for one channel,")
    print(f"{statement * len(_CHANNELS) / poll:.0f} times for {len(_CHANNELS)}")


def _fill(engine: sa.Engine, rows: int) -> None:
    create_message_log(engine)
    _add(engine, 1000)
    copy = sa.text(
        "INSERT INTO webhook_raw_logs (received_at, event_type, payload_json, created_at) "
        "SELECT received_at, event_type, payload_json, created_at FROM webhook_raw_logs "
        "ORDER BY id LIMIT :rows"
    )
    count = 1000
    while count < rows:
        with engine.begin() as connection:
            count += connection.execute(copy, {"rows": min(rows - count, 100_000)}).rowcount


def _add(engine: sa.Engine, rows: int) -> None:
    with engine.begin() as connection:
        for number in range(rows):
            insert_message(connection, _CHANNELS[number % 2])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
