"""Transactions on one database, SQLite or MariaDB/MySQL: engines, write lock, file, errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from zapwatch.clock import Clock

_T = TypeVar("_T")
_PAUSE = 0.01  # seconds between two tries
_TIMEOUT = 10  # seconds to wait for a connection, an answer or a lock
_COLLISIONS = {1205, 1213}  # MariaDB's and MySQL's numbers for a lock's time-out and a deadlock
_TRIES = 8  # of a transaction that met another one on its way
_MODE = 0o600  # it names the channels, and whoever writes the state commands repairs


class StateError(Exception):
    """The database cannot be read or written. ``str()`` is one line without the password."""


class UnavailableError(StateError):
    """Nobody can use the database just now: it does not answer, is locked, or the disk is full."""


class CollisionError(UnavailableError):
    """Another transaction was in the way, and this one was undone."""


def one_line(error: Exception) -> str:
    """Return what the database said, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    arguments = getattr(original, "args", ())
    text = " ".join(str(argument) for argument in arguments) or type(original).__name__
    return "".join(c if c.isprintable() else " " for c in text[:300])


class Database:
    """Transactions on one database; every failure is a StateError.

    ``create_tables`` makes the tables that are missing, or brings them up to date: at the first
    use, and after the SQLite file was deleted or replaced. It raises StateError or anything else.
    """

    def __init__(
        self,
        url: sa.URL,
        create_tables: Callable[[sa.Engine], None],
        *,
        durable: bool = True,
        read_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Connect to nothing yet; raise StateError.

        What is ``durable`` outlives a power failure, and else the end of the program only.
        ``read_only`` neither makes nor changes an SQLite file, nor any tables. With a ``clock``,
        now() returns its time instead of the database's.
        """
        self.clock = clock or Clock()
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._create_tables = create_tables
        self._read_only = read_only
        self._in_memory = self.is_sqlite and url.database in {None, "", ":memory:"}
        self._path = Path(url.database) if self.is_sqlite and url.database else None
        self._opening = threading.Lock()
        # SQLite lets one write at a time, and has the others sleep: in this process they queue.
        self._writing = threading.Lock() if self.is_sqlite else nullcontext()
        self._is_open = False
        self._file: tuple[int, int] | None = None
        self._reader: sa.Engine
        try:
            if self.is_sqlite:
                self._engine = _sqlite_engine(
                    url.database or "", durable=durable, read_only=read_only
                )
                self._reader = self._engine.execution_options(zapwatch_reads=True)
            else:
                self._engine = _mysql_engine(url, isolation_level="READ COMMITTED")
                self._reader = mysql_reader(url)
        except Exception as error:  # noqa: BLE001 - PyMySQL raises all sorts at settings it dislikes
            raise StateError(one_line(error)) from None
        for engine in (self._engine, self._reader):
            engine.update_execution_options(zapwatch_clock=clock)

    def open(self) -> tuple[int, int] | None:
        """Open the file that is there now, if it is another one than before; return its identity.

        Raises StateError.
        """
        if not self._is_open or _identity(self._path) != self._file:
            with self._opening:
                if not self._is_open or _identity(self._path) != self._file:
                    # Open connections would go on with the file that is gone.
                    self._engine.dispose()
                    self._prepare()
                    self._file = _identity(self._path)
                    self._is_open = True
        return self._file

    def _prepare(self) -> None:
        if self._in_memory:
            raise StateError("a database in memory would be another one for each thread")
        if self._read_only:
            return
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite gives its two other files the mode of this one.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, _MODE))
            self._create_tables(self._engine)
        except StateError:
            raise
        except OSError as error:
            raise StateError(f"{error.filename}: {error.strerror}") from None
        except Exception as error:  # noqa: BLE001 - as above
            raise StateError(one_line(error)) from None

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Begin a transaction that commits at the end; on SQLite no other can write meanwhile."""
        file = self.open()
        with self._writing, _as_state_error(), self._engine.begin() as connection:
            yield connection
        if _identity(self._path) != file:
            raise UnavailableError(f"{self._path} was deleted or replaced meanwhile")

    def transact(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Return what ``work`` does in one transaction, tried again where another was in its way.

        Raises StateError, and what ``work`` raises.
        """
        for _ in range(_TRIES - 1):
            with suppress(CollisionError), self.write() as connection:
                return work(connection)
        with self.write() as connection:
            return work(connection)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Lend a connection that only reads, each statement by itself, and waits for no writer."""
        self.open()
        with _as_state_error(), self._reader.connect() as connection:
            yield connection

    def ping(self) -> None:
        """Return when the database has answered; raise StateError."""
        with self.read() as connection:
            connection.execute(_PING)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        self._reader.dispose()


def now(connection: sa.Connection) -> float:
    """Return Unix seconds by the database's clock, the one that all hooks on it share."""
    clock: Clock | None = connection.get_execution_options().get("zapwatch_clock")
    if clock is None and connection.dialect.name == "sqlite":
        clock = Clock()  # SQLite has no clock but this machine's, on which all of them run
    return float(connection.scalar(_NOW)) if clock is None else clock.time()


def now_column(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return what now() does, as a column of another statement."""
    clock: Clock | None = connection.get_execution_options().get("zapwatch_clock")
    if clock is not None or connection.dialect.name == "sqlite":
        return sa.literal((clock or Clock()).time())
    return sa.literal_column("UNIX_TIMESTAMP(NOW(6))", sa.Double)


_PING = sa.text("SELECT 1")
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
        arguments = getattr(getattr(error, "orig", None), "args", ())
        collided = not _COLLISIONS.isdisjoint(arguments[:1])
        raise (CollisionError if collided else UnavailableError)(one_line(error)) from None
    except SQLAlchemyError as error:
        raise StateError(one_line(error)) from None


def _sqlite_engine(path: str, *, durable: bool, read_only: bool) -> sa.Engine:
    uri = f"file:{quote(path)}?mode={'ro' if read_only else 'rw'}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        if not read_only:
            try:
                # The log that is written ahead lets readers go on; FULL has it on the disk at each
                # commit.
                use_wal(connection, _TIMEOUT)
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            except sqlite3.Error:
                connection.close()
                raise
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that becomes a writer half-way could not wait for another one to end.
        if not connection.get_execution_options().get("zapwatch_reads"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


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


def mysql_reader(url: sa.URL, **options: Any) -> sa.Engine:
    """Return an engine that makes each statement a transaction of its own, without a commit.

    No old snapshot is read or kept alive, and nothing has to be rolled back.
    """
    return _mysql_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        **options,
    )


def _mysql_engine(url: sa.URL, **options: Any) -> sa.Engine:
    """Return an engine that waits for an answer no longer than for a lock."""
    waits = ("connect_timeout", "read_timeout", "write_timeout")
    kept = {"pool_pre_ping": True, "connect_args": dict.fromkeys(waits, _TIMEOUT)}
    return _connect_as_php(sa.create_engine(url, **kept | options))


def _connect_as_php(engine: sa.Engine) -> sa.Engine:
    """Let a MySQL engine connect as PHP's programs do, and return it.

    Of several ``unix_socket`` in its URL the first that is there counts; if none is, the host does.
    A password is sent as its bytes in UTF-8, or as those of the file that it was read from.
    """

    @sa.event.listens_for(engine, "do_connect")
    def connect(
        dialect: sa.Dialect, _record: object, arguments: list[Any], parameters: dict[str, Any]
    ) -> Any:
        asked = dict(parameters)
        sockets = asked.get("unix_socket")
        if isinstance(sockets, tuple):
            asked["unix_socket"] = next((one for one in sockets if Path(one).is_socket()), None)
        if isinstance(asked.get("password"), str):
            asked["password"] = asked["password"].encode("utf-8", "surrogateescape")
        return dialect.connect(*arguments, **asked)

    return engine
