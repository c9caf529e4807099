"""Keeps on disk when each channel last had a message, and in which minutes of the last 28 days.

It also keeps when no receiver ran: what a gateway posted meanwhile is lost, so that
time tells nothing of any channel. All times are Unix seconds by the clock of whoever writes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from zapwatch.channels import MAX_ID_LENGTH
from zapwatch.db import Database, StateError
from zapwatch.messages.payloads import TOKEN_LENGTH
from zapwatch.messages.webhook_log import MessageLogError

metadata = sa.MetaData()
# Identities differ by letters that a friendlier collation would take for the same.
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_KEY = sa.String(MAX_ID_LENGTH)
_SECONDS = sa.Double  # Unix seconds; 0 where there was none

last_messages = sa.Table(
    "last_messages",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("channel", _KEY, primary_key=True),
    sa.Column("last_in", _SECONDS, nullable=False),
    sa.Column("last_out", _SECONDS, nullable=False),
    # Of those, the last one that came through WhatsApp.
    sa.Column("last_heard", _SECONDS, nullable=False),
    # When this row was written, so that a reader finds what is new.
    sa.Column("written_at", _SECONDS, nullable=False, index=True),
    **_MYSQL,
)

hours = sa.Table(
    "message_hours",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("channel", _KEY, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),  # since 1970
    # One bit a minute that had a message, as a History has it; and how many messages.
    sa.Column("minutes", sa.BigInteger, nullable=False),
    sa.Column("messages", sa.BigInteger, nullable=False),
    sa.Index("message_hours_by_hour", "hour"),
    **_MYSQL,
)

heard_echoes = sa.Table(
    "heard_echoes",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    # Zapwatch has made it up (payloads.py), and it tells which channel it was for.
    sa.Column("token", sa.String(TOKEN_LENGTH), primary_key=True),
    sa.Column("written_at", _SECONDS, nullable=False, index=True),
    **_MYSQL,
)

arrived_ids = sa.Table(
    "arrived_ids",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    # A keyed hash of the channel and WhatsApp's id of a message that it has received.
    sa.Column("hash", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("written_at", _SECONDS, nullable=False, index=True),
    **_MYSQL,
)

hash_key = sa.Table(
    "hash_key",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    sa.Column("key", sa.String(64), nullable=False),
    # Since when ids are noted.
    sa.Column("since", _SECONDS, nullable=False),
    **_MYSQL,
)

receiver_heartbeat = sa.Table(
    "listening",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    # When a receiver last ran.
    sa.Column("last_at", _SECONDS, nullable=False),
    **_MYSQL,
)

receiver_gaps = sa.Table(
    "deaf",
    metadata,
    # From when until when no receiver ran.
    sa.Column("begins", _SECONDS, primary_key=True, autoincrement=False),
    sa.Column("ends", _SECONDS, nullable=False),
    **_MYSQL,
)


GAP_AFTER = 30.0
"""Seconds without a heartbeat of the receiver, after which events may have been lost."""

_CLOCK_BACK = 300.0  # seconds: a clock that was put back by more has its future forgotten
_KEEP_HOURS = 29 * 24  # of minutes: what is learned looks at 28 days
_KEEP_SECONDS = 90 * 86400.0  # of channels that had no message since
_KEEP_ECHOES_SECONDS = 86400.0
_KEEP_IDS_SECONDS = 7 * 86400.0
_PRUNE_SLICE = 3600.0  # seconds of ids that one transaction deletes
_CHUNK = 500  # ids a statement

_Join = Callable[[Any, Any], sa.ColumnElement[Any]]


class Last(NamedTuple):
    """When a channel last had a message; 0 where it had none."""

    came: float = 0.0
    went: float = 0.0
    heard: float = 0.0

    def join(self, other: Last) -> Last:
        """Return the later ones."""
        return Last(*map(max, self, other))


class StoredActivity(NamedTuple):
    """What the store knows of one gateway's channels, read at one moment."""

    last: dict[str, Last]
    """By channel key."""
    heartbeat: float | None
    """When a receiver of events last ran, None where none ever did."""
    past_gaps: tuple[tuple[float, float], ...]

    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether no receiver has run for so long."""
        return self.heartbeat is None or now - self.heartbeat > seconds

    def receiver_gaps(self, now: float) -> tuple[tuple[float, float], ...]:
        """Return from when until when no receiver took events, the oldest first."""
        if self.heartbeat is None or not self.is_silent(now, GAP_AFTER):
            return self.past_gaps
        return (*self.past_gaps, (self.heartbeat, now))


class Minutes(NamedTuple):
    """One bit for each minute of an hour that had a message, and how many messages there were."""

    bits: int = 0
    messages: int = 0

    def join(self, other: Minutes) -> Minutes:
        """Return both together."""
        return Minutes(self.bits | other.bits, self.messages + other.messages)


@dataclass(slots=True)
class Batch:
    """What is to be written; keys are gateway and channel, and for minutes the hour since 1970."""

    last: dict[tuple[str, str], Last] = field(default_factory=dict)
    minutes: dict[tuple[str, str, int], Minutes] = field(default_factory=dict)
    echoes: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of the gateway and token of each that was heard, the channel that heard it."""
    ids: set[tuple[str, str, str]] = field(default_factory=set)
    """Gateway, channel key and WhatsApp's id of each message that was received."""


class EventStore:
    """One store, on SQLite or MariaDB/MySQL; for any number of threads.

    Every method raises MessageLogError where the database cannot be used.
    """

    def __init__(self, url: sa.URL, *, read_only: bool = False) -> None:
        """Open it; ``read_only`` neither makes it where it is missing nor changes it."""
        # What the last second held may be lost with the machine's power, as it is with the
        # program: then the next message tells.
        self._database = Database(url, _create_tables, durable=False, read_only=read_only)

    @property
    def overlap(self) -> float:
        """For how many seconds a row may be committed after another that says it is newer."""
        return 5.0 if self._database.is_sqlite else 120.0

    def write(self, batch: Batch, now: float) -> None:
        """Take over a batch, and that somebody takes events at this moment, all or nothing."""
        with self._write() as connection:
            _note_heartbeat(connection, now)
            if batch.last:
                rows = [
                    {"gateway": gateway, "channel": channel, "written_at": now}
                    | {"last_in": last.came, "last_out": last.went, "last_heard": last.heard}
                    for (gateway, channel), last in batch.last.items()
                ]
                connection.execute(_upsert(connection, last_messages, _LATEST), rows)
            if batch.minutes:
                counted = [
                    {"gateway": gateway, "channel": channel, "hour": hour}
                    | {"minutes": minutes.bits, "messages": minutes.messages}
                    for (gateway, channel, hour), minutes in batch.minutes.items()
                ]
                connection.execute(_upsert(connection, hours, _ADDED), counted)
            if batch.echoes:
                heard = [
                    {"gateway": gateway, "token": token, "written_at": now}
                    for gateway, token in sorted(batch.echoes)
                ]
                latest = {"written_at": _Greatest}
                connection.execute(_upsert(connection, heard_echoes, latest), heard)
            _write_ids(connection, batch.ids, now)

    def prune(self, now: float) -> None:
        """Forget what nobody will ask for any more."""
        oldest = now - _KEEP_SECONDS
        with self._write() as connection:
            connection.execute(hours.delete().where(hours.c.hour < int(now // 3600) - _KEEP_HOURS))
            connection.execute(last_messages.delete().where(last_messages.c.written_at < oldest))
            connection.execute(receiver_gaps.delete().where(receiver_gaps.c.ends < oldest))
            day_ago = now - _KEEP_ECHOES_SECONDS
            connection.execute(heard_echoes.delete().where(heard_echoes.c.written_at < day_ago))
        with self._read() as connection:
            first = connection.scalar(sa.select(sa.func.min(arrived_ids.c.written_at)))
        up_to = now if first is None else first
        while up_to < now - _KEEP_IDS_SECONDS:
            up_to = min(up_to + _PRUNE_SLICE, now - _KEEP_IDS_SECONDS)
            with self._write() as connection:
                connection.execute(arrived_ids.delete().where(arrived_ids.c.written_at < up_to))

    def activity(self, gateway: str, written_since: float = 0.0) -> StoredActivity:
        """Return what was written since then of a gateway's channels, and when receivers ran."""
        table, gaps = last_messages, receiver_gaps
        last = sa.select(table.c.channel, table.c.last_in, table.c.last_out, table.c.last_heard)
        last = last.where(table.c.gateway == gateway, table.c.written_at >= written_since)
        periods = sa.select(gaps.c.begins, gaps.c.ends).order_by(gaps.c.begins)
        with self._read() as connection:
            return StoredActivity(
                {row[0]: Last(*row[1:]) for row in connection.execute(last)},
                connection.scalar(sa.select(receiver_heartbeat.c.last_at)),
                tuple((row[0], row[1]) for row in connection.execute(periods)),
            )

    def echoes(self, gateway: str, written_since: float) -> set[str]:
        """Return the tokens of a gateway's echoes that were written since then."""
        table = heard_echoes
        statement = sa.select(table.c.token).where(
            table.c.gateway == gateway, table.c.written_at >= written_since
        )
        with self._read() as connection:
            return set(connection.scalars(statement))

    def arrived(self, gateway: str, wanted: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Return those of the ids, by channel key, that were received in the last seven days."""
        found: dict[str, set[str]] = {key: set() for key in wanted}
        with self._read() as connection:
            key = connection.scalar(sa.select(hash_key.c.key))
            if key is None:
                return found
            by_hash = {
                _hash(key, channel, one): (channel, one)
                for channel, ids in wanted.items()
                for one in ids
            }
            hashes = list(by_hash)
            table = arrived_ids
            for begin in range(0, len(hashes), _CHUNK):
                some = table.c.hash.in_(hashes[begin : begin + _CHUNK])
                query = sa.select(table.c.hash).where(table.c.gateway == gateway, some)
                for one in connection.scalars(query):
                    channel, id_ = by_hash[one]
                    found[channel].add(id_)
        return found

    def ids_since(self, now: float) -> float:
        """Return from when on ids are known, in Unix seconds."""
        with self._read() as connection:
            since = connection.scalar(sa.select(hash_key.c.since))
        return now if since is None else max(since, now - _KEEP_IDS_SECONDS)

    def minutes(self, gateway: str, since_hour: int) -> Iterator[tuple[str, int, Minutes]]:
        """Return a gateway's channel keys, hours since 1970, and the minutes of each."""
        statement = sa.select(
            hours.c.channel, hours.c.hour, hours.c.minutes, hours.c.messages
        ).where(hours.c.gateway == gateway, hours.c.hour >= since_hour)
        with self._read() as connection:
            for channel, hour, bits, messages in connection.execute(statement):
                yield channel, hour, Minutes(bits, messages)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with _as_log_error(), self._database.write() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with _as_log_error(), self._database.read() as connection:
            yield connection


@contextmanager
def _as_log_error() -> Iterator[None]:
    try:
        yield
    except StateError as error:
        raise MessageLogError(str(error)) from None


# Of SQLite and MariaDB, and of MySQL: another exporter made the table, or is making it.
_MADE_ELSEWHERE = ("already exists", "being modified by concurrent DDL statement")


def _create_tables(engine: sa.Engine) -> None:
    while True:
        try:
            metadata.create_all(engine)
        except OperationalError as error:
            if not any(words in str(error.orig) for words in _MADE_ELSEWHERE):
                raise
        else:
            return


def _note_heartbeat(connection: sa.Connection, now: float) -> None:
    table = receiver_heartbeat
    last_at = connection.scalar(sa.select(table.c.last_at))
    advance = table.update().where(table.c.last_at == last_at).values(last_at=now)
    if last_at is None:
        first = _upsert(connection, table, {"last_at": _Greatest})
        connection.execute(first, [{"id": 1, "last_at": now}])
    elif now - last_at > GAP_AFTER:
        # Of two that come back at the same time, one notes it.
        if connection.execute(advance).rowcount == 1:
            connection.execute(receiver_gaps.insert().values(begins=last_at, ends=now))
    elif now < last_at - _CLOCK_BACK:
        _forget_future(connection, now)
        connection.execute(advance)
    elif now > last_at:
        connection.execute(advance)


def _write_ids(
    connection: sa.Connection, ids: Collection[tuple[str, str, str]], now: float
) -> None:
    key = connection.scalar(sa.select(hash_key.c.key))
    if key is None:
        # Of two that make one at the same time, one does.
        made = {"id": 1, "key": secrets.token_hex(32), "since": now}
        connection.execute(_upsert(connection, hash_key, {"since": _Greatest}), [made])
        key = connection.scalar(sa.select(hash_key.c.key))
    rows = [
        {"gateway": gateway, "hash": _hash(str(key), channel, one), "written_at": now}
        for gateway, channel, one in sorted(ids)
    ]
    if rows:
        connection.execute(_upsert(connection, arrived_ids, {"written_at": _Greatest}), rows)


def _hash(key: str, channel: str, message_id: str) -> int:
    text = f"{channel}\n{message_id}".encode()
    digest = hashlib.blake2b(text, digest_size=8, key=bytes.fromhex(key)).digest()
    return int.from_bytes(digest, "big", signed=True)


def _forget_future(connection: sa.Connection, now: float) -> None:
    """Take back what a clock that was ahead has claimed: else nothing could ever be newer."""
    for column in (last_messages.c.last_in, last_messages.c.last_out, last_messages.c.last_heard):
        values = {column.name: now, "written_at": now}
        connection.execute(last_messages.update().where(column > now).values(values))
    connection.execute(
        heard_echoes.update().where(heard_echoes.c.written_at > now).values(written_at=now)
    )
    for column in (arrived_ids.c.written_at, hash_key.c.since):
        update = sa.update(column.table).where(column > now)
        connection.execute(update.values({column.name: now}))
    connection.execute(hours.delete().where(hours.c.hour > int(now // 3600)))
    connection.execute(receiver_gaps.delete().where(receiver_gaps.c.begins > now))
    connection.execute(receiver_gaps.update().where(receiver_gaps.c.ends > now).values(ends=now))


def _upsert(connection: sa.Connection, table: sa.Table, joined: Mapping[str, _Join]) -> sa.Insert:
    """Return an insert that, where the row is there already, joins these columns with the new ones.

    All others of such a row stay as they are.
    """
    if connection.dialect.name == "sqlite":
        insert = sqlite.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={
                name: join(table.c[name], insert.excluded[name]) for name, join in joined.items()
            },
        )
    mysql_insert = mysql.insert(table)
    return mysql_insert.on_duplicate_key_update(
        {name: join(table.c[name], mysql_insert.inserted[name]) for name, join in joined.items()}
    )


class _Greatest(FunctionElement[float]):
    """The greater one of two numbers."""

    inherit_cache = True
    type = sa.Double()


@compiles(_Greatest, "sqlite")
def _greatest_sqlite(element: _Greatest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"max({compiler.process(element.clauses, **kw)})"


@compiles(_Greatest, "mysql", "mariadb")
def _greatest_mysql(element: _Greatest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **kw)})"


_LATEST: Mapping[str, _Join] = dict.fromkeys(
    ("last_in", "last_out", "last_heard", "written_at"), _Greatest
)
_ADDED: Mapping[str, _Join] = {
    "minutes": lambda present, new: present.bitwise_or(new),
    "messages": lambda present, new: present + new,
}
