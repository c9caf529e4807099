"""A message log of any size in a real MariaDB, and the cost of reading it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from demo.simulator.schema import create_message_log, insert_message
from tests.support.mariadb import MariaDb
from zapwatch.messages.webhook_log import MESSAGE_EVENTS, MessageLog

_CHANNELS = 1000
_SPREAD_SECONDS = 30 * 86400  # time span of a table's rows, whatever their number
_FILL = sa.text(
    "INSERT INTO webhook_raw_logs"
    " (received_at, created_at, event_type, payload_hash, payload_json, event_id)"
    # The newest row of 10 million has the same age as that of 10 thousand.
    " SELECT NOW() - INTERVAL (:total - seq - :done) * :spread / :total SECOND,"
    " NOW() - INTERVAL (:total - seq - :done) * :spread / :total SECOND,"
    " ELT(1 + MOD(seq, 3), 'message', 'onmessage', 'presence.update'),"
    " LPAD(HEX(seq + :done), 16, '0'),"
    ' CONCAT(\'{"event": "onmessage", "sessionId": "channel\', MOD(seq * 7919, :channels),'
    " '\", \"body\": \"', REPEAT('palavra ', 80), '\"}'), UUID()"
    " FROM seq_1_to_100000 WHERE seq <= :wanted"
)
_CRON = sa.text(
    "SELECT created_at FROM webhook_raw_logs WHERE payload_json LIKE :pattern"
    f" AND event_type IN ({', '.join(repr(event) for event in MESSAGE_EVENTS)})"
    " ORDER BY created_at DESC LIMIT 1"
)


class BigLog:
    """The table, with rows of about 0.8 KB, an engine to write and a URL to read it."""

    def __init__(self, server: MariaDb) -> None:
        name = server.create_database()
        self.writer = sa.create_engine(server.url(name))
        password = "only-for-the-benchmark"
        user = server.create_user(password, f"SELECT ON {name}.*")
        self.reader = server.url(name, user, password)

    def fill(self, rows: int) -> None:
        """Recreate the table with ``rows`` rows."""
        with self.writer.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS webhook_raw_logs"))
        create_message_log(self.writer)
        self.append(rows)
        with self.writer.begin() as connection:
            connection.execute(sa.text("ANALYZE TABLE webhook_raw_logs"))

    def append(self, rows: int) -> None:
        """Append ``rows`` rows, dated evenly over a month that ends now."""
        done = 0
        while done < rows:
            values = {
                "total": rows,
                "done": done,
                "spread": _SPREAD_SECONDS,
                "channels": _CHANNELS,
                "wanted": min(100_000, rows - done),
            }
            with self.writer.begin() as connection:
                done += connection.execute(_FILL, values).rowcount

    def add(self, rows: int) -> None:
        """Write ``rows`` new messages of the first ten channels, in one transaction."""
        with self.writer.begin() as connection:
            for number in range(rows):
                insert_message(connection, f"channel{number % 10}")

    def gigabytes(self) -> float:
        """Return the size of table and indexes on disk."""
        statement = sa.text(
            "SELECT (data_length + index_length) / 1e9 FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name = 'webhook_raw_logs'"
        )
        with self.writer.connect() as connection:
            return float(connection.scalar(statement) or 0)

    def cron_seconds(self) -> float:
        """Return the duration of the cron script's statement for one channel."""
        with self.writer.connect() as connection:
            started = time.perf_counter()
            connection.execute(_CRON, {"pattern": "%channel7%"}).all()
            return time.perf_counter() - started

    def explain(self, statement: str, values: Any) -> list[dict[str, Any]]:
        """Return the steps of a statement's plan."""
        with self.writer.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
            return [dict(step) for step in plan.mappings()]


class Statements:
    """Records a MessageLog's statements: one of each kind, and the longest duration in seconds."""

    def __init__(self, log: MessageLog) -> None:
        self.kinds: dict[str, tuple[str, Any]] = {}
        self.longest = 0.0
        engine = log._engine  # noqa: SLF001 - sees every statement
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, _connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        # Lists of ids of any length are one kind.
        kind = re.sub(r"(%\(\w+\)s(, )?)+", "?", " ".join(statement.split()))
        self.kinds[kind] = statement, values
        self._began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self.longest = max(self.longest, time.perf_counter() - self._began)


def names(count: int) -> Sequence[str]:
    """Return the keys of the table's first ``count`` channels."""
    return [f"channel{number}" for number in range(count)]


@contextmanager
def big_log() -> Iterator[BigLog]:
    """Start a server with MariaDB's default buffer pool of 128 MB, and create the log on it."""
    options = {"innodb-buffer-pool-size": "128M", "innodb-log-file-size": "1G"}
    with MariaDb(options) as server:
        log = BigLog(server)
        yield log
        log.writer.dispose()
