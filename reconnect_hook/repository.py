"""The state database's statements: raises by anybody, and the writes of whoever leads a gateway."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import OperationalError

from reconnect_hook.alerts import RepairCause
from reconnect_hook.attempt_log import KEPT_ATTEMPTS, LoggedAttempt
from reconnect_hook.decision import LogEntry
from reconnect_hook.dedup import Raise
from reconnect_hook.models import (
    AT_REST,
    IN_HAND,
    LEASE_SECONDS,
    ChannelRow,
    GatewayRow,
)
from reconnect_hook.schema import attempt_log, channel, gateway, repair_log
from zapwatch.db import Database, now

_T = TypeVar("_T")

_COLLISIONS = {1205, 1213}  # MariaDB's and MySQL's numbers for a lock's time-out and a deadlock
_TRIES = 8  # of a transaction that met another one on its way
_CHUNK = 500  # rows a statement
_HISTORY_SECONDS = 90 * 86400.0
_UNKNOWN_SECONDS = 86400.0  # for which the record of a channel that nobody lists is kept
_PRUNE_CHUNK = 1000  # rows a transaction, so that nobody waits long for one
_SILENCES = [str(cause) for cause in RepairCause if cause.is_silence]


def transact(database: Database, work: Callable[[sa.Connection], _T]) -> _T:
    """Return what ``work`` does in one transaction, tried again where another was in its way.

    Raises StateError, and what ``work`` raises.
    """
    for _ in range(_TRIES - 1):
        try:
            with database.write() as connection, _noticing_collisions():
                return work(connection)
        except _CollisionError:
            continue
    with database.write() as connection:
        return work(connection)


class _CollisionError(Exception):
    """Another transaction was in the way."""


@contextmanager
def _noticing_collisions() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "args", (0,))[0] not in _COLLISIONS:
            raise
        raise _CollisionError from None


# Rows.

_STATE_COLUMNS = [channel.c[field.name] for field in fields(ChannelRow)]
_GATEWAY_COLUMNS = [gateway.c[field.name] for field in fields(GatewayRow)]
_OF_GATEWAY = channel.c.gateway == sa.bindparam("of_gateway")
_OPEN = sa.select(*_STATE_COLUMNS).where(_OF_GATEWAY, channel.c.next_at.is_not(None))
_BY_KEY = sa.select(*_STATE_COLUMNS).where(
    _OF_GATEWAY, channel.c.key.in_(sa.bindparam("of_keys", expanding=True))
)
_GATEWAY = sa.select(*_GATEWAY_COLUMNS).where(gateway.c.gateway == sa.bindparam("of_gateway"))


def read_gateway(connection: sa.Connection, name: str) -> GatewayRow:
    """Return the row of a gateway; one that has none yet has just been added."""
    row = connection.execute(_GATEWAY, {"of_gateway": name}).mappings().one_or_none()
    return GatewayRow() if row is None else GatewayRow(**row)


def read_rows(
    connection: sa.Connection, name: str, keys: Collection[str], *, lock: bool = False
) -> dict[str, ChannelRow]:
    """Return the rows of channels by key; with ``lock``, nobody changes them meanwhile."""
    query = _BY_KEY.with_for_update() if lock else _BY_KEY
    found: dict[str, ChannelRow] = {}
    ordered = sorted(keys)
    for begin in range(0, len(ordered), _CHUNK):
        values = {"of_gateway": name, "of_keys": ordered[begin : begin + _CHUNK]}
        for row in connection.execute(query, values).mappings():
            found[row["key"]] = ChannelRow.from_row(dict(row))
    return found


def read_open_rows(connection: sa.Connection, name: str, *, lock: bool = False) -> list[ChannelRow]:
    """Return the open rows of a gateway in the order of their keys."""
    query = _OPEN.order_by(channel.c.key)
    rows = connection.execute(query.with_for_update() if lock else query, {"of_gateway": name})
    return [ChannelRow.from_row(dict(row)) for row in rows.mappings()]


def ensure_row(
    connection: sa.Connection, name: str, key: str, channel_name: str, *, listed: bool = False
) -> None:
    """Add the row of a channel unless it is there; ``listed``: the gateway is known to have it."""
    mine = (channel.c.gateway == name, channel.c.key == key)
    if connection.scalar(sa.select(channel.c.key).where(*mine)) is None:
        row = {"gateway": name, "key": key, "channel": channel_name, "listed": listed}
        connection.execute(sa.insert(channel).values(row))


def add_gateway(connection: sa.Connection, name: str) -> None:
    """Add the row of a gateway unless it is there."""
    insert = _insert(connection)(gateway).values(gateway=name)
    if isinstance(insert, sqlite.Insert):
        connection.execute(insert.on_conflict_do_nothing())
    else:
        connection.execute(insert.prefix_with("IGNORE"))


# Raises.

_RAISED = ("channel", "intent", "cause", "asked_by", "since", "next_at", "raised_in")


def raise_intents(connection: sa.Connection, name: str, raises: Iterable[Raise]) -> None:
    """Let at least this be wanted of channels: nothing of it is taken back by another raise."""
    ordered = sorted(raises, key=lambda one: (one.key, one.intent))
    rows = [
        {"gateway": name, "key": one.key, **{column: getattr(one, column) for column in _RAISED}}
        for one in ordered
    ]
    statement = _RAISE_SQLITE if connection.dialect.name == "sqlite" else _RAISE_MYSQL
    _many(connection, statement, rows)


def _constant(word: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{word}'", sa.String)


def _raise_values(new: Any) -> list[tuple[str, Any]]:
    """Return what a raise sets.

    MariaDB and MySQL go from left to right: what reads ``intent`` must stand before it.
    """
    old = channel.c
    more = new.intent > old.intent
    # Constants in the statement, since its parameters are those of many rows.
    was_silent = sa.or_(*(old.cause == _constant(cause) for cause in _SILENCES))
    dropped = (new.cause == _constant(RepairCause.DISCONNECTED)) & was_silent
    at_rest = sa.or_(*(old.phase == _constant(phase) for phase in AT_REST))
    sooner = old.next_at.is_(None) | (new.next_at < old.next_at)

    def either(condition: Any, column: str) -> Any:
        return sa.case((condition, new[column]), else_=old[column])

    return [
        ("since", either(more, "since")),
        ("asked_by", either(more, "asked_by")),
        ("cause", either(at_rest & (more | ((new.intent >= old.intent) & dropped)), "cause")),
        ("channel", either(~old.listed, "channel")),
        ("next_at", either(sooner, "next_at")),
        ("raised_in", either(new.raised_in > old.raised_in, "raised_in")),
        ("intent", either(more, "intent")),
    ]


def _raise_statements() -> tuple[sqlite.Insert, mysql.Insert]:
    names = ("gateway", "key", *_RAISED)
    values: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    for_sqlite = sqlite.insert(channel).values(values)
    for_sqlite = for_sqlite.on_conflict_do_update(
        index_elements=["gateway", "key"], set_=dict(_raise_values(for_sqlite.excluded))
    )
    for_mysql = mysql.insert(channel).values(values)
    return for_sqlite, for_mysql.on_duplicate_key_update(_raise_values(for_mysql.inserted))


_RAISE_SQLITE, _RAISE_MYSQL = _raise_statements()


def _insert(connection: sa.Connection) -> Any:
    return sqlite.insert if connection.dialect.name == "sqlite" else mysql.insert


# The lead of a gateway.


class LostLeadError(Exception):
    """Another hook leads the gateway now."""


# What only the leader changes, and what it may change since it has the row locked.
_CHANGED = [
    field.name
    for field in fields(ChannelRow)
    if field.name not in {"key", "paused", "paused_until", "unheard_since"}
]
_STORE = (
    sa.update(channel)
    .where(_OF_GATEWAY, channel.c.key == sa.bindparam("of_key"))
    .values({name: sa.bindparam(f"to_{name}") for name in _CHANGED})
)
_WAIT = (
    sa.update(channel)
    .where(_OF_GATEWAY, channel.c.key == sa.bindparam("of_key"))
    .values(next_at=sa.bindparam("to_next_at"))
)
_DELETE = sa.delete(channel).where(_OF_GATEWAY, channel.c.key == sa.bindparam("of_key"))


class Lead:
    """The lead of one gateway, in one hook's hands.

    Each transaction begins with a write of the gateway's row, which is fence, renewal of the lease
    and conflict in one. It raises LostLeadError where another hook leads, and StateError.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._holder = uuid.uuid4().hex
        self.epoch: int | None = None

    def take(self, seen: GatewayRow) -> bool:
        """Take the lead of a gateway that was ``seen`` to have none; whether that worked."""

        def work(connection: sa.Connection) -> bool:
            values = {
                "epoch": gateway.c.epoch + 1,
                "holder": self._holder,
                "lease_until": now(connection) + LEASE_SECONDS,
            }
            statement = sa.update(gateway).where(
                gateway.c.gateway == self._name, gateway.c.epoch == seen.epoch
            )
            return connection.execute(statement.values(values)).rowcount == 1

        if not transact(self._database, work):
            return False
        self.epoch = seen.epoch + 1
        return True

    def write(self, work: Callable[[sa.Connection, GatewayRow, float], _T]) -> _T:
        """Return what ``work`` does in a transaction of the leader.

        It gets the connection, the gateway's row, and the moment by the database's clock.
        """

        def fenced(connection: sa.Connection) -> _T:
            at = now(connection)
            if not self._renew(connection, at + LEASE_SECONDS):
                raise LostLeadError
            return work(connection, read_gateway(connection, self._name), at)

        try:
            return transact(self._database, fenced)
        except LostLeadError:
            self.epoch = None
            raise

    def _renew(self, connection: sa.Connection, until: float) -> bool:
        statement = sa.update(gateway).where(
            gateway.c.gateway == self._name,
            gateway.c.epoch == self.epoch,
            gateway.c.holder == self._holder,
        )
        return connection.execute(statement.values(lease_until=until)).rowcount == 1

    def renew(self) -> None:
        """Keep the lead."""
        self.write(lambda _connection, _gateway, _at: None)

    def give_back(self) -> None:
        """Give the lead back, to whoever comes next."""

        def work(connection: sa.Connection, seen: GatewayRow, at: float) -> None:
            of_gateway = sa.update(gateway).where(gateway.c.gateway == self._name)
            connection.execute(of_gateway.values(holder=None, lease_until=None))
            in_hand = channel.c.phase.in_([str(phase) for phase in IN_HAND])
            mine = (channel.c.gateway == self._name, channel.c.epoch == seen.epoch)
            connection.execute(sa.update(channel).where(*mine, in_hand).values(next_at=at))

        with suppress(LostLeadError):
            self.write(work)
        self.epoch = None


def next_look(connection: sa.Connection, name: str, seen: GatewayRow) -> int:
    """Count a look that is about to be taken, and return its number."""
    look = seen.look + 1
    statement = sa.update(gateway).where(gateway.c.gateway == name)
    connection.execute(statement.values(look=look))
    return look


def store_gateway(
    connection: sa.Connection, name: str, before: GatewayRow, after: GatewayRow
) -> None:
    """Store what has changed of a gateway's circuit breaker."""
    if before == after:
        return
    columns = ("failures", "failed_at", "rests_until", "back_at")
    values = {column: getattr(after, column) for column in columns}
    connection.execute(sa.update(gateway).where(gateway.c.gateway == name).values(values))


def store_rows(connection: sa.Connection, name: str, rows: Sequence[ChannelRow]) -> None:
    """Store rows that the leader has locked and changed."""
    _many(
        connection,
        _STORE,
        [
            {
                "of_gateway": name,
                "of_key": row.key,
                **{f"to_{column}": getattr(row, column) for column in _CHANGED},
            }
            for row in rows
        ],
    )


def store_waits(connection: sa.Connection, name: str, waits: Mapping[str, float]) -> None:
    """Store when the next look at rows is wanted."""
    _many(
        connection,
        _WAIT,
        [
            {"of_gateway": name, "of_key": key, "to_next_at": next_at}
            for key, next_at in waits.items()
        ],
    )


def delete_rows(connection: sa.Connection, name: str, keys: Iterable[str]) -> None:
    """Delete the rows of channels that the gateway does not list."""
    _many(connection, _DELETE, [{"of_gateway": name, "of_key": key} for key in keys])


def append_log(
    connection: sa.Connection, name: str, entries: Sequence[LogEntry], at: float
) -> None:
    """Record repairs that ended at the moment ``at``."""
    _many(
        connection,
        sa.insert(repair_log),
        [
            {
                "gateway": name,
                "key": entry.key,
                "channel": entry.channel,
                "cause": entry.cause,
                "asked_by": entry.asked_by,
                "accepted_at": entry.accepted_at,
                "finished_at": at,
                "attempt": entry.attempt,
                "action": entry.action,
                "outcome": entry.outcome,
                "detail": entry.detail,
            }
            for entry in entries
        ],
    )


def append_attempts(
    connection: sa.Connection, name: str, attempts: Sequence[LoggedAttempt]
) -> None:
    """Record the steps of attempts that ended."""
    rows = [{"gateway": name, **attempt.as_row()} for attempt in attempts]
    _many(connection, sa.insert(attempt_log), rows)


def _many(connection: sa.Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for begin in range(0, len(rows), _CHUNK):
        connection.execute(statement, rows[begin : begin + _CHUNK])


def prune_records(database: Database) -> None:
    """Delete the old records of all gateways in many small transactions; raises StateError."""
    while transact(database, _prune_records) == _PRUNE_CHUNK:
        pass
    while transact(database, _prune_attempts):
        pass


def prune_rows(database: Database, name: str, listed: Collection[str]) -> list[str]:
    """Delete closed rows of channels that the gateway does not list, and return their names.

    Raises StateError.
    """

    def work(connection: sa.Connection) -> list[str]:
        closed = sa.select(channel.c.key, channel.c.channel).where(
            channel.c.gateway == name, channel.c.next_at.is_(None), channel.c.paused.is_(False)
        )
        gone = {row.key: row.channel for row in connection.execute(closed) if row.key not in listed}
        delete_rows(connection, name, sorted(gone))
        return list(gone.values())

    return transact(database, work)


def _prune_records(connection: sa.Connection) -> int:
    at = now(connection)
    old = repair_log.c.finished_at < at - _HISTORY_SECONDS
    unknown = (repair_log.c.outcome == "unknown_channel") & (
        repair_log.c.finished_at < at - _UNKNOWN_SECONDS
    )
    rows = sa.select(repair_log.c.id).where(old | unknown).order_by(repair_log.c.finished_at)
    ids = connection.scalars(rows.limit(_PRUNE_CHUNK)).all()
    if ids:
        connection.execute(sa.delete(repair_log).where(repair_log.c.id.in_(ids)))
    return len(ids)


def _prune_attempts(connection: sa.Connection) -> bool:
    """Delete some attempts that are old, or too many of one channel; whether there were any."""
    log = attempt_log.c
    old = sa.select(log.id).where(log.ended_at < now(connection) - _HISTORY_SECONDS)
    ids = list(connection.scalars(old.limit(_PRUNE_CHUNK)))
    channels = sa.select(log.gateway, log.key).group_by(log.gateway, log.key)
    many = channels.having(sa.func.count() > KEPT_ATTEMPTS).limit(_PRUNE_CHUNK)
    for row in connection.execute(many):
        if len(ids) >= _PRUNE_CHUNK:
            break
        mine = (log.gateway == row.gateway, log.key == row.key)
        newest = sa.select(log.id).where(*mine).order_by(log.id.desc())
        ids += connection.scalars(newest.limit(_PRUNE_CHUNK).offset(KEPT_ATTEMPTS))
    if ids:
        connection.execute(sa.delete(attempt_log).where(log.id.in_(ids[:_PRUNE_CHUNK])))
    return bool(ids)
