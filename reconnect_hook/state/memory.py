"""What is remembered beyond one repair: for the metrics, for ``check``, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from reconnect_hook.outcomes import Outcome
from reconnect_hook.state.database import Database, now
from reconnect_hook.state.schema import (
    channels,
    is_probe,
    paused,
    pauses,
    remember,
    repairs,
    unfinished,
)

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


class Memory:
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
