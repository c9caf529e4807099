"""What the state tells people: episodes, places in the queue, and what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from reconnect_hook.alerts import Reason
from reconnect_hook.outcomes import Outcome
from reconnect_hook.state import breaker
from reconnect_hook.state.database import Database, now
from reconnect_hook.state.probes import Probed, all_probed
from reconnect_hook.state.schema import channels, is_probe, paused, pauses, repairs, unfinished

_ATTEMPTS = 200  # of one channel that are shown


@dataclass(frozen=True, slots=True)
class Waiting:
    """A repair in the queue; ``due_at`` None where it is under way. Times are Unix seconds."""

    id: int
    channel: str
    reason: Reason
    accepted_at: float
    due_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A repair that ended. Times are Unix seconds."""

    id: int
    key: str
    channel: str
    reason: Reason
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


class History:
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
            rests_until = breaker.rests_until(connection, self._gateway, at)
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
            rests_until,
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
    return Waiting(row.id, row.channel, Reason(row.reason), row.accepted_at, due_at)


def _attempt(row: Any) -> Attempt:
    return Attempt(
        row.id,
        row.key,
        row.channel,
        Reason(row.reason),
        row.attempt or 1,
        row.action or "",
        Outcome(row.outcome),
        row.detail or "",
        row.accepted_at,
        row.finished_at,
    )
