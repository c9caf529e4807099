"""SQL statements of the state: raises by any hook, and writes by a gateway's leader."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from math import inf
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from reconnect_hook.event_log import KEPT_ATTEMPTS, AttemptSteps, LogEntry, LoggedAttempt
from reconnect_hook.models import (
    AT_REST,
    COLUMNS,
    IN_HAND,
    LEASE_SECONDS,
    PROBE_CAUSES,
    SILENCES,
    AskedBy,
    ChannelRow,
    GatewayRow,
    Intent,
    RepairCause,
    escalates,
)
from reconnect_hook.schema import (
    attempt_log,
    channel,
    gateway,
    message_audit,
    missed_message,
    repair_log,
)
from zapwatch.db import Database, add_missing, delete_chunk, now, now_column, upsert

_T = TypeVar("_T")

_values = attrgetter(*COLUMNS)
_CHUNK = 500  # rows a statement
_HISTORY_SECONDS = 90 * 86400.0
_UNKNOWN_SECONDS = 86400.0  # for records of channels that no gateway lists
_UNKNOWN_WEEK_SECONDS = 7 * 86400.0  # older ones, from before a stop of a week, wait 90 days
_MISSED_SECONDS = 30 * 86400.0
_PRUNE_CHUNK = 1000  # channels, and attempts of one, read to find the excess ones


# Rows.

# The statements that each alert and each look executes are built once: SQLAlchemy takes longer to
# build one than to run it.
_STATE_COLUMNS = [channel.c[name] for name in COLUMNS]
_GATEWAY_COLUMNS = [gateway.c[one.name] for one in fields(GatewayRow)]
_OF_GATEWAY = channel.c.gateway == sa.bindparam("of_gateway")
_OF_KEYS = channel.c.key.in_(sa.bindparam("keys", expanding=True))
_IS_OPEN = channel.c.next_at.is_not(None)
_GATEWAY = sa.select(*_GATEWAY_COLUMNS).where(gateway.c.gateway == sa.bindparam("of_gateway"))
_BY_KEY = sa.select(*_STATE_COLUMNS).where(_OF_GATEWAY, _OF_KEYS)
_LOCKED_BY_KEY = _BY_KEY.with_for_update()
_STATE_BY_KEY = _GATEWAY.add_columns(*_STATE_COLUMNS).select_from(
    gateway.outerjoin(channel, (channel.c.gateway == gateway.c.gateway) & _OF_KEYS)
)


def read_gateway(connection: sa.Connection, name: str, at: float = inf) -> GatewayRow:
    """Return a gateway's row at the time ``at``; the default one if it was only just added."""
    return _load_gateway(connection.execute(_GATEWAY, {"of_gateway": name}).all(), at)


def _load_gateway(found: Sequence[Sequence[Any]], at: float) -> GatewayRow:
    row = GatewayRow(*found[0][: len(_GATEWAY_COLUMNS)]) if found else GatewayRow()
    # A later time is from before the clock was set back.
    return replace(row, back_at=None) if (row.back_at or 0.0) > at else row


@dataclass(frozen=True, slots=True)
class Polled:
    """A gateway's row, when its next look, audit and delivery of missed messages are due.

    ``at`` is the current time by the database's clock.
    """

    gateway: GatewayRow
    at: float
    look_at: float | None
    audit_at: float | None
    replay_at: float | None


_DUE = [
    sa.select(sa.func.min(at))
    .where(at.table.c.gateway == gateway.c.gateway, at.is_not(None))
    .scalar_subquery()
    for at in (channel.c.next_at, message_audit.c.due_at, message_audit.c.replay_at)
]


def poll(database: Database) -> dict[str, Polled]:
    """Return the due work of all gateways by name; raises StateError."""
    with database.read() as connection:
        at = now_column(connection)
        query = sa.select(gateway.c.gateway, at, *_DUE, *_GATEWAY_COLUMNS)
        found = connection.execute(query).all()
    return {row[0]: Polled(GatewayRow(*row[5:]), *row[1:5]) for row in found}


def add_gateways(database: Database, names: Iterable[str]) -> None:
    """Add the gateways' missing rows; raises StateError, also without any."""
    rows = [{"gateway": name} for name in names]
    database.transact(partial(add_missing, table=gateway, rows=rows))


def _by_chunk(
    connection: sa.Connection, query: sa.Select[Any], name: str, keys: Collection[str]
) -> list[sa.Row[Any]]:
    ordered = sorted(keys)
    chunks = (ordered[begin : begin + _CHUNK] for begin in range(0, len(ordered), _CHUNK))
    return [
        row
        for chunk in chunks
        for row in connection.execute(query, {"of_gateway": name, "keys": chunk})
    ]


def read_rows(
    connection: sa.Connection,
    name: str,
    keys: Collection[str],
    at: float = inf,
    *,
    lock: bool = False,
) -> dict[str, ChannelRow]:
    """Return the rows of channels by key, see ChannelRow.load(); ``lock``: SELECT FOR UPDATE."""
    found = _by_chunk(connection, _LOCKED_BY_KEY if lock else _BY_KEY, name, keys)
    return {row.key: ChannelRow.load(row, at) for row in found}


def read_state(
    connection: sa.Connection, name: str, keys: Collection[str]
) -> tuple[GatewayRow, dict[str, ChannelRow], float]:
    """Return a gateway's row, channels' rows by key, and the time by the database's clock.

    No channel's row is older than the gateway's: raises must not appear newer than they are. The
    time is read last, so that no other hook's row lies in the future.
    """
    found = _by_chunk(connection, _STATE_BY_KEY, name, keys)
    at, width = now(connection), len(_GATEWAY_COLUMNS)
    rows = [ChannelRow.load(row[width:], at) for row in found if row[width] is not None]
    return _load_gateway(found, at), {row.key: row for row in rows}, at


_WITH_PROBE = [*_STATE_COLUMNS, channel.c.probe_kind, channel.c.webhook]
_ALL: sa.Select[Any] = sa.select(*_WITH_PROBE).where(_OF_GATEWAY)


def read_all_rows(
    connection: sa.Connection, name: str
) -> tuple[GatewayRow, list[tuple[ChannelRow, sa.Row[Any]]], float]:
    """Return a gateway's row, its channels' rows, and the time by the database's clock.

    Each channel's row comes also as it is stored, with its last probe's kind and its webhook.
    """
    gateways = connection.execute(_GATEWAY, {"of_gateway": name}).all()
    found = connection.execute(_ALL, {"of_gateway": name}).all()
    at, count = now(connection), len(COLUMNS)
    rows = [(ChannelRow.load(row[:count], at), row) for row in found]
    return _load_gateway(gateways, at), rows, at


_OPEN_KEYS = sa.select(channel.c.key).where(_OF_GATEWAY, _IS_OPEN).order_by(channel.c.key)


def read_open_keys(connection: sa.Connection, name: str) -> list[str]:
    """Return the sorted keys of a gateway's open rows."""
    return [*connection.scalars(_OPEN_KEYS, {"of_gateway": name})]


def count_probes(connection: sa.Connection, name: str) -> int:
    """Return the number of open probes of a gateway."""
    mine = (channel.c.gateway == name, _IS_OPEN, channel.c.intent == int(Intent.PROBE))
    return connection.scalar(sa.select(sa.func.count()).where(*mine)) or 0


def ensure_row(
    connection: sa.Connection, name: str, key: str, channel_name: str, *, listed: bool = False
) -> None:
    """Add a channel's row if it is missing; ``listed``: the gateway lists the channel."""
    mine = (channel.c.gateway == name, channel.c.key == key)
    if connection.scalar(sa.select(channel.c.key).where(*mine)) is None:
        row = {"gateway": name, "key": key, "channel": channel_name, "listed": listed}
        add_missing(connection, channel, [row])


# Raises.


@dataclass(frozen=True, slots=True)
class Raise:
    """A lower bound for a channel's intent; see raise_intents()."""

    key: str
    channel: str
    intent: Intent
    cause: RepairCause
    since: float
    next_at: float
    raised_in: int
    asked_by: AskedBy = AskedBy.ALERTMANAGER

    def apply_to(self, row: ChannelRow) -> None:
        """Change the row as raise_intents() changes it in the database."""
        is_more = self.intent > row.intent
        dropped = self.intent == row.intent and escalates(row.cause, self.cause)
        if (is_more or dropped) and not row.in_work:
            row.cause = self.cause
        if is_more:
            row.intent, row.asked_by, row.since = self.intent, self.asked_by, self.since
        row.next_at = self.next_at if row.next_at is None else min(row.next_at, self.next_at)
        row.raised_in = max(row.raised_in, self.raised_in)


_RAISED = ("channel", "intent", "cause", "asked_by", "since", "next_at", "raised_in")


def raise_intents(connection: sa.Connection, name: str, raises: Iterable[Raise]) -> None:
    """Raise the intents of channels; no raise ever decreases one."""
    ordered = sorted(raises, key=lambda one: (one.key, one.intent))
    rows = [
        {"gateway": name, "key": one.key, **{column: getattr(one, column) for column in _RAISED}}
        for one in ordered
    ]
    connection.execute(_RAISES[connection.dialect.name], rows)


def _constant(word: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{word}'", sa.String)


def _raise_values(new: Any) -> list[tuple[str, Any]]:
    """Return the columns that a raise sets, with their expressions.

    MariaDB and MySQL assign from left to right: columns that read ``intent`` come before it.
    """
    old = channel.c
    more = new.intent > old.intent
    # Literals, since the statement's parameters are per row.
    was_silent = sa.or_(*(old.cause == _constant(cause) for cause in SILENCES))
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


_RAISES = {name: upsert(name, channel, _raise_values) for name in ("sqlite", "mysql")}


# The lead of a gateway.


class LostLeadError(Exception):
    """Another hook leads the gateway now."""


class Lead:
    """One hook's lead of a gateway.

    Each transaction begins with an update of the gateway's row: it fences, renews the lease and
    conflicts with other writers. It raises StateError, and LostLeadError if another hook leads.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._holder = uuid.uuid4().hex
        self.epoch = 0
        """The number of this lead."""
        self.renew_at = inf
        """When the lease needs a write, by the monotonic clock; infinite before the first."""
        # What the gateway's row still holds unless another hook has taken or renewed the lead.
        self._before: Mapping[str, Any] = {"epoch": None}

    @property
    def has_lapsed(self) -> bool:
        """Whether the lease has run out, even if no other hook has taken the lead."""
        return self._database.clock.monotonic() >= self.renew_at + LEASE_SECONDS * 2 / 3

    def take(self, seen: GatewayRow) -> None:
        """Let the next write() take the lead of a gateway that was ``seen`` without a leader."""
        self.epoch, self.renew_at = seen.epoch + 1, inf
        columns = ("epoch", "holder", "lease_until")
        self._before = {column: getattr(seen, column) for column in columns}

    def write(
        self,
        work: Callable[[sa.Connection, GatewayRow, float], _T],
        *,
        begins_look: bool = False,
    ) -> _T:
        """Return the result of ``work``, run in a fenced transaction.

        It receives the connection, the gateway's row, and the time by the database's clock.
        ``begins_look``: the row's number of looks is a new one.
        """
        mine: dict[str, Any] = {"epoch": self.epoch, "holder": self._holder}

        def fenced(connection: sa.Connection, at: float) -> _T:
            # The commit of the write before may not have been confirmed.
            states = (
                sa.and_(*(gateway.c[name] == value for name, value in state.items()))
                for state in (self._before, mine)
            )
            lead = sa.update(gateway).where(gateway.c.gateway == self._name, sa.or_(*states))
            lease = {**mine, "lease_until": at + LEASE_SECONDS}
            if begins_look:
                lease["look"] = gateway.c.look + 1
            if connection.execute(lead.values(lease)).rowcount != 1:
                raise LostLeadError
            return work(connection, read_gateway(connection, self._name, at), at)

        result = self._database.transact_at(fenced)
        self._before = mine
        self.renew_at = self._database.clock.monotonic() + LEASE_SECONDS / 3
        return result

    def renew(self) -> None:
        """Extend the lease; raise LostLeadError or StateError."""
        self.write(lambda _connection, _gateway, _at: None)

    def give_back(self) -> None:
        """Release the lead, and make the rows in hand due for the next leader."""

        def work(connection: sa.Connection, seen: GatewayRow, at: float) -> None:
            of_gateway = sa.update(gateway).where(gateway.c.gateway == self._name)
            connection.execute(of_gateway.values(holder=None, lease_until=None))
            in_hand = channel.c.phase.in_(IN_HAND)
            mine = (channel.c.gateway == self._name, channel.c.epoch == seen.epoch)
            connection.execute(sa.update(channel).where(*mine, in_hand).values(next_at=at))

        with suppress(LostLeadError):
            self.write(work)


def next_look(connection: sa.Connection, name: str) -> int:
    """Increase the number of looks without a lead, before a list is read; return it."""
    mine = gateway.c.gateway == name
    connection.execute(sa.update(gateway).where(mine).values(look=gateway.c.look + 1))
    return connection.scalar(sa.select(gateway.c.look).where(mine)) or 0


def begin_look(
    connection: sa.Connection, seen: GatewayRow, at: float, *, name: str, silences: bool
) -> tuple[int, float | None] | None:
    """Return the look's number and, if ``silences`` are read, the age of the oldest in seconds.

    None if the circuit is open, by a clock that was set back.
    """
    if seen.rests(at):
        return None
    since = connection.scalar(_OLDEST_SILENCE, {"of_gateway": name}) if silences else None
    return seen.look, None if since is None else max(0.0, at - since)


_BEGAN = sa.case(
    (channel.c.phase.in_(AT_REST), channel.c.since),
    else_=channel.c.asked_at,
)
_OLDEST_SILENCE = sa.select(sa.func.min(_BEGAN)).where(
    _OF_GATEWAY, _IS_OPEN, channel.c.cause.in_(SILENCES | PROBE_CAUSES)
)


@dataclass(slots=True)
class StoredChanges:
    """What one transaction of the leader changes; ``at`` is its time in Unix seconds."""

    connection: sa.Connection
    at: float
    attempts: AttemptSteps
    before: GatewayRow
    """The gateway's row before the transaction."""
    gateway: GatewayRow
    rows: dict[str, ChannelRow] = field(default_factory=dict)
    """All locked rows by key, changed or not."""
    deleted: set[str] = field(default_factory=set)
    """Keys of channels that the gateway does not list."""
    entries: list[LogEntry] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)


def store_changes(name: str, changes: StoredChanges) -> None:
    """Store changes of a gateway's circuit breaker and locked rows, ends and raises."""
    connection = changes.connection
    if changes.gateway != changes.before:
        columns = ("failures", "failed_at", "rests_until", "back_at", "list_failed")
        values = {column: getattr(changes.gateway, column) for column in columns}
        connection.execute(sa.update(gateway).where(gateway.c.gateway == name).values(values))
    stay = [row for key, row in changes.rows.items() if key not in changes.deleted]
    store_rows(connection, name, stay)
    _of_each(connection, sa.delete(channel), name, sorted(changes.deleted))
    mine = {"gateway": name, "finished_at": changes.at}
    if changes.entries:
        ended = [{one: getattr(entry, one) for one in _ENTRY} for entry in changes.entries]
        connection.execute(sa.insert(repair_log), [mine | entry for entry in ended])
    if changes.attempts.ended:
        append_attempts(connection, name, changes.attempts.ended)
    if changes.raises:
        raise_intents(connection, name, changes.raises)


def store_rows(connection: sa.Connection, name: str, rows: Iterable[ChannelRow]) -> None:
    """Store changes of locked rows; rows with equal changes share one statement."""
    alike: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for row in rows:
        changes = _changes(row)
        if changes:
            alike.setdefault(changes, []).append(row.key)
    for changes, keys in alike.items():
        _of_each(connection, sa.update(channel).values(dict(changes)), name, keys)


def _changes(row: ChannelRow) -> tuple[tuple[str, Any], ...]:
    """Return the changed columns and their values."""
    columns = zip(COLUMNS, row.stored, _values(row), strict=True)
    return tuple((name, value) for name, old, value in columns if old != value)


def append_attempts(
    connection: sa.Connection, name: str, attempts: Iterable[LoggedAttempt]
) -> None:
    """Record the steps of finished attempts."""
    rows = [{"gateway": name, **attempt.as_row()} for attempt in attempts]
    connection.execute(sa.insert(attempt_log), rows)


_ENTRY = [one.name for one in fields(LogEntry) if one.name in repair_log.c]


def update_rows(connection: sa.Connection, name: str, keys: Iterable[str], **values: Any) -> None:
    """Set columns of channels' rows."""
    _of_each(connection, sa.update(channel).values(values), name, sorted(keys))


def _of_each(
    connection: sa.Connection, change: sa.Update | sa.Delete, name: str, keys: Sequence[str]
) -> None:
    for begin in range(0, len(keys), _CHUNK):
        row = change.table.c
        some = row.key.in_(keys[begin : begin + _CHUNK])
        connection.execute(change.where(row.gateway == name, some))


def repairs_of(name: str) -> sa.ColumnElement[bool]:
    """Return the condition of a gateway's repairs, for reads that a time or an id bounds.

    For a condition on the column itself, SQLite would read all repairs of the gateway by its index.
    """
    return repair_log.c.gateway.concat("") == name


def prune_records(database: Database) -> bool:
    """Delete a chunk of old records of all gateways; return whether there may be more.

    Raises StateError.
    """
    return any(map(database.transact_at, (_prune_repairs, _prune_attempts, _prune_missed)))


def recheck_drops(database: Database, name: str) -> None:
    """Raise rechecks of dropped channels whose repairs wait for an alert; raise StateError.

    Alertmanager sends no resolved alert that it holds back or has forgotten.
    """
    row = channel.c
    waits = (row.next_at.is_(None), row.last_cause == str(RepairCause.DISCONNECTED))
    has_episode = (row.attempts > 0) | row.qr_required

    def work(connection: sa.Connection, at: float) -> None:
        mine = sa.update(channel).where(row.gateway == name, *waits, has_episode)
        recheck = {"intent": int(Intent.RECHECK), "cause": row.last_cause, "next_at": at}
        connection.execute(mine.values(recheck))

    database.transact_at(work)


def prune_rows(
    database: Database, name: str, listed: Collection[str], ago: float = 0.0
) -> list[str]:
    """Delete closed rows of channels that the gateway does not list; return the channels' ids.

    The list was read ``ago`` seconds ago. Raises StateError.
    """

    def work(connection: sa.Connection, at: float) -> list[str]:
        row = channel.c
        paused = row.paused & (row.paused_until.is_(None) | (row.paused_until > at))
        # Another hook may know channels that are newer than the list.
        used = (row.since, row.probe_began_at, row.unheard_since)
        times = [sa.func.coalesce(one, 0.0) for one in used]
        is_new = sa.or_(*((one > at - ago) & (one <= at) for one in times))
        closed = (row.next_at.is_(None), ~paused, ~is_new)
        query = sa.select(row.key, row.channel).where(row.gateway == name, *closed)
        gone = {one.key: one.channel for one in connection.execute(query) if one.key not in listed}
        # Another hook may have accepted an alert of one since.
        _of_each(connection, sa.delete(channel).where(*closed), name, sorted(gone))
        return list(gone.values())

    return database.transact_at(work)


def prune_audits(database: Database, name: str, listed: Collection[str], ago: float = 0.0) -> None:
    """Delete audits of channels that the gateway does not list, and a chunk of removed gateways'.

    The list was read ``ago`` seconds ago. Raises StateError.
    """

    def work(connection: sa.Connection, at: float) -> None:
        row = message_audit.c
        known = sa.func.coalesce(row.audited_at, row.due_at, 0.0) <= at - ago
        # The empty key is the whole gateway's.
        query = sa.select(row.key).where(row.gateway == name, row.key != "", known)
        unlisted = set(connection.scalars(query)).difference(listed)
        _of_each(connection, sa.delete(message_audit).where(known), name, sorted(unlisted))
        last_at = sa.func.coalesce(row.due_at, row.audited_at, 0.0)
        delete_chunk(connection, message_audit, last_at < at - _MISSED_SECONDS)

    database.transact_at(work)


def _prune_repairs(connection: sa.Connection, at: float) -> bool:
    log = repair_log.c
    # From a week ago, since each pruning would otherwise read the whole log.
    lately = log.finished_at.between(at - _UNKNOWN_WEEK_SECONDS, at - _UNKNOWN_SECONDS)
    unknown = (log.outcome == "unknown_channel") & lately
    return delete_chunk(connection, repair_log, (log.finished_at < at - _HISTORY_SECONDS) | unknown)


def _prune_attempts(connection: sa.Connection, at: float) -> bool:
    """Delete a chunk of old or excess attempts; return whether there may be more."""
    log = attempt_log.c
    ids: list[int] = []
    channels = sa.select(log.gateway, log.key).group_by(log.gateway, log.key)
    many = channels.having(sa.func.count() > KEPT_ATTEMPTS).limit(_PRUNE_CHUNK)
    for row in connection.execute(many):
        if len(ids) >= _PRUNE_CHUNK:
            break
        mine = (log.gateway == row.gateway, log.key == row.key)
        newest = sa.select(log.id).where(*mine).order_by(log.id.desc())
        ids += connection.scalars(newest.limit(_PRUNE_CHUNK).offset(KEPT_ATTEMPTS))
    old = log.ended_at < at - _HISTORY_SECONDS
    return delete_chunk(connection, attempt_log, old | log.id.in_(ids))


def _prune_missed(connection: sa.Connection, at: float) -> bool:
    return delete_chunk(
        connection, missed_message, missed_message.c.found_at < at - _MISSED_SECONDS
    )
