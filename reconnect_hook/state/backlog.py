"""What waits in the queue, for who looks at the list for all of it at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from reconnect_hook.alerts import Reason
from reconnect_hook.state import breaker
from reconnect_hook.state.database import Database, now
from reconnect_hook.state.episodes import Pauses
from reconnect_hook.state.schema import channels, is_probe, may_call, repairs, unfinished


@dataclass(frozen=True, slots=True)
class Paused:
    """A repair that waits for the end of a pause; ``called_at`` of the one before it."""

    id: int
    key: str
    reason: Reason
    status: str | None
    called_at: float | None
    failing: bool


class Backlog:
    """One gateway's queue; each method is one transaction and raises StateError."""

    def __init__(self, database: Database, gateway: str, pauses: Pauses) -> None:
        self._database = database
        self._gateway = gateway
        self._pauses = pauses

    def due(self) -> list[tuple[int, str]]:
        """Return id and key of what is due, not begun, and over once its channel is connected."""
        with self._database.read() as connection:
            at = now(connection)
            if not breaker.is_closed(connection, self._gateway):
                return []
            rows = connection.execute(
                sa.select(repairs.c.id, repairs.c.key)
                .where(
                    repairs.c.gateway == self._gateway,
                    repairs.c.due_at <= at,
                    repairs.c.holder.is_(None),
                    repairs.c.look_only | (repairs.c.reason == Reason.DISCONNECTED),
                    may_call(self._gateway, at),
                )
                .order_by(repairs.c.due_at, repairs.c.id)
            ).all()
        return [(row.id, row.key) for row in rows]

    def paused(self) -> list[Paused]:
        """Return the repairs that wait for the end of a pause; none while the gateway rests."""
        with self._database.read() as connection:
            at = now(connection)
            if not breaker.admits(connection, self._gateway, at):
                return []
            rows = connection.execute(
                sa.select(
                    repairs.c.id,
                    repairs.c.key,
                    repairs.c.reason,
                    channels.c.status,
                    channels.c.called_at,
                    channels.c.consecutive_failures,
                )
                .join_from(
                    repairs,
                    channels,
                    (channels.c.gateway == repairs.c.gateway) & (channels.c.key == repairs.c.key),
                )
                .where(
                    repairs.c.gateway == self._gateway,
                    repairs.c.due_at > at,
                    repairs.c.holder.is_(None),
                    repairs.c.look_only.is_(False),
                    ~is_probe(),
                    may_call(self._gateway, at),
                )
            ).all()
        return [
            Paused(
                row.id,
                row.key,
                Reason(row.reason),
                row.status,
                row.called_at,
                row.consecutive_failures > 0,
            )
            for row in rows
        ]

    def hasten(self, now_due: Collection[Paused], after_cooldown: Collection[Paused]) -> None:
        """End pauses at once, or as soon as the cooldown after the last call is over."""
        with self._database.write() as connection:
            at = now(connection)
            soon = [(one, self._pauses.end(one.called_at, 1, at)) for one in after_cooldown]
            for one, due_at in [*((one, at) for one in now_due), *soon]:
                connection.execute(
                    sa.update(repairs).where(*self._waits(one, due_at)).values(due_at=due_at)
                )

    def look_at(self, some: Collection[Paused]) -> None:
        """Have channels looked at before their pauses end, which go on where it finds nothing."""
        with self._database.write() as connection:
            at = now(connection)
            for one in some:
                connection.execute(
                    sa.update(repairs)
                    .where(*self._waits(one, at), repairs.c.look_only.is_(False))
                    # First the one that takes the other's value: MariaDB goes from left to right.
                    .ordered_values(
                        (repairs.c.repair_at, repairs.c.due_at),
                        (repairs.c.due_at, at),
                        (repairs.c.look_only, True),
                    )
                )

    def _waits(self, one: Paused, until: float) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the condition that a repair still waits, for longer than ``until``."""
        return (
            repairs.c.id == one.id,
            unfinished(self._gateway),
            repairs.c.holder.is_(None),
            repairs.c.due_at > until,
        )
