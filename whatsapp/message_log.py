"""Reads PixelHub's ``webhook_raw_logs``: which channel had a message, in which direction, when.

The channel is taken out of the payload by the database itself, so that a payload of 16 MB stays
there. Every statement is a bounded range of the primary key: none can scan the table. All times
are Unix seconds by the clock of the database server. MariaDB 10.6+, MySQL 8 or SQLite 3.38+.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from whatsapp.channels import MAX_ID_LENGTH, channel_key

_TIMEOUT = 10  # seconds that one statement, or connecting, may take before the log counts as down


class Direction(enum.StrEnum):
    """Which way a message went, seen from the channel."""

    IN = "in"
    OUT = "out"


MESSAGE_EVENTS = {
    "message": Direction.IN,
    "onmessage": Direction.IN,
    "message.received": Direction.IN,
    "onselfmessage": Direction.OUT,
    "message.sent": Direction.OUT,
}
"""The ``event_type`` values that are messages; all others prove nothing about a channel."""

CHANNEL_PATHS = (
    "$.sessionId",
    "$.session.id",
    "$.session.session",
    "$.data.session.id",
    "$.data.session.session",
    "$.metadata.channel_id",
    "$.metadata.sessionId",
    "$.channelId",
    "$.channel",
    "$.data.channel",
)
"""Where a payload names its channel; the first that it has counts."""


class MessageLogError(Exception):
    """The log could not be read. ``str()`` is one line without the password."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log; ``key`` is the channel's, None where the row is no channel's message."""

    id: int
    time: float | None
    key: str | None
    direction: Direction


@dataclass(frozen=True, slots=True)
class Head:
    """The database's present: its clock, its newest id (0: empty), and the time of a known row."""

    now: float
    newest_id: int
    known_row_time: float | None


class _Epoch(FunctionElement[float]):
    """Unix seconds of a DATETIME that was written in the server's own time zone."""

    inherit_cache = True
    type = sa.Float()


@compiles(_Epoch, "mysql", "mariadb")
def _epoch_mysql(element: _Epoch, compiler: SQLCompiler, **kw: Any) -> str:
    # Right on both sides of a daylight-saving change, which the difference to NOW() is not.
    return f"UNIX_TIMESTAMP({compiler.process(element.clauses, **kw)})"


@compiles(_Epoch, "sqlite")
def _epoch_sqlite(element: _Epoch, compiler: SQLCompiler, **kw: Any) -> str:
    arguments = compiler.process(element.clauses, **kw) or "'now'"
    return f"CAST(strftime('%s', {arguments}) AS INTEGER)"


class _JsonScalar(FunctionElement[str]):
    """The string or number at a path of a valid JSON text, else NULL."""

    inherit_cache = True
    type = sa.String()


@compiles(_JsonScalar, "mysql", "mariadb")
def _scalar_mysql(element: _JsonScalar, compiler: SQLCompiler, **kw: Any) -> str:
    return f"JSON_VALUE({compiler.process(element.clauses, **kw)})"


@compiles(_JsonScalar, "sqlite")
def _scalar_sqlite(element: _JsonScalar, compiler: SQLCompiler, **kw: Any) -> str:
    arguments = compiler.process(element.clauses, **kw)
    wanted = "('text', 'integer', 'real')"
    return f"CASE WHEN json_type({arguments}) IN {wanted} THEN json_extract({arguments}) END"


_LOG = sa.table(
    "webhook_raw_logs",
    sa.column("id", sa.Integer),
    sa.column("received_at"),
    sa.column("event_type", sa.String),
    sa.column("payload_json", sa.Text),
)


def _channel_of_row() -> sa.ColumnElement[str | None]:
    paths = [
        sa.func.nullif(_JsonScalar(_LOG.c.payload_json, sa.literal_column(f"'{path}'")), "")
        for path in CHANNEL_PATHS
    ]
    is_message = _LOG.c.event_type.in_(MESSAGE_EVENTS)
    # CASE also keeps MySQL from raising an error at a payload that is not JSON.
    return sa.case(
        (
            is_message & (sa.func.json_valid(_LOG.c.payload_json) == 1),
            sa.func.substr(sa.func.coalesce(*paths), 1, MAX_ID_LENGTH + 1),
        ),
        else_=None,
    )


_ROWS = sa.select(_LOG.c.id, _Epoch(_LOG.c.received_at), _channel_of_row(), _LOG.c.event_type)


class MessageLog:
    """Bounded reads of one message log; each method raises MessageLogError."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = _engine(url)

    def head(self, known_id: int) -> Head:
        """Return the database's clock and newest id, and when the row ``known_id`` was received."""
        newest = sa.select(sa.func.max(_LOG.c.id)).scalar_subquery()
        known = sa.select(_Epoch(_LOG.c.received_at)).where(_LOG.c.id == known_id).scalar_subquery()
        ((now, newest_id, known_row_time),) = self._read(sa.select(_Epoch(), newest, known))
        return Head(float(now), newest_id or 0, _time(known_row_time))

    def rows_after(self, row_id: int, limit: int) -> list[Row]:
        """Return the ``limit`` rows that follow ``row_id``, oldest first."""
        return self._rows(_ROWS.where(_LOG.c.id > row_id).order_by(_LOG.c.id).limit(limit))

    def rows_before(self, row_id: int, limit: int) -> list[Row]:
        """Return the ``limit`` rows in front of ``row_id``, newest first."""
        return self._rows(_ROWS.where(_LOG.c.id < row_id).order_by(_LOG.c.id.desc()).limit(limit))

    def rows(self, ids: Collection[int]) -> list[Row]:
        """Return the rows with these ids."""
        return self._rows(_ROWS.where(_LOG.c.id.in_(ids)))

    def ids_between(self, after: int, up_to: int, limit: int) -> list[int]:
        """Return the newest ``limit`` ids that are above ``after`` and not above ``up_to``."""
        where = (_LOG.c.id > after) & (_LOG.c.id <= up_to)
        found = self._read(
            sa.select(_LOG.c.id).where(where).order_by(_LOG.c.id.desc()).limit(limit)
        )
        return [row_id for (row_id,) in found]

    def count_between(self, after: int, up_to: int) -> tuple[int, int, int]:
        """Return the number, the sum and the least of the ids above ``after``, up to ``up_to``."""
        where = (_LOG.c.id > after) & (_LOG.c.id <= up_to)
        sums = [sa.func.coalesce(f(_LOG.c.id), 0) for f in (sa.func.sum, sa.func.min)]
        ((count, total, least),) = self._read(
            sa.select(sa.func.count(), *sums).select_from(_LOG).where(where)
        )
        return count, int(total), least

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _rows(self, statement: sa.Select[Any]) -> list[Row]:
        return [_row(*values) for values in self._read(statement)]

    def _read(self, statement: sa.Select[Any]) -> Sequence[Any]:
        try:
            connection = self._engine.connect()
        except Exception as error:  # noqa: BLE001 - PyMySQL raises all sorts at settings it dislikes
            raise MessageLogError(one_line(error)) from None
        try:
            with connection:
                return connection.execute(statement).all()
        except SQLAlchemyError as error:
            raise MessageLogError(one_line(error)) from None


def one_line(error: Exception) -> str:
    """Return what the database said, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    arguments = getattr(original, "args", ())
    text = " ".join(str(argument) for argument in arguments) or type(original).__name__
    return "".join(c if c.isprintable() else " " for c in text[:300])


def _row(row_id: int, time: Any, channel: Any, event_type: str | None) -> Row:
    key = channel_key(str(channel)) if channel is not None else ""
    direction = MESSAGE_EVENTS.get((event_type or "").lower(), Direction.IN)
    usable = 0 < len(key) <= MAX_ID_LENGTH
    return Row(row_id, _time(time), key if usable else None, direction)


def _time(value: Any) -> float | None:
    # UNIX_TIMESTAMP() is 0 for dates that are none, such as 0000-00-00.
    return float(value) if value else None


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        return sa.create_engine(
            "sqlite://",
            creator=lambda: _open_sqlite(url.database or ""),
            # A kept connection would go on reading a file that was replaced by another.
            poolclass=sa.NullPool,
        )
    return sa.create_engine(
        url,
        # Autocommit: no transaction stays open, so no old snapshot is read and none is kept alive.
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=4,
        connect_args={
            "connect_timeout": _TIMEOUT,
            "read_timeout": _TIMEOUT,
            "write_timeout": _TIMEOUT,
        },
    )


def _open_sqlite(path: str) -> sqlite3.Connection:
    # Plain connect() would make an empty database where the path is wrong.
    uri = f"file:{quote(path)}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)
    # One row whose text is broken must not hide all the others.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    return connection
