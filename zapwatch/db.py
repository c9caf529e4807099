"""What two or more programs need that write to one SQLite file."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from reconnect_hook.migrate import upgrade
from zapwatch.messages.webhook_log import one_line

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


_TIMEOUT = 10  # seconds to wait for a connection, an answer or a lock
_UPGRADE_TIMEOUT = 600  # seconds, for a change of a table that holds the history of 90 days
_STATE_MODE = 0o600  # it names the channels, and whoever writes it commands repairs


class StateError(Exception):
    """The state cannot be read or written. ``str()`` is one line without the password."""


class UnavailableError(StateError):
    """Nobody can use the database just now: it does not answer, is locked, or the disk is full."""


class Database:
    """Transactions on one state database; every failure is a StateError."""

    def __init__(self, url: sa.URL) -> None:
        """Open the database and bring its tables up to date; raise StateError."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite and url.database in {None, "", ":memory:"}:
            raise StateError("a database in memory would be another one for each thread")
        self._url = url
        self._path = Path(url.database) if self.is_sqlite and url.database else None
        self._opening = threading.Lock()
        # SQLite lets one write at a time, and has the others sleep: in this process they queue.
        self._writing = threading.Lock() if self.is_sqlite else nullcontext()
        try:
            self._engine = _sqlite_engine(url) if self.is_sqlite else _mysql_engine(url, _TIMEOUT)
        except Exception as error:  # noqa: BLE001 - PyMySQL raises all sorts at settings it dislikes
            raise StateError(one_line(error)) from None
        try:
            self._file = self._open()
        except StateError:
            self.close()
            raise

    def _open(self) -> tuple[int, int] | None:
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite gives its two other files the mode of this one.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, _STATE_MODE))
                upgrade(self._engine)
            else:
                engine = _mysql_engine(self._url, _UPGRADE_TIMEOUT)
                try:
                    upgrade(engine)
                finally:
                    engine.dispose()
        except OSError as error:
            raise StateError(f"{error.filename}: {error.strerror}") from None
        except CommandError as error:
            raise StateError(f"its tables are not known to this version: {error}") from None
        except Exception as error:  # noqa: BLE001 - as above
            raise StateError(one_line(error)) from None
        return _identity(self._path)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Begin a transaction that commits at the end; on SQLite no other can write meanwhile."""
        file = self._follow_file()
        with self._writing, _as_state_error(), self._engine.begin() as connection:
            yield connection
        if _identity(self._path) != file:
            raise UnavailableError(f"{self._path} was deleted or replaced meanwhile")

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads, and waits for no writer."""
        self._follow_file()
        with _as_state_error(), self._engine.connect() as connection:
            yield connection.execution_options(zapwatch_reads=True)

    def _follow_file(self) -> tuple[int, int] | None:
        """Go over to the file that is there, if it is another one than before."""
        if _identity(self._path) != self._file:
            with self._opening:
                if _identity(self._path) != self._file:
                    # Open connections would go on with the file that is gone.
                    self._engine.dispose()
                    self._file = self._open()
        return self._file

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def now(connection: sa.Connection) -> float:
    """Return Unix seconds by the database's clock, the one that all hooks on it share."""
    if connection.dialect.name == "sqlite":
        return time.time()  # SQLite has no clock but this machine's, on which all of them run
    return float(connection.scalar(_NOW))


_NOW = sa.text("SELECT UNIX_TIMESTAMP(NOW(6))")


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from every other one, None where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


@contextmanager
def _as_state_error() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise UnavailableError(one_line(error)) from None
    except SQLAlchemyError as error:
        raise StateError(one_line(error)) from None


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _TIMEOUT, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The log that is written ahead lets readers go on; FULL has it on the disk at each commit.
        use_wal(connection, _TIMEOUT)
        connection.execute("PRAGMA synchronous=FULL")

    begin_as_writers(engine)
    return engine


def _mysql_engine(url: sa.URL, seconds: int) -> sa.Engine:
    timeouts = {"connect_timeout": _TIMEOUT, "read_timeout": seconds, "write_timeout": seconds}
    return sa.create_engine(
        url, isolation_level="READ COMMITTED", pool_pre_ping=True, connect_args=timeouts
    )
