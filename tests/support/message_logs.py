"""A message log with its writer, on SQLite or MariaDB."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from demo.simulator.schema import create_message_log, insert_message
from tests.support.mariadb import MariaDb
from tests.support.states import hurry

_PASSWORD = "not a real p$#ss'w\"o@r:d/\\%"


class WrittenLog:
    """The table ``webhook_raw_logs``, an engine that writes it, and a read-only URL."""

    def __init__(self, writer: sa.URL, reader: sa.URL | None = None) -> None:
        # Every connection is new, and so has the server's current time zone.
        self.engine = sa.create_engine(writer, poolclass=sa.NullPool)
        if self.is_sqlite:
            hurry(self.engine)
        create_message_log(self.engine)
        self.reader = reader or writer

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def write(self, channel: str = "loja", **options: Any) -> int:
        """Write and commit a message, with the options of insert_message(); return its id."""
        with self.engine.begin() as connection:
            return insert_message(connection, channel, **options)

    def write_many(self, channels: list[str], **options: Any) -> list[int]:
        """Write messages in one transaction."""
        with self.engine.begin() as connection:
            return [insert_message(connection, channel, **options) for channel in channels]

    def write_history(self, channel: str, ages_seconds: Iterable[float]) -> None:
        """Write messages of these ages by the database's clock, in the given order."""
        then = (
            "datetime('now', '-' || :age || ' seconds')"
            if self.is_sqlite
            else "NOW() - INTERVAL :age SECOND"
        )
        statement = (
            "INSERT INTO webhook_raw_logs (received_at, event_type, payload_json)"
            f" VALUES ({then}, 'message', :payload)"
        )
        payload = json.dumps({"sessionId": channel})
        self.run(statement, *({"age": int(age), "payload": payload} for age in ages_seconds))

    def write_noise(self, rows: int, channel: str = "noise") -> None:
        """Write many messages, each with a number of its own."""
        texts = (json.dumps({"sessionId": channel, "id": number}) for number in range(rows))
        self.run(
            "INSERT INTO webhook_raw_logs (event_type, payload_json) VALUES ('message', :payload)",
            *({"payload": text} for text in texts),
        )

    def write_as(self, row_id: int, channel: str = "loja", **options: Any) -> None:
        with self.engine.begin() as connection:
            written = insert_message(connection, channel, **options)
            statement = "UPDATE webhook_raw_logs SET id = :to WHERE id = :of"
            connection.execute(sa.text(statement), {"to": row_id, "of": written})

    def postdate(self, row_id: int, seconds: int) -> None:
        then = (
            f"datetime(received_at, '+{seconds} seconds')"
            if self.is_sqlite
            else f"received_at + INTERVAL {seconds} SECOND"
        )
        self.run(f"UPDATE webhook_raw_logs SET received_at = {then} WHERE id = :id", id=row_id)

    def received(self, row_id: int, at: str) -> None:
        """Set a row's time, as text in the database's time zone."""
        self.run("UPDATE webhook_raw_logs SET received_at = :at WHERE id = :id", at=at, id=row_id)

    def purge(self, up_to: int | None = None) -> None:
        """Delete the rows up to an id, or all; ids continue."""
        if up_to is None:
            self.run("DELETE FROM webhook_raw_logs")
        else:
            self.run("DELETE FROM webhook_raw_logs WHERE id <= :id", id=up_to)

    def truncate(self) -> None:
        """Empty the table; ids restart at 1."""
        if self.is_sqlite:
            self.purge()
            self.run("DELETE FROM sqlite_sequence WHERE name = 'webhook_raw_logs'")
        else:
            self.run("TRUNCATE webhook_raw_logs")

    def replace(self) -> None:
        """Drop the table and create an empty one."""
        self.run("DROP TABLE webhook_raw_logs")
        create_message_log(self.engine)

    def run(self, statement: str, *rows: Mapping[str, Any], **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), rows or values)


@contextmanager
def on_sqlite(directory: Path) -> Iterator[WrittenLog]:
    log = WrittenLog(sa.URL.create("sqlite", database=str(directory / "log.sqlite3")))
    yield log
    log.engine.dispose()


@contextmanager
def on_mariadb(server: MariaDb) -> Iterator[WrittenLog]:
    """Create a message log on MariaDB, with a reader that may only SELECT from this table."""
    name = server.create_database()
    try:
        log = WrittenLog(server.url(name))
        user = server.create_user(_PASSWORD, f"SELECT ON {name}.webhook_raw_logs")
        log.reader = server.url(name, user, _PASSWORD)
        yield log
        log.engine.dispose()
    finally:
        server.drop_database(name)
