"""Records of probes, and their rate limits for all hooks on one state.

Each action is recorded first: a hook that dies in between has done less than recorded.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from reconnect_hook.models import AT_REST, ProbeOutcome
from reconnect_hook.repository import ensure_row, repairs_of, update_rows
from reconnect_hook.schema import channel as channels
from reconnect_hook.schema import echoes, repair_log
from reconnect_hook.schema import gateway as gateways
from zapwatch.channels import Channel
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.db import Database, delete_chunk, now, transaction

ECHO_GAP_SECONDS = 10.0
"""Shortest pause between any two echoes of a gateway, against bursts after an outage."""

_OPEN_SECONDS = 600.0  # in which an echo of a dead hook may still arrive

_DAY = 86400.0
_KEEP_SECONDS = 2 * _DAY


class LimitReason(enum.Enum):
    """Reason against sending an echo."""

    SUSPENDED = "an echo of it was lost, and it has not been repaired since"
    TOO_MANY = "it has taken part in as many echoes today as it may"
    TOO_SOON = "another echo has just been sent"
    SAME_NUMBER = "the other one has the same number, so it would write to itself"
    NO_NUMBER = "its number is not set, and the gateway does not report it"


_HEARD_ITSELF = (echoes.c.sender == echoes.c.receiver) & echoes.c.heard.is_(True)


def _takes_part(key: str) -> sa.ColumnElement[bool]:
    return (echoes.c.sender == key) | (echoes.c.receiver == key)


@dataclass(frozen=True, slots=True)
class Probed:
    """The last probe of a channel; ``at`` is Unix seconds by the database's clock."""

    channel: str
    kind: ProbeKind
    outcome: ProbeOutcome
    at: float
    webhook_fault: str = ""
    """Why its messages do not arrive (WebhookFault); empty if unknown."""


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo between two channel keys, as recorded."""

    sender: str
    receiver: str
    token: str
    seconds: float
    """Age in seconds since just before it was sent."""
    sent: bool
    """Whether it counts as lost if not heard; if False, it may be unsent or unlogged."""
    heard: bool | None
    """None: no result was recorded, since the hook died."""


class ProbeRepository:
    """One gateway's probes; each method is one transaction and raises StateError.

    Clock changes lift no limit. After the clock is set back, echoes recorded in the future count as
    sent now; after a jump ahead, each hook still counts its own echoes by the monotonic clock.
    """

    def __init__(self, database: Database, gateway: str, settings: ProbeSettings) -> None:
        self._database = database
        self.clock = database.clock
        self._gateway = gateway
        self._settings = settings
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, str, str]] = deque()

    @transaction
    def begin(self, connection: sa.Connection, listed: Channel) -> None:
        """Record the start of a probe without a queued row, as the command ``probe`` makes it."""
        ensure_row(connection, self._gateway, listed.key, listed.id, listed=True)
        update_rows(connection, self._gateway, [listed.key], probe_began_at=now(connection))

    def reserve(
        self, sender: str, receiver: str, token: str, *, again: bool = False
    ) -> LimitReason | None:
        """Record an echo between two channel keys before it is sent, or return why it must not be.

        ``again``: allow it although an echo of theirs was lost.
        """

        def work(connection: sa.Connection, at: float) -> LimitReason | None:
            mine = gateways.c.gateway == self._gateway
            last = connection.scalar(sa.select(gateways.c.echo_at).where(mine)) or 0.0
            # Compare-and-set: concurrent writes conflict, also on two Galera nodes.
            taken = sa.update(gateways).where(mine, gateways.c.echo_at == last)
            if connection.execute(taken.values(echo_at=at)).rowcount != 1:
                return LimitReason.TOO_SOON
            connection.execute(
                sa.update(echoes)
                .where(echoes.c.gateway == self._gateway, echoes.c.sent_at > at)
                .values(sent_at=at)
            )
            refusal = self._refusal(connection, at, {sender, receiver}, again=again)
            if refusal is None and at - min(last, at) < ECHO_GAP_SECONDS:
                refusal = LimitReason.TOO_SOON
            if refusal is not None:
                connection.execute(sa.update(gateways).where(mine).values(echo_at=min(last, at)))
                return refusal
            row = {"gateway": self._gateway, "sender": sender, "receiver": receiver}
            connection.execute(sa.insert(echoes).values(**row, token=token, sent_at=at))
            return None

        with self._lock:
            refusal = self._database.transact_at(work)
            if refusal is None:
                self._sent.append((self.clock.monotonic(), sender, receiver))
        return refusal

    def _refusal(
        self, connection: sa.Connection, at: float, keys: set[str], *, again: bool
    ) -> LimitReason | None:
        if not again and not keys.isdisjoint(self._suspended(connection)):
            return LimitReason.SUSPENDED
        since = self.clock.monotonic() - _DAY
        while self._sent and self._sent[0][0] < since:
            self._sent.popleft()
        for key in keys:
            lately = sa.select(sa.func.count()).where(
                echoes.c.gateway == self._gateway,
                echoes.c.sent_at > at - _DAY,
                _takes_part(key),
            )
            here = sum(key in pair for _, *pair in self._sent)
            if max(connection.scalar(lately) or 0, here) >= self._settings.echoes_per_day:
                return LimitReason.TOO_MANY
        return None

    @transaction
    def note_echo(self, connection: sa.Connection, /, token: str, **values: bool) -> None:
        """Record whether an echo was ``heard``, or surely ``sent``: others never count as lost."""
        mine = (echoes.c.gateway == self._gateway, echoes.c.token == token)
        connection.execute(sa.update(echoes).where(*mine).values(values))

    def earlier_echoes(self, key: str) -> list[Echo]:
        """Return the echoes since the channel's current probe began, oldest first.

        They exist if the hook that began the probe died. Recent echoes to this channel without a
        recorded result are included, from any probe.
        """
        with self._database.read() as connection:
            at = now(connection)
            began_at = connection.scalar(
                sa.select(channels.c.probe_began_at).where(
                    channels.c.gateway == self._gateway, channels.c.key == key
                )
            )
            since = at if began_at is None else min(began_at, at)
            never_noted = (
                echoes.c.heard.is_(None)
                & (echoes.c.receiver == key)
                & (echoes.c.sent_at > at - _OPEN_SECONDS)
            )
            return self._echoes(connection, at, (echoes.c.sent_at >= since) | never_noted)

    def lost_echoes(self, key: str, within: float) -> list[Echo]:
        """Return the lost echoes from or to a channel, sent within so many seconds."""
        with self._database.read() as connection:
            at = now(connection)
            return self._echoes(
                connection,
                at,
                echoes.c.sent_at > at - within,
                echoes.c.sent.is_(True),
                echoes.c.heard.is_(False),
                _takes_part(key),
            )

    def _echoes(
        self, connection: sa.Connection, at: float, *which: sa.ColumnElement[bool]
    ) -> list[Echo]:
        mine = echoes.c.gateway == self._gateway
        rows = connection.execute(sa.select(echoes).where(mine, *which).order_by(echoes.c.id))
        return [
            Echo(
                row.sender,
                row.receiver,
                row.token,
                max(0.0, at - row.sent_at),
                bool(row.sent),
                row.heard,
            )
            for row in rows
        ]

    def end(
        self,
        key: str,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        suspended: Iterable[Channel] = (),
    ) -> None:
        """Record a probe's outcome, and suspend echoes of ``suspended`` until their repair."""
        ended = (self._gateway, key, kind, outcome, suspended)
        self._database.transact_at(lambda connection, at: note_end(connection, at, *ended))

    @transaction
    def resume(self, connection: sa.Connection, keys: Collection[str]) -> None:
        """Lift the suspension of channels that were heard."""
        update_rows(connection, self._gateway, keys, suspended=False)

    def suspended(self) -> set[str]:
        """Return the keys of the channels with suspended echoes."""
        with self._database.read() as connection:
            return self._suspended(connection)

    def _suspended(self, connection: sa.Connection) -> set[str]:
        rows = sa.select(channels.c.key).where(
            channels.c.gateway == self._gateway, channels.c.suspended.is_(True)
        )
        return set(connection.scalars(rows))

    def repaired(self, seconds: float) -> set[str]:
        """Return the keys of channels with a repair in progress or ended within ``seconds``."""
        with self._database.read() as connection:
            lately = sa.select(repair_log.c.key).where(
                repairs_of(self._gateway),
                repair_log.c.finished_at > now(connection) - seconds,
            )
            under_way = sa.select(channels.c.key).where(
                channels.c.gateway == self._gateway,
                channels.c.phase.not_in(AT_REST),
            )
            return {*connection.scalars(lately), *connection.scalars(under_way)}

    def senders(self) -> tuple[set[str], dict[str, int]]:
        """Return suspended(), and each channel's number of echoes sent in the last 24 hours."""
        with self._database.read() as connection:
            sent = (
                sa.select(echoes.c.sender, sa.func.count())
                .where(echoes.c.gateway == self._gateway, echoes.c.sent_at > now(connection) - _DAY)
                .group_by(echoes.c.sender)
            )
            counts = {row[0]: row[1] for row in connection.execute(sent)}
            return self._suspended(connection), counts

    def last(self, key: str) -> Probed | None:
        """Return a channel's last probe, None before the first."""
        row = channels.c
        query = sa.select(row.channel, row.probe_kind, row.probe_outcome, row.probe_ended_at)
        mine = (row.gateway == self._gateway, row.key == key, row.probe_ended_at.is_not(None))
        with self._database.read() as connection:
            found = connection.execute(query.where(*mine)).first()
        if found is None:
            return None
        name, kind, outcome, at = found
        return Probed(name, ProbeKind(kind), ProbeOutcome(outcome), at)

    def webhook(self, key: str) -> tuple[str | None, float]:
        """Return the stored JSON of a channel's webhook, and the database's time (Unix seconds)."""
        with self._database.read() as connection:
            mine = (channels.c.gateway == self._gateway, channels.c.key == key)
            kept = connection.scalar(sa.select(channels.c.webhook).where(*mine))
            return kept, now(connection)

    @transaction
    def keep_webhook(self, connection: sa.Connection, key: str, text: str) -> None:
        """Store the JSON of a channel's webhook; the channel must have a row."""
        update_rows(connection, self._gateway, [key], webhook=text)

    def hears_itself(self, key: str) -> bool:
        """Whether an echo from the channel to itself was ever heard."""
        with self._database.read() as connection:
            mine = (echoes.c.gateway == self._gateway, echoes.c.sender == key)
            found = sa.select(echoes.c.id).where(*mine, _HEARD_ITSELF).limit(1)
            return connection.scalar(found) is not None


def note_end(
    connection: sa.Connection,
    at: float,
    gateway: str,
    key: str,
    kind: ProbeKind,
    outcome: ProbeOutcome,
    suspended: Iterable[Channel],
) -> None:
    """Record a probe's outcome in the caller's transaction; the channel must have a row."""
    values: dict[str, object] = {
        "probe_kind": kind,
        "probe_outcome": outcome,
        "probe_ended_at": at,
        "query_failed_at": None,
    }
    if outcome is ProbeOutcome.PASSED and kind is ProbeKind.ECHO:
        values["suspended"] = False
    update_rows(connection, gateway, [key], **values)
    for one in suspended:
        ensure_row(connection, gateway, one.key, one.id, listed=True)
        update_rows(connection, gateway, [one.key], suspended=True)


def prune_echoes(database: Database) -> bool:
    """Delete a chunk of old echoes of all gateways; return whether there may be more.

    Each channel's last heard echo to itself is kept. Raises StateError.
    """

    def work(connection: sa.Connection, at: float) -> bool:
        last = sa.select(sa.func.max(echoes.c.id)).where(_HEARD_ITSELF)
        kept = connection.scalars(last.group_by(echoes.c.gateway, echoes.c.sender)).all()
        old = echoes.c.sent_at < at - _KEEP_SECONDS
        return delete_chunk(connection, echoes, old & echoes.c.id.not_in(kept))

    return database.transact_at(work)
