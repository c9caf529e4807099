"""Database access, SQLite or MariaDB/MySQL: engines, transactions, write lock, errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.schema import SchemaItem

from zapwatch.clock import Clock

_T = TypeVar("_T")
_P = ParamSpec("_P")
_PAUSE = 0.01  # seconds between two tries
_TIMEOUT = 10  # seconds to wait for a connection, an answer or a lock
_COLLISIONS = {1205, 1213}  # MariaDB's and MySQL's numbers for a lock's time-out and a deadlock
_CLOSE_SECONDS = 2  # to wait for those who read at the end
_TRIES = 8  # of a transaction that collides with another
_CHUNK = 1000  # rows that one statement deletes
_MODE = 0o600  # the file names the channels, and write access to it can trigger repairs


class StateError(Exception):
    """Reading or writing the database failed. ``str()`` is one line without the password."""


class UnavailableError(StateError):
    """The database is temporarily unavailable: no response, locked, or the disk is full."""


class CollisionError(UnavailableError):
    """The transaction was rolled back after a collision with another one."""


def one_line(error: Exception) -> str:
    """Return the database's error text, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    arguments = getattr(original, "args", ())
    text = " ".join(str(argument) for argument in arguments) or type(original).__name__
    return "".join(c if c.isprintable() else " " for c in text[:300])


class Database:
    """Transactions on one database; every failure is a StateError.

    ``create_tables`` creates or migrates the tables at the first use, and after the SQLite file was
    deleted or replaced. It may raise any exception.
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
        """Prepare the engines without connecting; raise StateError.

        With ``durable``, commits survive a power failure, otherwise only the end of the program.
        ``read_only`` neither creates nor changes SQLite files or tables. With a ``clock``, now()
        returns its time instead of the database's.
        """
        self.clock = clock or Clock()
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._create_tables = create_tables
        self._read_only = read_only
        self._in_memory = self.is_sqlite and url.database in {None, "", ":memory:"}
        self._path = Path(url.database) if self.is_sqlite and url.database else None
        self._opening = threading.Lock()
        # SQLite has one writer at a time and lets others poll; writers of this process queue here.
        self._writing = threading.Lock() if self.is_sqlite else nullcontext()
        self._is_open = False
        self._file: tuple[int, int] | None = None
        try:
            if self.is_sqlite:
                self._engine = _sqlite_engine(
                    url.database or "", durable=durable, read_only=read_only
                )
                self._reader = self._engine
            else:
                self._engine = _mysql_engine(url, isolation_level="READ COMMITTED")
                self._reader = mysql_reader(url)
        except Exception as error:  # noqa: BLE001 - PyMySQL raises any type for invalid settings
            raise StateError(one_line(error)) from None
        for engine in {self._engine, self._reader}:
            engine.update_execution_options(zapwatch_clock=clock)

    def open(self) -> tuple[int, int] | None:
        """Open the database if its file is new or was replaced; return the file's identity.

        Raises StateError.
        """
        if not self._is_open or _identity(self._path) != self._file:
            with self._opening:
                if not self._is_open or _identity(self._path) != self._file:
                    # Open connections would keep using the deleted file.
                    self._engine.dispose()
                    self._prepare()
                    self._file = _identity(self._path)
                    self._is_open = True
        return self._file

    def _prepare(self) -> None:
        if self._in_memory:
            raise StateError("a database in memory would be a different one in each thread")
        if self._read_only:
            return
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite copies this mode to its -wal and -shm files.
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
        """Yield a connection whose transaction commits at the end; SQLite: the only writer."""
        file = self.open()
        with self._writing, _as_state_error(), self._engine.begin() as connection:
            lock_sqlite(connection)
            yield connection
        if _identity(self._path) != file:
            raise UnavailableError(f"{self._path} was deleted or replaced meanwhile")

    def transact(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Return the result of ``work`` in one transaction, retried after collisions.

        Raises StateError, and the exceptions of ``work``.
        """
        for _ in range(_TRIES - 1):
            with suppress(CollisionError), self.write() as connection:
                return work(connection)
        with self.write() as connection:
            return work(connection)

    def transact_at(self, work: Callable[[sa.Connection, float], _T]) -> _T:
        """Return the result of transact(); ``work`` also receives now(), read first."""
        return self.transact(lambda connection: work(connection, now(connection)))

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection for reads in autocommit, which do not wait for writers."""
        self.open()
        with _as_state_error(), self._reader.connect() as connection:
            yield connection

    def ping(self) -> None:
        """Wait for a response of the database; raise StateError."""
        with self.read() as connection:
            connection.execute(_PING)

    def close(self) -> None:
        """Close the connections; all of SQLite's data is then in the one file.

        The last connection would merge the write-ahead log into it, but other threads may read on.
        """
        if self.is_sqlite and self._is_open and not self._read_only:
            with suppress(SQLAlchemyError), self._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={_CLOSE_SECONDS * 1000}")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._engine.dispose()
        self._reader.dispose()


class _Repository(Protocol):
    _database: Database


_R = TypeVar("_R", bound=_Repository)


def transaction(
    method: Callable[Concatenate[_R, sa.Connection, _P], _T],
) -> Callable[Concatenate[_R, _P], _T]:
    """Call a repository's method in a transaction of its own, see Database.transact()."""

    @wraps(method)
    def call(repository: _R, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return repository._database.transact(  # noqa: SLF001 - which every repository has
            lambda connection: method(repository, connection, *args, **kwargs)
        )

    return call


def now(connection: sa.Connection) -> float:
    """Return Unix seconds by the database's clock, which all hooks share."""
    clock: Clock | None = connection.get_execution_options().get("zapwatch_clock")
    if clock is None and connection.dialect.name == "sqlite":
        clock = Clock()  # all processes that share an SQLite file run on this machine
    return float(connection.scalar(_NOW)) if clock is None else clock.time()


def now_column(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return the time of now() as a column for another statement."""
    clock: Clock | None = connection.get_execution_options().get("zapwatch_clock")
    if clock is not None or connection.dialect.name == "sqlite":
        return sa.literal((clock or Clock()).time())
    return sa.literal_column(_UNIX_NOW, sa.Double)


_PING = sa.text("SELECT 1")
# UNIX_TIMESTAMP(NOW(6)) is an hour late in the hour that the end of daylight saving repeats.
_UNIX_NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6"
_NOW = sa.text(f"SELECT {_UNIX_NOW}")


def make_table(metadata: sa.MetaData, name: str, *parts: SchemaItem) -> sa.Table:
    """Return a table with a binary collation: others treat some distinct keys as equal."""
    return sa.Table(
        name,
        metadata,
        *parts,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def add_missing(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]
) -> None:
    """Add rows; those that another program has added stay."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(mysql.insert(table).prefix_with("IGNORE"), rows)


def upsert(
    dialect: str, table: sa.Table, changes: Callable[[Any], Iterable[tuple[str, Any]]]
) -> sqlite.Insert | mysql.Insert:
    """Return an upsert that makes these changes to an existing row, and no other.

    ``changes`` receives the columns of the new row. MariaDB and MySQL assign from left to right.
    """
    if dialect == "sqlite":
        insert = sqlite.insert(table)
        found = dict(changes(insert.excluded))
        return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=found)
    mysql_insert = mysql.insert(table)
    return mysql_insert.on_duplicate_key_update(list(changes(mysql_insert.inserted)))


def delete_chunk(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> bool:
    """Delete a chunk of rows, which keeps locks short; return whether there may be more."""
    if connection.dialect.name == "sqlite":
        row_id = sa.literal_column("rowid", sa.Integer)
        which = row_id.in_(sa.select(row_id).select_from(table).where(which).limit(_CHUNK))
    delete = sa.delete(table).where(which).with_dialect_options(mysql_limit=_CHUNK)
    return connection.execute(delete).rowcount >= _CHUNK


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return device and inode of a file, None if it does not exist."""
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
        if read_only:
            try:
                Path(path).stat()
            except FileNotFoundError:
                raise sqlite3.OperationalError(f"there is no {path} yet") from None
            except OSError as error:
                raise sqlite3.OperationalError(f"{path}: {error.strerror}") from None
        connection = sqlite3.connect(
            uri, uri=True, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        if not read_only:
            try:
                # The write-ahead log does not block readers; FULL syncs it at each commit.
                use_wal(connection, _TIMEOUT)
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            except sqlite3.Error:
                connection.close()
                raise
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool)


def lock_sqlite(connection: sa.Connection) -> None:
    """Make an SQLite transaction the only writer from its begin.

    SQLite does not wait for the lock when a transaction turns from reading to writing.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Switch to the write-ahead log, so that a writer does not block readers.

    Other processes may be switching too, and only for this statement SQLite does not wait for the
    lock. Raises sqlite3.OperationalError if it is not free within ``seconds``.
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
    """Return an engine in autocommit: each statement is a transaction of its own.

    It neither reads nor pins an old snapshot, and needs no rollback.
    """
    return _mysql_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        **options,
    )


def _mysql_engine(url: sa.URL, **options: Any) -> sa.Engine:
    """Return an engine with the same time-out for connections, responses and locks."""
    waits = ("connect_timeout", "read_timeout", "write_timeout")
    kept = {"pool_pre_ping": True, "connect_args": dict.fromkeys(waits, _TIMEOUT)}
    return _connect_as_php(sa.create_engine(url, **kept | options))


def _connect_as_php(engine: sa.Engine) -> sa.Engine:
    """Make a MySQL engine connect as PHP does, and return it.

    Of several ``unix_socket`` in its URL, it uses the first that exists, otherwise the host.
    Passwords are sent as UTF-8, or with the original bytes of the file they were read from.
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
