"""The state database: its two tables, and transactions that behave alike on all three dialects."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from whatsapp.channels import MAX_ID_LENGTH
from whatsapp.message_log import one_line

_TRIES = 10
_WAL_PAUSE = 0.02  # seconds
_MADE_BY_OTHERS = {1050, 1061}  # MariaDB's and MySQL's numbers for a table or index that is there
_TIMEOUT = 10  # seconds to wait for a connection, an answer or a lock

_metadata = sa.MetaData()
# Identities differ by letters that a friendlier collation would take for the same.
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_KEY = sa.String(MAX_ID_LENGTH)
_SECONDS = sa.Double  # Unix seconds by the database's clock

repairs = sa.Table(
    "repairs",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("reason", sa.String(20), nullable=False),
    # A look: ends the episode if the channel is connected, calls nothing if it is not.
    sa.Column("look_only", sa.Boolean, nullable=False),
    # The key until the repair is done, then NULL: two rows of one channel cannot both have it.
    sa.Column("active_key", _KEY),
    sa.Column("accepted_at", _SECONDS, nullable=False),
    sa.Column("not_before", _SECONDS, nullable=False),
    sa.Column("holder", sa.String(40)),
    sa.Column("lease_until", _SECONDS),
    sa.Column("finished_at", _SECONDS, index=True),
    sa.Column("attempt", sa.Integer),
    sa.Column("action", sa.String(20)),
    sa.Column("outcome", sa.String(20)),
    sa.Column("detail", sa.String(500)),
    sa.UniqueConstraint("gateway", "active_key"),
    **_MYSQL,
)
"""One row a repair, waiting, under way or done. It is claimed by a ``holder`` for a while."""

channels = sa.Table(
    "channels",
    _metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("consecutive_failures", sa.Integer, nullable=False, default=0),
    sa.Column("qr_required", sa.Boolean, nullable=False, default=False),
    sa.Column("called_at", _SECONDS),
    sa.Column("unheard_since", _SECONDS),
    **_MYSQL,
)
"""What is remembered of a channel that the gateway lists: its episode, and when it was called."""


def of_channel(gateway: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition for the row of ``channels`` about one channel."""
    return (channels.c.gateway == gateway, channels.c.key == key)


def unfinished(gateway: str) -> sa.ColumnElement[bool]:
    """Return the condition for the rows of ``repairs`` that are queued or under way."""
    return sa.and_(repairs.c.gateway == gateway, repairs.c.active_key.is_not(None))


def remember(
    connection: sa.Connection, gateway: str, key: str, channel: str, **values: object
) -> None:
    """Set values of a channel's row in ``channels``, which is made if it is not there."""
    where = of_channel(gateway, key)
    if connection.scalar(sa.select(channels.c.key).where(*where)) is None:
        row = {"gateway": gateway, "key": key, "channel": channel}
        connection.execute(sa.insert(channels).values(row))
    connection.execute(sa.update(channels).where(*where).values(channel=channel, **values))


class StateError(Exception):
    """The state cannot be read or written. ``str()`` is one line without the password."""


class Database:
    """Transactions on one state database; every failure is a StateError."""

    def __init__(self, url: sa.URL) -> None:
        """Open the database and make its tables where they are missing; raise StateError."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite and url.database in {None, "", ":memory:"}:
            raise StateError("a database in memory would be another one for each thread")
        try:
            if self.is_sqlite and url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = _sqlite_engine(url) if self.is_sqlite else _mysql_engine(url)
            self._make_tables()
            self._path = Path(url.database) if self.is_sqlite and url.database else None
            self._file = _identity(self._path)
        except OSError as error:
            raise StateError(f"{error.filename}: {error.strerror}") from None
        except Exception as error:  # noqa: BLE001 - PyMySQL raises all sorts at settings it dislikes
            raise StateError(one_line(error)) from None

    def _make_tables(self) -> None:
        """Make the tables that are missing, maybe beside other hooks that are doing the same."""
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    _metadata.create_all(connection)
            except DBAPIError as error:
                if getattr(error.orig, "args", (0,))[0] not in _MADE_BY_OTHERS:
                    raise
            else:
                return
        raise StateError("the tables can neither be found nor made")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Begin a transaction that commits at the end; on SQLite no other can write meanwhile."""
        self._check_file()
        with _as_state_error(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads, and waits for no writer."""
        self._check_file()
        with _as_state_error(), self._engine.connect() as connection:
            yield connection.execution_options(zapwatch_reads=True)

    def _check_file(self) -> None:
        # Open connections would go on with the file that is gone, new ones with another.
        if _identity(self._path) != self._file:
            raise StateError(
                f"{self._path} was deleted or replaced: stop the program, start it again"
            )

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def now(connection: sa.Connection) -> float:
    """Return Unix seconds by the database's clock, the one that all hooks on it share."""
    if connection.dialect.name == "sqlite":
        statement = "SELECT (julianday('now') - 2440587.5) * 86400.0"
    else:
        statement = "SELECT UNIX_TIMESTAMP(NOW(6))"
    return float(connection.scalar(sa.text(statement)))


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
    except SQLAlchemyError as error:
        raise StateError(one_line(error)) from None


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _TIMEOUT, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The log that is written ahead lets readers go on; FULL has it on the disk at each commit.
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that becomes a writer half-way could not wait for another one to end.
        reads = connection.get_execution_options().get("zapwatch_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to a log that is written ahead, while others may be doing the same."""
    give_up_at = time.monotonic() + _TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            # Here, unlike anywhere else, SQLite itself does not wait for the lock.
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_WAL_PAUSE)
        else:
            return


def _mysql_engine(url: sa.URL) -> sa.Engine:
    timeouts = {"connect_timeout": _TIMEOUT, "read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT}
    return sa.create_engine(
        url, isolation_level="READ COMMITTED", pool_pre_ping=True, connect_args=timeouts
    )
