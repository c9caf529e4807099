"""Audits: messages that a gateway has received and its consumer has not.

A wanted audit is a row of the state. The program that claims it runs it; if that program dies,
the row becomes due again.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from reconnect_hook.echo import Interrupted
from reconnect_hook.event_log import EventLog
from reconnect_hook.schema import message_audit, missed_message
from reconnect_hook.workers import OneAtATime, StartThread, start_thread
from zapwatch.channels import Channel, Status, channel_key
from zapwatch.clock import Clock
from zapwatch.config.readers import AuditMode
from zapwatch.db import Database, StateError, add_missing, now, now_column, transaction, upsert
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.message import (
    Delivered,
    MessageLogError,
    Received,
    ReceivedMessage,
    Wanted,
    no_pause,
)
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("reconnect_hook")

FIRST_SECONDS = 120.0
"""First audit after the end of an outage: late messages are in the log by then."""
SECOND_SECONDS = 1800.0
"""Second audit after it: gateways retry failed deliveries for that long."""
DAY_SECONDS = 86_400.0
LONGEST_WAIT_SECONDS = DAY_SECONDS + 3600.0
"""Longest time until an audit is due; a later one is from before the clock was set back."""
LONGEST_SECONDS = 7 * DAY_SECONDS
"""Longest period of an audit: the events store keeps ids for as long."""
_EARLIER_SECONDS = 900.0  # an outage may begin this long before its alert
_UNDERWAY_SECONDS = 60.0  # a younger message that has not arrived is normal
_CLAIM_SECONDS = 900.0  # until an unfinished claim is due again
_RENEW_SECONDS = 300.0  # between renewals of a claim in use
_LIST_SECONDS = 60.0  # that a list is reused
_TOGETHER = 50  # channels per read of the log
_CHUNK = 500  # ids per statement
_WHOLE = ""  # the key of the row for the whole gateway


class AuditResult(enum.StrEnum):
    """Result of an audit: the label ``result`` of whatsapp_message_audits_total."""

    COMPLETE = "complete"
    MISSED = "missed"
    UNKNOWN = "unknown"


class Replay(enum.StrEnum):
    """Result of delivering a missed message: the label ``result`` of its metric."""

    SENDING = "sending"
    DELIVERED = "delivered"
    REFUSED = "refused"
    """The webhook did not accept it."""
    UNKNOWN = "unknown"
    """The webhook may have accepted it: it is never sent again."""
    GONE = "gone"
    """The gateway no longer has it."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of one channel's audit; ``why`` it may be incomplete is empty if it is not.

    ``arrived`` holds the ids of recorded missed messages that have arrived since. It has ``failed``
    if the log or the gateway could not be read.
    """

    result: AuditResult
    received: int = 0
    missed: tuple[ReceivedMessage, ...] = ()
    arrived: frozenset[str] = frozenset()
    why: str = ""
    failed: bool = False


def judge(
    absent: Received, delivered: Delivered, key: str, *, until: float, delivery_seconds: float
) -> Audit:
    """Return the result for the channel ``key``; ``absent`` are its absent messages.

    The gateway has listed them up to ``until``; it may still deliver those younger than
    ``delivery_seconds``.
    """
    why = absent.cannot_know
    if not absent.count and key in delivered.heard:
        why = why or "messages have arrived that the gateway does not list: does it store them?"
    missed, blind, late = [], 0, 0
    for message in absent.messages:
        if any(begin <= message.at <= end for begin, end in delivered.gaps):
            blind += 1
        elif message.at <= until - delivery_seconds:
            missed.append(message)
        else:
            late += message.at <= until - _UNDERWAY_SECONDS
    if blind:
        why = why or f"{blind} messages are from a time without data in the log or the store"
    if late:
        why = why or f"{late} messages may still be delivered by the gateway"
    result = AuditResult.UNKNOWN if why else AuditResult.COMPLETE
    return Audit(
        AuditResult.MISSED if missed else result,
        absent.count,
        tuple(sorted(missed, key=lambda one: one.at)),
        why=why,
    )


# The state.


@dataclass(frozen=True, slots=True)
class AuditWish:
    """A request to audit a channel, whose outage began at ``since`` (Unix seconds)."""

    channel: str
    since: float


def wish_after(
    channel: str, noticed_at: float, threshold: Callable[[Channel], float] | None = None
) -> AuditWish:
    """Return the request after an outage that was noticed at a time in Unix seconds.

    If silence revealed it, the channel had been silent for ``threshold`` seconds by then. An empty
    channel stands for the whole gateway.
    """
    silence = 0.0 if threshold is None else threshold(Channel(channel, Status.UNKNOWN))
    return AuditWish(channel, noticed_at - silence - _EARLIER_SECONDS)


def want_audits(
    connection: sa.Connection,
    gateway: str,
    wishes: Iterable[AuditWish],
    at: float,
    *,
    delays: tuple[float, float] = (FIRST_SECONDS, SECOND_SECONDS),
) -> None:
    """Queue two audits of each channel; an earlier due time or start already queued is kept."""
    oldest = at - LONGEST_SECONDS
    rows = [
        {
            "gateway": gateway,
            "key": channel_key(one.channel),
            "channel": one.channel,
            "since": min(max(one.since, oldest), at),
            "due_at": at + delays[0],
            "last_due_at": at + delays[1],
        }
        for one in wishes
    ]
    if rows:
        connection.execute(upsert(connection.dialect.name, message_audit, _wanted), rows)


def _wanted(new: Any) -> list[tuple[str, Any]]:
    """Return the columns that a request sets, with their expressions."""
    old = message_audit.c

    def earlier(name: str) -> tuple[str, Any]:
        sooner = old[name].is_(None) | (new[name] < old[name])
        return name, sa.case((sooner, new[name]), else_=old[name])

    is_last = old.last_due_at.is_(None) | (new.last_due_at > old.last_due_at)
    last = sa.case((is_last, new.last_due_at), else_=old.last_due_at)
    return [earlier("since"), earlier("due_at"), ("channel", new.channel), ("last_due_at", last)]


@dataclass(frozen=True, slots=True)
class DueAudit:
    """A claimed audit; ``claimed_until`` identifies the claim.

    The last audit of the same outage is due in ``last_due_in`` seconds, 0 if this is the last.
    """

    key: str
    since: float
    last_due_in: float
    claimed_until: float


@dataclass(frozen=True, slots=True)
class Missed:
    """A recorded missed message; times are Unix seconds."""

    id: str
    at: float
    kind: str
    chat: str
    found_at: float
    arrived_at: float | None
    replay: Replay | None
    replayed_at: float | None
    replay_detail: str


@dataclass(frozen=True, slots=True)
class LastAudit:
    """The last audit of a channel, and when its next audit and a delivery are due."""

    channel: str
    result: AuditResult | None
    detail: str
    received: int
    missed: int
    audited_at: float | None
    known_at: float | None
    due_at: float | None
    running: bool
    replay_at: float | None
    replay_why: str


class GatewayAudits:
    """Access to the rows of one gateway's audits."""

    def __init__(self, database: Database, gateway: str) -> None:
        self._database = database
        self._gateway = gateway

    def _audit(self, key: str) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the condition of a channel's audit."""
        return message_audit.c.gateway == self._gateway, message_audit.c.key == key

    def _missed(self, key: str) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the condition of a channel's missed messages."""
        return missed_message.c.gateway == self._gateway, missed_message.c.key == key


class AuditRepository(GatewayAudits):
    """The audits of one gateway in the state; each method raises StateError."""

    def __init__(self, database: Database, gateway: str, *, replays: bool = False) -> None:
        """``replays``: queue a delivery with each record of missed messages."""
        super().__init__(database, gateway)
        self._replays = replays

    @transaction
    def want(
        self,
        connection: sa.Connection,
        wishes: Collection[AuditWish],
        delays: tuple[float, float] = (FIRST_SECONDS, SECOND_SECONDS),
    ) -> None:
        """Queue two audits of each channel, after ``delays`` in seconds."""
        want_audits(connection, self._gateway, wishes, now(connection), delays=delays)

    @transaction
    def want_now(self, connection: sa.Connection, channel: str) -> None:
        """Queue an audit of a channel now, over the last day."""
        at = now(connection)
        wish = AuditWish(channel, at - DAY_SECONDS)
        want_audits(connection, self._gateway, [wish], at, delays=(0.0, 0.0))

    @transaction
    def want_daily(self, connection: sa.Connection) -> None:
        """Queue an audit of the whole gateway, unless one is queued."""
        mine = self._audit(_WHOLE)
        due_at = connection.scalar(sa.select(message_audit.c.due_at).where(*mine))
        if due_at is None:
            at = now(connection)
            wish = AuditWish(_WHOLE, at - DAY_SECONDS)
            delays = (FIRST_SECONDS, FIRST_SECONDS)
            want_audits(connection, self._gateway, [wish], at, delays=delays)

    @transaction
    def claim(self, connection: sa.Connection) -> list[DueAudit]:
        """Claim due audits; the whole gateway's comes first and alone."""
        row = message_audit.c
        at = now(connection)
        due = sa.select(row.key, row.since, row.due_at, row.last_due_at).where(
            row.gateway == self._gateway,
            (row.due_at <= at) | (row.due_at > at + LONGEST_WAIT_SECONDS),
        )
        found = connection.execute(due.order_by(row.key).limit(_TOGETHER)).all()
        if found and found[0].key == _WHOLE:
            found = found[:1]
        until = at + _CLAIM_SECONDS
        claimed = []
        for one in found:
            if self._hold(connection, one.key, one.due_at, until):
                day_ago = at - DAY_SECONDS
                since = one.since if (one.since or at) < at else day_ago
                last_in = (one.last_due_at or at) - at
                last_in = last_in if 0 < last_in <= LONGEST_WAIT_SECONDS else 0.0
                claimed.append(DueAudit(one.key, since, last_in, until))
        return claimed

    @transaction
    def renew(self, connection: sa.Connection, claimed: Sequence[DueAudit]) -> list[DueAudit]:
        """Extend claims, and return those still held."""
        until = now(connection) + _CLAIM_SECONDS
        return [
            replace(one, claimed_until=until)
            for one in claimed
            if self._hold(connection, one.key, one.claimed_until, until)
        ]

    def _hold(self, connection: sa.Connection, key: str, due_at: float, until: float) -> bool:
        """Claim the audit that is due at ``due_at``; return False if another program has it."""
        mine = (*self._audit(key), message_audit.c.due_at == due_at)
        update = sa.update(message_audit).where(*mine).values(due_at=until)
        return connection.execute(update).rowcount == 1

    @transaction
    def finish(
        self, connection: sa.Connection, due: DueAudit, *, next_at: float | None = None
    ) -> None:
        """End a claim without a result; the next audit is due at ``next_at``, if any.

        The last audit of an outage comes first: it finds channels that were not listed yet.
        """
        row = message_audit.c
        mine = (*self._audit(due.key), row.due_at == due.claimed_until)
        values: dict[str, Any] = {"due_at": next_at, "since": None, "last_due_at": next_at}
        if due.last_due_in:
            values = {"due_at": row.last_due_at}
        connection.execute(sa.update(message_audit).where(*mine).values(values))

    @transaction
    def record(
        self, connection: sa.Connection, channel: Channel, audit: Audit, due: DueAudit | None = None
    ) -> None:
        """Record an audit's result, and when the next one of the same outage is due."""
        at = now(connection)
        values: dict[str, Any] = {
            "channel": channel.id,
            "result": audit.result,
            "detail": audit.why[:500],
            "received": audit.received,
            "audited_at": at,
        }
        if audit.result is not AuditResult.UNKNOWN:
            earlier = self._missed_earlier(connection, channel.key, audit, at)
            missed = len(audit.missed) + earlier
            values |= {"known_at": at, "missed": missed} | ({} if missed else {"replay_why": ""})
        mine = self._audit(channel.key)
        query = sa.select(message_audit).where(*mine).with_for_update()
        row = connection.execute(query).mappings().first()
        if row is None:
            key = {"gateway": self._gateway, "key": channel.key, "channel": channel.id}
            add_missing(connection, message_audit, [key])
        elif due is not None and row["due_at"] == due.claimed_until:
            last = row["last_due_at"] or 0.0
            if audit.failed and last <= at < due.since + DAY_SECONDS + SECOND_SECONDS:
                last = at + SECOND_SECONDS
            again = at < last <= at + LONGEST_WAIT_SECONDS
            values |= dict.fromkeys(("due_at", "last_due_at"), last if again else None)
            values |= {} if again else {"since": None}
        if audit.missed and self._replays:
            values["replay_at"] = sa.func.coalesce(message_audit.c.replay_at, at)
        connection.execute(sa.update(message_audit).where(*mine).values(values))
        self._record_missed(connection, channel.key, audit, at)

    def _missed_earlier(self, connection: sa.Connection, key: str, audit: Audit, at: float) -> int:
        """Return how many messages other audits of the last day have found missing."""
        row = missed_message.c
        mine = (*self._missed(key), row.arrived_at.is_(None), row.found_at > at - DAY_SECONDS)
        still = row.replay.is_(None) | (row.replay != Replay.DELIVERED)
        found = set(connection.scalars(sa.select(row.id).where(*mine, still)))
        return len(found.difference(audit.arrived, (one.id for one in audit.missed)))

    def _record_missed(self, connection: sa.Connection, key: str, audit: Audit, at: float) -> None:
        row, arrived = missed_message.c, sorted(audit.arrived)
        for begin in range(0, len(arrived), _CHUNK):
            some = (row.arrived_at.is_(None), row.id.in_(arrived[begin : begin + _CHUNK]))
            arrive = sa.update(missed_message).where(*self._missed(key), *some)
            connection.execute(arrive.values(arrived_at=at))
        missed = [
            {"gateway": self._gateway, "key": key, "id": one.id, "at": one.at}
            | {"kind": one.kind, "chat": one.chat, "found_at": at}
            for one in audit.missed
        ]
        add_missing(connection, missed_message, missed)

    def last(self, key: str | None = None) -> dict[str, LastAudit]:
        """Return the last audits by key, of all channels or of one."""
        row = message_audit.c
        mine = [row.gateway == self._gateway, row.key != _WHOLE if key is None else row.key == key]
        with self._database.read() as connection:
            query = sa.select(message_audit, now_column(connection).label("now")).where(*mine)
            return {one["key"]: _last(one) for one in connection.execute(query).mappings()}

    def missed(self, key: str) -> list[Missed]:
        """Return a channel's missed messages of the last 30 days, newest first."""
        row = missed_message.c
        columns = [row[each.name] for each in fields(Missed)]
        query = sa.select(*columns).where(*self._missed(key)).order_by(row.at.desc())
        with self._database.read() as connection:
            found = [Missed(*one) for one in connection.execute(query)]
        return [replace(one, replay=one.replay and Replay(one.replay)) for one in found]

    def recorded(self, key: str, since: float) -> tuple[set[str], set[str]]:
        """Return the ids of missed messages that have not arrived, and of those delivered again."""
        row = missed_message.c
        query = sa.select(row.id, row.arrived_at, row.replay).where(
            *self._missed(key), row.at >= since
        )
        with self._database.read() as connection:
            found = connection.execute(query).all()
        return (
            {one.id for one in found if one.arrived_at is None},
            {one.id for one in found if one.replay == Replay.DELIVERED},
        )


def _last(row: Any) -> LastAudit:
    due_at = row["due_at"]
    # A queued audit is the last one of its outage, or due sooner than any claim.
    is_claimed = due_at != row["last_due_at"] and (due_at or 0.0) > row["now"] + FIRST_SECONDS
    running = due_at is not None and (due_at <= row["now"] or is_claimed)
    columns = {field.name: row[field.name] for field in fields(LastAudit) if field.name in row}
    columns["result"] = columns["result"] and AuditResult(columns["result"])
    return LastAudit(**columns, running=running)


# The work.


class MessageAuditor:
    """Runs one gateway's audits, one thread at a time."""

    def __init__(
        self,
        repository: AuditRepository,
        client: Gateway,
        messages: MessageSource | None,
        events: EventLog,
        on_end: Callable[[str, AuditResult], None],
        mode: AuditMode,
        *,
        clock: Clock,
        start: StartThread = start_thread,
    ) -> None:
        """``messages`` is a source with single messages, or None.

        ``on_end`` is called after each audit.
        """
        self.repository = repository
        self._client = client
        self._messages = messages
        self._events = events
        self._on_end = on_end
        self._mode = mode
        self._threads = OneAtATime(start)
        self._stopped = threading.Event()
        self._clock = clock
        self._listed: Mapping[str, Channel] = {}
        self._listed_at = float("-inf")

    @property
    def can_know(self) -> bool:
        """Whether gateway and message source allow a comparison."""
        return self._client.lists_messages and self._messages is not None

    @property
    def follows_outages(self) -> bool:
        """Whether an audit follows each outage."""
        return self._mode is not AuditMode.OFF and self.can_know

    def plan(self) -> None:
        """Queue the daily audit if configured; raise StateError."""
        if self._mode is AuditMode.DAILY and self.can_know:
            self.repository.want_daily()

    def begin(self) -> None:
        """Run due audits in a thread, unless one is running; without a thread, they stay due."""
        self._threads.begin(self._run)

    def stop(self) -> None:
        """Stop before the next page or statement; claimed audits become due again."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set() and (due := self.repository.claim()):
                self._work(due)
        except Interrupted:
            pass
        except (StateError, GatewayError) as error:
            _log.warning("messages cannot be audited: %s; trying again", error)
        except Exception:  # noqa: BLE001
            _log.exception("an audit of messages failed: internal error")

    def _work(self, due: Sequence[DueAudit]) -> None:
        listed = self._list({one.key for one in due})
        whole = due[0] if due[0].key == _WHOLE else None
        if whole is not None:
            wishes = [AuditWish(one.id, whole.since) for one in listed.values()]
            self.repository.want(wishes, (0.0, whole.last_due_in))
            next_at = whole.claimed_until - _CLAIM_SECONDS + DAY_SECONDS
            self.repository.finish(
                whole, next_at=next_at if self._mode is AuditMode.DAILY else None
            )
            return
        for one in due:
            if one.key not in listed:
                self.repository.finish(one)
        held = [one for one in due if one.key in listed]
        wanted = [(listed[one.key], one.since) for one in held]
        renewed_at = self._clock.monotonic()

        def go_on() -> None:
            nonlocal held, renewed_at
            if self._stopped.is_set():
                raise Interrupted
            if self._clock.monotonic() >= renewed_at + _RENEW_SECONDS:
                renewed_at = self._clock.monotonic()
                held = self.repository.renew(held)

        for channel, audit in self.audit(wanted, go_on):
            # Its claim may have been renewed, or lost.
            claimed = next((one for one in held if one.key == channel.key), None)
            self.record(channel, audit, claimed)

    def _list(self, keys: set[str]) -> Mapping[str, Channel]:
        """Return the gateway's channels; reuse a recent list if it has all of ``keys``."""
        is_old = self._clock.monotonic() >= self._listed_at + _LIST_SECONDS
        if is_old or not self._listed.keys() >= keys:
            if not self._client.can_spare_list():
                why = "requests_per_month is kept for repairs"
                raise GatewayError(Operation.LIST, GatewayErrorKind.LIMIT, why)
            listed_at = self._clock.monotonic()
            self._listed = {one.key: one for one in self._client.list_channels().channels}
            self._listed_at = listed_at
        return self._listed

    def record(self, channel: Channel, audit: Audit, due: DueAudit | None = None) -> None:
        """Record an audit, log missed messages, and call ``on_end``."""
        self.repository.record(channel, audit, due)
        if audit.missed:
            self._events.write(
                channel=channel.id,
                audit=audit.result,
                received=audit.received,
                missed=len(audit.missed),
                detail=audit.why or None,
            )
        self._on_end(channel.id, audit.result)

    def audit(
        self, wanted: Sequence[tuple[Channel, float]], go_on: Callable[[], None] = no_pause
    ) -> Iterator[tuple[Channel, Audit]]:
        """Yield each channel's audit since its Unix time; all share one read of the log.

        ``go_on`` is called after each channel, page of its messages and statement.
        """
        if self._messages is None:
            unknown = Audit(
                AuditResult.UNKNOWN, why="there is no message log, and no events are taken"
            )
            yield from ((channel, unknown) for channel, _ in wanted)
            return
        until = self._clock.time()
        since = min((moment for _, moment in wanted), default=until)
        try:
            # Read first, so that the lists need not be kept for the comparison.
            channels = [channel for channel, _ in wanted]
            delivered = self._messages.delivered(channels, since, go_on)
        except MessageLogError as error:
            unread = Audit(AuditResult.UNKNOWN, why=str(error), failed=True)
            yield from ((channel, unread) for channel, _ in wanted)
            return
        for channel, moment in wanted:
            yield channel, self._compare(channel, delivered, moment, until, go_on)
            go_on()

    def _compare(
        self,
        channel: Channel,
        delivered: Delivered,
        since: float,
        until: float,
        go_on: Callable[[], None],
    ) -> Audit:
        """Compare a channel's messages with those that arrived."""
        key = channel.key
        missing, again = self.repository.recorded(key, since)

        def absent(ids: Collection[str]) -> Collection[str]:
            go_on()
            return set(ids).difference(delivered.among(key, ids), again)

        try:
            found = self._client.received(channel, Wanted(since, until, absent))
            arrived = missing & again.union(delivered.among(key, missing))
        except (GatewayError, MessageLogError) as error:
            return Audit(AuditResult.UNKNOWN, why=str(error), failed=True)
        audit = judge(
            found, delivered, key, until=until, delivery_seconds=self._client.delivery_seconds
        )
        return replace(audit, arrived=frozenset(arrived))
