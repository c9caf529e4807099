"""What is remembered beyond one repair: for the metrics, for ``check``, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from reconnect_hook import backoff
from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target
from reconnect_hook.dedup import Disposition
from reconnect_hook.models import Outcome
from reconnect_hook.probe_limits import Probed, all_probed
from reconnect_hook.schema import channels, is_probe, paused, pauses, remember, repairs, unfinished
from zapwatch.channels import channel_key
from zapwatch.db import Database, now

_HISTORY_SECONDS = 90 * 86400.0
_PRUNE_CHUNK = 1000  # rows a transaction, so that nobody waits long for one


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """What people are to know of a channel."""

    channel: str
    consecutive_failures: int
    qr_required: bool


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many repairs wait, how many are under way, and the channels that had some."""

    waiting: int
    in_flight: int
    channels: tuple[ChannelRecord, ...]
    paused: frozenset[str]
    """The channels whose repairs a person has paused."""


class ChannelRepository:
    """One gateway's memory; each method raises StateError."""

    def __init__(self, database: Database, gateway: str) -> None:
        self._database = database
        self._gateway = gateway

    def queue(self) -> QueueState:
        """Return what the metrics show."""
        with self._database.read() as connection:
            held = sa.func.count(repairs.c.holder)
            total, in_flight = connection.execute(
                sa.select(sa.func.count(), held).where(unfinished(self._gateway), ~is_probe())
            ).one()
            rows = connection.execute(
                sa.select(
                    channels.c.channel, channels.c.consecutive_failures, channels.c.qr_required
                ).where(channels.c.gateway == self._gateway)
            ).all()
            held_back = connection.scalars(
                sa.select(pauses.c.channel).where(paused(self._gateway, now(connection)))
            ).all()
        records = tuple(ChannelRecord(*row) for row in rows)
        return QueueState(total - in_flight, in_flight, records, frozenset(held_back))

    def prune(self) -> None:
        """Delete history of more than 90 days ago, in many small transactions."""
        while self._prune_some() == _PRUNE_CHUNK:
            pass

    def _prune_some(self) -> int:
        with self._database.write() as connection:
            old = repairs.c.finished_at < now(connection) - _HISTORY_SECONDS
            ids = connection.scalars(
                sa.select(repairs.c.id)
                .where(old)
                .order_by(repairs.c.finished_at)
                .limit(_PRUNE_CHUNK)
            ).all()
            if ids:
                connection.execute(sa.delete(repairs).where(repairs.c.id.in_(ids)))
        return len(ids)

    def outcome(self, repair_id: int) -> Outcome | None:
        """Return how a repair ended, None while it has not."""
        with self._database.read() as connection:
            found = connection.scalar(sa.select(repairs.c.outcome).where(repairs.c.id == repair_id))
        return Outcome(found) if found else None

    def latest_repair(self, key: str) -> int | None:
        """Return the id of the channel's newest repair, be it queued, under way or done."""
        with self._database.read() as connection:
            newest: int | None = connection.scalar(
                sa.select(sa.func.max(repairs.c.id)).where(
                    repairs.c.gateway == self._gateway,
                    repairs.c.key == key,
                    repairs.c.look_only.is_(False),
                )
            )
        return newest

    def note_unheard(self, unheard: Mapping[str, str]) -> dict[str, float]:
        """Note of which channels (key: id) no message is known, and return for how many seconds.

        Every other channel of the gateway is noted to have been heard.
        """
        with self._database.write() as connection:
            at = now(connection)
            noted = sa.select(channels.c.key, channels.c.channel, channels.c.unheard_since).where(
                channels.c.gateway == self._gateway, channels.c.unheard_since.is_not(None)
            )
            # What was noted in the future, by a clock that was put back since, is noted anew.
            since = {row.key: row for row in connection.execute(noted) if row.unheard_since <= at}
            for key in since.keys() - unheard.keys():
                row = since[key]
                remember(connection, self._gateway, key, row.channel, unheard_since=None)
            for key in unheard.keys() - since.keys():
                remember(connection, self._gateway, key, unheard[key], unheard_since=at)
        return {key: at - since[key].unheard_since if key in since else 0.0 for key in unheard}


class OperatorActions:
    """Takes what people ask of one gateway's channels; each method raises StateError."""

    def __init__(
        self, database: Database, gateway: str, intake: AlertWriter, wake: Callable[[], None]
    ) -> None:
        """Queue repairs by ``intake``; ``wake`` says that there is something in the queue."""
        self._database = database
        self._gateway = gateway
        self._intake = intake
        self._wake = wake

    def reconnect(self, channel: str) -> bool:
        """Have the channel repaired now; False where its repairs are paused.

        The repair goes through the same queue as that of an alert, so that there is one at a time;
        but it does not wait for the end of the time that a channel is left alone between two.
        """
        target = Target(channel, RepairCause.MANUAL)
        if self._is_paused(target.key):
            return False
        (verdict,) = self._intake.accept([Alert(AlertStatus.FIRING, target)])
        if verdict is Disposition.COOLDOWN:
            self._hasten(target.key)
        self._wake()
        return True

    def ask(self, channel: str) -> bool:
        """Have the channel asked now whether it is alive; False where its repairs are paused."""
        target = Target(channel, RepairCause.ASKED)
        if self._is_paused(target.key):
            return False
        self._intake.accept([Alert(AlertStatus.FIRING, target)])
        with self._database.write() as connection:
            at = now(connection)
            connection.execute(
                sa.update(repairs)
                .where(
                    unfinished(self._gateway),
                    repairs.c.active_key == target.key,
                    repairs.c.holder.is_(None),
                    is_probe(),
                )
                .values(reason=RepairCause.ASKED, accepted_at=at, due_at=at)
            )
        self._wake()
        return True

    def look(self, channel: str) -> None:
        """Have the list looked at, which ends the channel's episode if it is connected."""
        target = Target(channel, RepairCause.MANUAL)
        self._intake.accept([Alert(AlertStatus.RESOLVED, target)])
        self._wake()

    def pause(self, channel: str, seconds: float | None) -> None:
        """Call nothing for the channel for so long, or until resume() where that is None."""
        key = channel_key(channel)
        with self._database.write() as connection:
            until = None if seconds is None else now(connection) + seconds
            self._delete(connection, key)
            row = {"gateway": self._gateway, "key": key, "channel": channel, "until": until}
            connection.execute(sa.insert(pauses).values(row))

    def resume(self, channel: str) -> None:
        """End the pause; what waited for its end begins."""
        with self._database.write() as connection:
            self._delete(connection, channel_key(channel))
        self._wake()

    def _delete(self, connection: sa.Connection, key: str) -> None:
        connection.execute(
            sa.delete(pauses).where(pauses.c.gateway == self._gateway, pauses.c.key == key)
        )

    def _is_paused(self, key: str) -> bool:
        with self._database.read() as connection:
            row = sa.select(pauses.c.key).where(
                paused(self._gateway, now(connection)), pauses.c.key == key
            )
            return connection.scalar(row) is not None

    def _hasten(self, key: str) -> None:
        with self._database.write() as connection:
            at = now(connection)
            connection.execute(
                sa.update(repairs)
                .where(
                    unfinished(self._gateway),
                    repairs.c.active_key == key,
                    repairs.c.holder.is_(None),
                    repairs.c.look_only.is_(False),
                    repairs.c.due_at > at,
                )
                .values(reason=RepairCause.MANUAL, accepted_at=at, due_at=at)
            )


_ATTEMPTS = 200  # of one channel that are shown


@dataclass(frozen=True, slots=True)
class Waiting:
    """A repair in the queue; ``due_at`` None where it is under way. Times are Unix seconds."""

    id: int
    channel: str
    reason: RepairCause
    accepted_at: float
    due_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A repair that ended. Times are Unix seconds."""

    id: int
    key: str
    channel: str
    reason: RepairCause
    number: int
    """Within its episode, from 1."""
    action: str
    outcome: Outcome
    detail: str
    accepted_at: float
    finished_at: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of a channel."""

    channel: str
    failures: int
    qr_required: bool
    status: str | None
    """What the gateway said at the end of the last repair."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause of a channel's repairs; ``until`` is Unix seconds, None where it has no end."""

    channel: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Present:
    """The state as it is now, each part by channel key."""

    at: float
    """Unix seconds by the database's clock."""
    remembered: dict[str, Remembered]
    waiting: dict[str, Waiting]
    paused: dict[str, Paused]
    gateway_rests_until: float | None
    probed: dict[str, Probed] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    """The keys of those that are being asked whether they are alive."""


class RepairHistory:
    """Reads one gateway's state; each method is one transaction and raises StateError."""

    def __init__(self, database: Database, gateway: str) -> None:
        self._database = database
        self._gateway = gateway

    def present(self) -> Present:
        """Return what there is to know now."""
        with self._database.read() as connection:
            at = now(connection)
            known = connection.execute(
                sa.select(channels).where(channels.c.gateway == self._gateway)
            ).all()
            queue = connection.execute(
                sa.select(repairs).where(
                    unfinished(self._gateway), repairs.c.look_only.is_(False), ~is_probe()
                )
            ).all()
            held_back = connection.execute(sa.select(pauses).where(paused(self._gateway, at))).all()
            open_until = backoff.open_until(connection, self._gateway, at)
            probed = all_probed(connection, self._gateway)
            asked = connection.scalars(
                sa.select(repairs.c.key).where(
                    unfinished(self._gateway),
                    repairs.c.look_only.is_(False),
                    is_probe(),
                    repairs.c.holder.is_not(None) | (repairs.c.due_at <= at),
                )
            ).all()
        return Present(
            at,
            {
                row.key: Remembered(
                    row.channel, row.consecutive_failures, row.qr_required, row.status
                )
                for row in known
            },
            {row.key: _waiting(row, at) for row in queue},
            {row.key: Paused(row.channel, row.until) for row in held_back},
            open_until,
            probed,
            frozenset(asked),
        )

    def ended_since(self, moment: float) -> list[Attempt]:
        """Return the repairs that ended at ``moment`` (Unix seconds) or later, oldest first."""
        condition = (repairs.c.finished_at >= moment, repairs.c.gateway == self._gateway)
        return self._ended(sa.select(repairs).where(*condition).order_by(repairs.c.finished_at))

    def last_of_each(self) -> list[Attempt]:
        """Return the newest repair of each channel that ended."""
        newest = (
            sa.select(sa.func.max(repairs.c.id))
            .where(repairs.c.gateway == self._gateway, repairs.c.finished_at.is_not(None))
            .group_by(repairs.c.key)
        )
        return self._ended(sa.select(repairs).where(repairs.c.id.in_(newest)))

    def of_channel(self, key: str) -> list[Attempt]:
        """Return a channel's repairs that ended, the newest first, 200 at most."""
        mine = (repairs.c.gateway == self._gateway, repairs.c.key == key)
        return self._ended(
            sa.select(repairs)
            .where(*mine, repairs.c.finished_at.is_not(None))
            .order_by(repairs.c.id.desc())
            .limit(_ATTEMPTS)
        )

    def _ended(self, query: sa.Select[Any]) -> list[Attempt]:
        with self._database.read() as connection:
            return [_attempt(row) for row in connection.execute(query)]


def episodes(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Return attempts, which are the newest first, as their episodes, each the newest first."""
    found: list[list[Attempt]] = []
    for attempt in attempts:
        # Attempt 1 begins an episode, so what comes after it here belongs to the one before.
        if found and found[-1][-1].number > attempt.number:
            found[-1].append(attempt)
        else:
            found.append([attempt])
    return found


def _waiting(row: Any, at: float) -> Waiting:
    under_way = row.holder is not None and (row.lease_until or 0) > at
    due_at = None if under_way else row.due_at
    return Waiting(row.id, row.channel, RepairCause(row.reason), row.accepted_at, due_at)


def _attempt(row: Any) -> Attempt:
    return Attempt(
        row.id,
        row.key,
        row.channel,
        RepairCause(row.reason),
        row.attempt or 1,
        row.action or "",
        Outcome(row.outcome),
        row.detail or "",
        row.accepted_at,
        row.finished_at,
    )
