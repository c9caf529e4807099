"""Reads PixelHub's ``webhook_raw_logs``: channel, direction and time of messages.

The database extracts the channel from the payload, so that payloads of up to 16 MB are not
transferred; Whapi's rows, which have several messages, are read if they have up to 64 KB, and
reduced to ids and directions by the database if they have more. Every statement covers a bounded
range of the primary key, without locks or transactions, and the server aborts it after a second.
All times are Unix seconds by the database server's clock.
MariaDB 10.6+, MySQL 8 or SQLite 3.38+.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from zapwatch.channels import MAX_ID_LENGTH, Names
from zapwatch.clock import Clock
from zapwatch.db import mysql_reader, one_line
from zapwatch.gateways.whapi import WHAPI_EVENT_TYPE, whapi_messages
from zapwatch.http import json_or_none
from zapwatch.messages.message import (
    CIPHERTEXT,
    MARK,
    MOST_BYTES,
    TOKEN,
    TOKEN_LENGTH,
    Direction,
    EventMessage,
    MessageLogError,
    bare_id,
    find_token,
    is_for,
    is_untaken,
)

_STATEMENT_SECONDS = 1.0  # after which the server aborts a statement
_LARGE_ROW_SECONDS = 8.0  # the same for a statement of one row, which may have 16 MB
_MOST_ENTRIES = 1000  # messages of one large row


MESSAGE_EVENTS = {
    "message": Direction.IN,
    "onmessage": Direction.IN,
    "message.received": Direction.IN,
    "onselfmessage": Direction.OUT,
    "message.sent": Direction.OUT,
}
"""The ``event_type`` values of messages; all others are no proof of life.

Whapi's rows, each with several messages, have WHAPI_EVENT_TYPE.
"""

WRITTEN_BY_GATEWAY = frozenset({"message.sent", "send.message"})
"""Event types that a gateway may generate when its own API is used to send.

They do not prove that anything came through WhatsApp: a panel that answers customers would keep the
log of a dead session fresh. Messages sent from the phone, ``onselfmessage``, do.
"""


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
"""Paths of the channel in a payload; the first that exists counts."""


ID_PATHS = (
    "$.id",
    "$.id._serialized",
    "$.messageId",
    "$.message_id",
    "$.key.id",
    "$.message.id",
    "$.message.id._serialized",
    "$.message.key.id",
    "$.payload.id",
    "$.data.id",
    "$.data.id._serialized",
    "$.data.key.id",
    "$.raw.payload.id",
    "$.raw.payload.id._serialized",
    "$.raw.payload.key.id",
)
"""Paths of the message's id in a payload."""

_LONGEST_IDS = 4000  # characters of a payload's ids


class _TooSlow(MessageLogError):  # noqa: N818 - fewer rows may succeed
    """The server aborted the statement."""


class _TooDeep(MessageLogError):  # noqa: N818 - succeeds without that one payload
    """The server cannot parse the payload of one of the rows."""


_KINDS: Mapping[object, type[MessageLogError]] = {
    1969: _TooSlow,  # MariaDB
    3024: _TooSlow,  # MySQL
    3157: _TooDeep,  # MySQL: JSON deeper than 100 levels; other servers treat it as invalid JSON
}
_NO_SUCH_TABLE = 1146


@dataclass(frozen=True, slots=True)
class Row:
    """Row of the log; ``key`` is the channel's, None if the row is not a channel's message.

    ``other_time`` is the second possible time of a row whose local time is ambiguous, at the end of
    daylight saving. ``heard``: it came through WhatsApp or was accepted by WhatsApp, rather than
    only requested at the gateway. ``echo`` is the token of an echo that the channel has received
    (see message.py); the sender's copy of an echo is not a channel's message. A row that is not
    ``readable`` could not be decrypted. ``unnamed``: a message whose payload has no channel.
    """

    id: int
    time: float | None
    key: str | None
    direction: Direction
    other_time: float | None = None
    heard: bool = True
    echo: str | None = None
    readable: bool = True
    unnamed: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """Row of the log, for audits.

    ``ids`` are the candidates for WhatsApp's id of a message that the channel ``key`` has received,
    empty for other rows and undecryptable messages. ``time`` is the latest possible.
    """

    id: int
    time: float | None
    key: str | None
    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ids:
    """Summary of a set of ids, for comparing sets."""

    count: int = 0
    total: int = 0
    least: int = 0

    @classmethod
    def of(cls, ids: Collection[int]) -> Ids:
        """Summarize a set of ids."""
        return cls(len(ids), sum(ids), min(ids, default=0))


@dataclass(frozen=True, slots=True)
class Head:
    """Current clock and newest row of the database (id 0: the log is empty).

    ``known_time`` is the time of the queried row, None if it is gone; ``among`` summarizes the ids
    in the queried range.
    """

    now: float
    newest_id: int
    newest_time: float | None = None
    known_time: float | None = None
    among: Ids = Ids()


class _ByServer(FunctionElement[Any]):
    """Three literals: the SQL of an expression for SQLite, MySQL and MariaDB."""

    inherit_cache = True


@compiles(_ByServer)
def _compile(element: _ByServer, compiler: SQLCompiler, **kw: Any) -> str:
    is_mariadb = getattr(compiler.dialect, "is_mariadb", False)
    place = 0 if compiler.dialect.name == "sqlite" else 2 if is_mariadb else 1
    return compiler.process(list(element.clauses)[place], **kw)


def _sql(sqlite: str, mysql: str, mariadb: str = "") -> _ByServer:
    return _ByServer(*map(sa.literal_column, (sqlite, mysql, mariadb or mysql)))


_LOG = sa.table(
    "webhook_raw_logs",
    sa.column("id", sa.Integer),
    sa.column("received_at"),
    sa.column("event_type", sa.String),
    sa.column("payload_json", sa.Text),
)


def _text(value: str) -> sa.ColumnElement[Any]:
    """Return a literal, since SQLAlchemy expands a list of bound values at each execution."""
    return sa.literal_column(f"'{value}'")


_PAYLOAD = _LOG.c.payload_json
_TIME = str(_LOG.c.received_at)
_IS_MESSAGE = _LOG.c.event_type.in_(map(_text, MESSAGE_EVENTS))
_IS_WHAPI = _LOG.c.event_type == _text(WHAPI_EVENT_TYPE)
_IS_SMALL = sa.func.length(_PAYLOAD) <= MOST_BYTES
# MySQL raises an error at a payload that is not JSON, except behind this in a CASE.
_IS_JSON = sa.func.json_valid(_PAYLOAD) == 1

_NOW = _sql("CAST(strftime('%s', 'now') AS INTEGER)", "UNIX_TIMESTAMP()")
# Unix seconds of a DATETIME in the server's time zone: unlike the difference to NOW(), correct
# across a daylight-saving change.
_EPOCH = _sql(f"CAST(strftime('%s', {_TIME}) AS INTEGER)", f"UNIX_TIMESTAMP({_TIME})")
_SHIFTED = (f"UNIX_TIMESTAMP({_TIME}) {shift}" for shift in ("+ 3600", "- 3600"))
_CASES = (f"WHEN FROM_UNIXTIME({other}) = {_TIME} THEN {other}" for other in _SHIFTED)
# The second possible time of one that is ambiguous in that zone; SQLite's times are UTC.
_OTHER_EPOCH = _sql("NULL", f"CASE {' '.join(_CASES)} END")


def _scalar(path: str) -> sa.ColumnElement[Any]:
    """Return the string or number at a path of a valid JSON payload, else NULL."""
    at = f"({_PAYLOAD}, '{path}')"
    in_mysql = "('STRING', 'INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL')"
    found = f"JSON_EXTRACT{at}"
    return _sql(
        f"CASE WHEN json_type{at} IN ('text', 'integer', 'real') THEN json_extract{at} END",
        # MySQL's JSON_VALUE() converts objects, lists and booleans to text.
        f"CASE WHEN JSON_TYPE({found}) IN {in_mysql} THEN JSON_UNQUOTE({found}) END",
        f"JSON_VALUE{at}",
    )


def _is_true(path: str) -> sa.ColumnElement[Any]:
    at = f"({_PAYLOAD}, '{path}')"
    return _sql(f"(json_type{at} = 'true')", f"(JSON_UNQUOTE(JSON_EXTRACT{at}) = 'true')")


def _holds(*texts: str) -> sa.ColumnElement[bool]:
    """Whether a payload has a text, bytewise: with a collation it takes seven times as long."""
    return sa.or_(
        *(
            _sql(
                f"(instr({_PAYLOAD}, '{text}') > 0)",
                f"(LOCATE(CAST('{text}' AS BINARY), {_PAYLOAD}) > 0)",
            )
            for text in texts
        )
    )


# Paths of the object with the message's fields in a payload.
_PLACES = ("$", "$.message", "$.data", "$.raw.payload")


def _at_each_place(
    find: Callable[[str], sa.ColumnElement[Any]], field: str
) -> list[sa.ColumnElement[Any]]:
    return [find(f"{place}.{field}") for place in _PLACES]


_WHAPI_FIELDS = ", ".join(
    f"'{name}', json_extract(value, '$.{name}')" for name in ("id", "from_me", "source", "status")
)
# A valid payload of Whapi, reduced to the channel, and ids and directions of its messages.
_SHORT_WHAPI = _sql(
    f"""(
        SELECT json_object('channel_id', json_extract({_PAYLOAD}, '$.channel_id'),
            'messages', json_group_array(json_object({_WHAPI_FIELDS})))
        FROM json_each({_PAYLOAD}, '$.messages')
        WHERE type = 'object' AND key < {_MOST_ENTRIES}
    )""",  # noqa: S608 - constants only
    f"""(
        SELECT JSON_OBJECT('channel_id', MAX(channel_id), 'messages', JSON_ARRAYAGG(
            JSON_OBJECT('id', id, 'from_me', from_me, 'source', source, 'status', status)
        ))
        FROM JSON_TABLE({_PAYLOAD}, '$' COLUMNS (
            channel_id VARCHAR(256) PATH '$.channel_id',
            NESTED PATH '$.messages[*]' COLUMNS (
                n FOR ORDINALITY,
                id VARCHAR(300) PATH '$.id',
                from_me INT PATH '$.from_me',
                source VARCHAR(20) PATH '$.source',
                status VARCHAR(20) PATH '$.status'
            )
        )) AS entry
        WHERE n <= {_MOST_ENTRIES} AND id IS NOT NULL
    )""",  # noqa: S608 - constants only
)

_CHANNEL = sa.case(
    (
        _IS_MESSAGE & _IS_JSON,
        sa.func.substr(
            sa.func.coalesce(*(sa.func.nullif(_scalar(path), "") for path in CHANNEL_PATHS)),
            1,
            MAX_ID_LENGTH + 1,
        ),
    ),
    else_=None,
)

_ECHO = sa.case(
    (
        _IS_MESSAGE & _IS_SMALL,
        sa.case(
            (
                _holds(MARK),
                sa.func.substr(_PAYLOAD, sa.func.instr(_PAYLOAD, _text(MARK)), TOKEN_LENGTH),
            ),
            else_=None,
        ),
    ),
    else_=None,
)

# JSON is parsed only if a text search makes it likely, which keeps the query of each row cheap.
_IS_FROM_ME = (
    _holds('"fromMe":true', '"fromMe": true')
    & _IS_JSON
    & sa.or_(*_at_each_place(_is_true, "fromMe"))
)
_IS_ENCRYPTED = (
    _holds(f'"{CIPHERTEXT}"') & _IS_JSON & _text(CIPHERTEXT).in_(_at_each_place(_scalar, "type"))
)
# Messages sent by the API never count as heard.
_HAS_ACK = (
    (_LOG.c.event_type != _text("message.sent"))
    & sa.or_(_LOG.c.event_type == _text("onselfmessage"), _IS_FROM_ME)
    & _IS_JSON
)
# CIPHERTEXT, or an own message's ``ack``, or NULL.
_NOTE = sa.case(
    (
        _IS_MESSAGE & _IS_SMALL,
        sa.case(
            (_IS_ENCRYPTED, _text(CIPHERTEXT)),
            (_HAS_ACK, sa.func.coalesce(*_at_each_place(_scalar, "ack"))),
            else_=None,
        ),
    ),
    else_=None,
)

# A JSON list of what is at the paths of an id, NULL for own messages. One call for all paths, since
# each scans the whole text of up to 16 MB. _IS_FROM_ME is NULL if a place has no fromMe.
_IDS = sa.case(
    (
        _IS_MESSAGE & _IS_JSON & (sa.func.coalesce(_IS_FROM_ME, sa.false()) == sa.false()),
        sa.func.substr(sa.func.json_extract(_PAYLOAD, *map(_text, ID_PATHS)), 1, _LONGEST_IDS),
    ),
    else_=None,
)


def _whapi_event(*, parsed: bool) -> sa.ColumnElement[str | None]:
    """Return the payload of Whapi's rows; of a large one its short form, or NULL unparsed."""
    short = sa.case((_IS_JSON, _SHORT_WHAPI), else_=None) if parsed else sa.null()
    return sa.case((_IS_WHAPI, sa.case((_IS_SMALL, _PAYLOAD), else_=short)), else_=None)


class _Rows(NamedTuple):
    """Query of rows, and the same one without parsing the payload's JSON."""

    parsed: sa.Select[Any]
    unparsed: sa.Select[Any]

    @classmethod
    def of(
        cls, which: sa.ColumnElement[bool], order: sa.ColumnElement[Any], *, ids: bool = False
    ) -> _Rows:
        """Build both queries; ``ids``: for audits, with the messages' ids in place of echoes."""
        queries = []
        for parsed in (True, False):
            event = _whapi_event(parsed=parsed)
            query = sa.select(
                _LOG.c.id,
                _EPOCH,
                _OTHER_EPOCH,
                _CHANNEL if parsed else sa.null(),
                _LOG.c.event_type,
                _NOTE if parsed else sa.null(),
            )
            found = sa.func.coalesce(_IDS if parsed else sa.null(), event)
            query = query.add_columns(found) if ids else query.add_columns(_ECHO, event)
            queries.append(query.where(which).order_by(order).limit(sa.bindparam("limit")))
        return cls(*queries)


_IS_BEFORE, _NEWEST_FIRST = _LOG.c.id < sa.bindparam("row"), _LOG.c.id.desc()
_ROWS_AFTER = _Rows.of(_LOG.c.id > sa.bindparam("row"), _LOG.c.id)
_ROWS_BEFORE = _Rows.of(_IS_BEFORE, _NEWEST_FIRST)
_ROWS_AMONG = _Rows.of(_LOG.c.id.in_(sa.bindparam("rows", expanding=True)), _NEWEST_FIRST)
_ARRIVALS = _Rows.of(_IS_BEFORE, _NEWEST_FIRST, ids=True)

_BETWEEN = (_LOG.c.id > sa.bindparam("after")) & (_LOG.c.id <= sa.bindparam("up_to"))
_IDS_BETWEEN = (
    sa.select(_LOG.c.id)
    # MySQL would read the whole of a smaller index and sort it.
    .prefix_with(f"/*+ INDEX({_LOG.name} PRIMARY) */", dialect="mysql")
    .where(_BETWEEN)
    .order_by(_LOG.c.id.desc())
    .limit(sa.bindparam("limit"))
)


def _time_of(row_id: Any) -> sa.ScalarSelect[Any]:
    return sa.select(_EPOCH).where(_LOG.c.id == row_id).scalar_subquery()


_NEWEST = sa.select(sa.func.max(_LOG.c.id)).scalar_subquery()
_HEAD = (
    sa.select(
        _NOW,
        _NEWEST,
        _time_of(_NEWEST),
        _time_of(sa.bindparam("known")),
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(_LOG.c.id), 0),
        sa.func.coalesce(sa.func.min(_LOG.c.id), 0),
    )
    .select_from(_LOG)
    .where(_BETWEEN)
)


class MessageLog:
    """Bounded reads of one message log; each method raises MessageLogError."""

    def __init__(self, url: sa.URL, *, clock: Clock | None = None) -> None:
        self._engine = _engine(url)
        self._clock = clock or Clock()
        self.names = Names()
        """The listed channels, by which rows get their keys."""

    def head(self, known_id: int, above: int = 0, up_to: int = 0) -> Head:
        """Return the clock, the newest row, the time of ``known_id``, and a summary of the range.

        A single statement, and so consistent. The range is above ``above``, up to ``up_to``.
        """
        ((now, newest, newest_time, known_time, *ids),) = self._read(
            _HEAD, {"known": known_id, "after": above, "up_to": up_to}
        )
        return Head(
            float(now),
            newest or 0,
            _time(newest_time),
            _time(known_time),
            Ids(*map(int, ids)),
        )

    def rows_after(self, row_id: int, limit: int) -> list[Row]:
        """Return at most ``limit`` rows after ``row_id``, oldest first.

        This and the next two return fewer if the server is slow, none only if none exist.
        """
        return self._rows(_ROWS_AFTER, limit, row=row_id)

    def rows_before(self, row_id: int, limit: int) -> list[Row]:
        """Return at most ``limit`` rows before ``row_id``, newest first."""
        return self._rows(_ROWS_BEFORE, limit, row=row_id)

    def rows_among(self, ids: Collection[int], limit: int) -> list[Row]:
        """Return at most ``limit`` rows with these ids, newest first."""
        return self._rows(_ROWS_AMONG, limit, rows=list(ids))

    def arrivals_before(self, row_id: int, limit: int) -> list[Arrival]:
        """Return at most ``limit`` rows before ``row_id`` for an audit, newest first."""
        found = self._fetch(_ARRIVALS, limit, row=row_id)
        return [_arrival(self.names, one) for one in found]

    def ids_between(self, after: int, up_to: int, limit: int) -> list[int]:
        """Return the newest ``limit`` ids above ``after``, up to ``up_to``."""
        found = self._read(_IDS_BETWEEN, {"after": after, "up_to": up_to, "limit": limit})
        return [row_id for (row_id,) in found]

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _rows(self, query: _Rows, limit: int, **values: object) -> list[Row]:
        rows = []
        for *plain, event in self._fetch(query, limit, **values):
            row = _row(self.names, plain)
            rows += [row] if event is None else _whapi_rows(self.names, row, event) or [row]
        return rows

    def _fetch(self, query: _Rows, limit: int, **values: object) -> Sequence[Any]:
        """Read rows, fewer after the server has aborted; none only if none exist."""
        statement = query.parsed
        while True:
            seconds = _LARGE_ROW_SECONDS if limit == 1 else _STATEMENT_SECONDS
            try:
                return self._read(statement, {**values, "limit": limit}, seconds)
            except (_TooSlow, _TooDeep) as error:
                if limit > 1:
                    limit = max(1, limit // 8)
                elif isinstance(error, _TooDeep) and statement is query.parsed:
                    statement = query.unparsed
                else:
                    raise

    def _read(
        self,
        statement: sa.Select[Any],
        values: Mapping[str, object],
        seconds: float = _STATEMENT_SECONDS,
    ) -> Sequence[Any]:
        started = self._clock.monotonic()
        tried_again = False
        while True:
            try:
                return self._execute(statement, values, seconds)
            except SQLAlchemyError as error:
                # A pooled connection may be dead, which shows only on use.
                gone = isinstance(error, DBAPIError) and error.connection_invalidated
                late = self._clock.monotonic() - started > _STATEMENT_SECONDS
                if tried_again or late or not gone:
                    raise _readable(error) from None
                tried_again = True

    def _execute(
        self, statement: sa.Select[Any], values: Mapping[str, object], seconds: float
    ) -> Sequence[Any]:
        try:
            connection = self._engine.connect()
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - PyMySQL raises any type for invalid settings
            raise MessageLogError(one_line(error)) from None
        with connection:
            if seconds == _STATEMENT_SECONDS or connection.dialect.name == "sqlite":
                return connection.execute(statement, values).all()
            raw = connection.connection.dbapi_connection
            _give_up_after(seconds, raw)
            try:
                return connection.execute(statement, values).all()
            finally:
                if not connection.invalidated:
                    _give_up_after(_STATEMENT_SECONDS, raw)


def _readable(error: SQLAlchemyError) -> MessageLogError:
    arguments: tuple[Any, ...] = getattr(getattr(error, "orig", None), "args", ())
    kind = _KINDS.get(arguments[0], MessageLogError) if arguments else MessageLogError
    words = one_line(error)
    if arguments[:1] == (_NO_SUCH_TABLE,) or words.startswith("no such table"):
        words += ": if there is no message log, set MESSAGE_LOG_URL=none"
    return kind(words)


def _of_whapi(names: Names, payload: str | bytes) -> tuple[str | None, list[EventMessage]]:
    """Return the key of the channel that a payload names, and its messages."""
    # SQLite returns a payload that is no text as bytes.
    event = json_or_none(payload if isinstance(payload, bytes) else payload.encode())
    messages = whapi_messages(event) if isinstance(event, dict) else []
    name = event.get("channel_id") if messages else None
    key = names.key_of(name) if isinstance(name, str) else ""
    return key if 0 < len(key) <= MAX_ID_LENGTH else None, messages


def _whapi_rows(names: Names, row: Row, payload: str | bytes) -> list[Row]:
    """Return as many rows as one holds messages, with its id and time."""
    key, messages = _of_whapi(names, payload)
    if key is None:
        return [replace(row, unnamed=True)] if messages else []
    has_echo = MARK in str(payload)
    rows = []
    for one in messages:
        echo = find_token(json.dumps(one.entry).encode()) if has_echo else None
        usable = echo is None or (one.heard and is_for(echo, str(one.channel)))
        rows.append(
            replace(
                row,
                key=key if usable else None,
                direction=Direction.OUT if one.out else Direction.IN,
                heard=one.heard,
                echo=echo if usable else None,
            )
        )
    return rows


def _row(names: Names, found: Sequence[Any]) -> Row:
    row_id, time, other_time, channel, event_type, note, echo = found
    key = names.key_of(str(channel)) if channel is not None else ""
    event = (event_type or "").lower()
    # SQLite returns a payload that is no text as bytes.
    if not isinstance(echo, str) or not TOKEN.fullmatch(echo):
        echo = None
    # An echo to the sender's own number may be reported only once, before it is sent.
    heard = event not in WRITTEN_BY_GATEWAY and (echo is not None or not is_untaken(note))
    named = 0 < len(key) <= MAX_ID_LENGTH
    usable = named and (echo is None or (heard and is_for(echo, str(channel))))
    return Row(
        row_id,
        _time(time),
        key if usable else None,
        MESSAGE_EVENTS.get(event, Direction.IN),
        _time(other_time),
        heard,
        echo if usable else None,
        readable=note != CIPHERTEXT,
        unnamed=event in MESSAGE_EVENTS and not named,
    )


def _arrival(names: Names, found: Sequence[Any]) -> Arrival:
    row_id, time, other_time, channel, event, note, ids = found
    times = [at for at in (_time(time), _time(other_time)) if at is not None]
    if ids is not None and (event or "").lower() == WHAPI_EVENT_TYPE:
        name, messages = _of_whapi(names, ids)
        came = (bare_id(one.id) for one in messages if not one.out)
        own = frozenset(id_ for id_ in came if id_ is not None)
        return Arrival(row_id, max(times, default=None), name, own)
    key = names.key_of(str(channel)) if channel is not None else None
    is_in = MESSAGE_EVENTS.get((event or "").lower()) is Direction.IN
    known = _list_of(ids) if is_in and note != CIPHERTEXT else []
    if any(isinstance(one, str) and one.startswith("true_") for one in known):
        known = []
    own = frozenset(id_ for one in known if (id_ := bare_id(one)) is not None)
    return Arrival(row_id, max(times, default=None), key, own)


def _list_of(text: str | None) -> list[Any]:
    """Parse a JSON list of ids, which may have been cut off."""
    try:
        return list(json.loads(text or "[]"))
    except (ValueError, RecursionError, TypeError):
        return []


def _time(value: Any) -> float | None:
    # UNIX_TIMESTAMP() is 0 for invalid dates such as 0000-00-00.
    return float(value) if value else None


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        return sa.create_engine(
            "sqlite://",
            creator=lambda: _open_sqlite(url.database or ""),
            # A pooled connection would keep reading a file that was replaced.
            poolclass=sa.NullPool,
        )
    # No ping: _read() detects dead connections and retries.
    engine = mysql_reader(url, pool_pre_ping=False, pool_size=1)

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        _give_up_after(_STATEMENT_SECONDS, connection)

    return engine


def _give_up_after(seconds: float, connection: Any) -> None:
    """Set the time after which the server aborts a statement of this connection.

    The client's own time-out would not stop the server's work.
    """
    with connection.cursor() as cursor:
        if "MariaDB" in connection.get_server_info():
            cursor.execute(f"SET SESSION max_statement_time = {seconds:g}")
        else:
            cursor.execute(f"SET SESSION max_execution_time = {seconds * 1000:.0f}")


def _open_sqlite(path: str) -> sqlite3.Connection:
    # Plain connect() would create an empty database for a wrong path.
    uri = f"file:{quote(path)}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)
    # A row with invalid UTF-8 must not hide all others.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    return connection
