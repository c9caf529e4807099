"""What two or more programs need that write to one SQLite file."""

from __future__ import annotations

import sqlite3
import time

import sqlalchemy as sa

_PAUSE = 0.01  # seconds between two tries


def use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Switch to a log that is written ahead, so that readers go on while somebody writes.

    Others may be doing the same: here, unlike anywhere else, SQLite itself does not wait for the
    lock. Raises sqlite3.OperationalError where it is not free within so many seconds.
    """
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_PAUSE)
        else:
            return


def begin_as_writers(engine: sa.Engine) -> None:
    """Let transactions begin as writers, unless their option ``zapwatch_reads`` says otherwise.

    One that becomes a writer half-way could not wait for another one to end.
    """

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("zapwatch_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
