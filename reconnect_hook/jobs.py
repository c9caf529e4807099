"""The queue of repairs: who claims one holds it for a while, and nobody else has it meanwhile."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from reconnect_hook.alerts import Reason
from reconnect_hook.database import (
    Database,
    channels,
    now,
    of_channel,
    remember,
    repairs,
    unfinished,
)
from reconnect_hook.outcomes import Action, Outcome, Result

LEASE_SECONDS = 30.0
"""A repair whose holder has not renewed its lease for so long is taken up by another."""

LOOK_AGAIN_SECONDS = 30.0
"""How long a look waits that could not be taken because the gateway did not answer."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed repair.

    ``waited`` is the seconds since it was accepted, ``attempt`` counts from 1 within the episode,
    ``failures`` is how many repairs in a row have failed before it.
    """

    id: int
    channel: str
    key: str
    reason: Reason
    look_only: bool
    waited: float
    attempt: int
    failures: int


class Jobs:
    """One holder's side of one gateway's queue.

    Each method is one transaction and raises StateError; what it did not return was not stored.
    """

    def __init__(self, database: Database, gateway: str) -> None:
        self._database = database
        self._gateway = gateway
        self._holder = uuid.uuid4().hex

    def claim(self) -> Job | None:
        """Take the oldest repair that nobody holds; None where there is none."""
        with self._database.read() as connection:
            free = sa.select(repairs.c.id).where(self._free(now(connection)))
            candidates = connection.scalars(free.order_by(repairs.c.id).limit(16)).all()
        for repair_id in candidates:
            with self._database.write() as connection:
                at = now(connection)
                taken = connection.execute(
                    sa.update(repairs)
                    .where(repairs.c.id == repair_id, self._free(at))
                    .values(holder=self._holder, lease_until=at + LEASE_SECONDS)
                )
                if taken.rowcount != 1:
                    continue
                # Read only now, since an alert may have made a repair of what was a look.
                row = connection.execute(sa.select(repairs).where(repairs.c.id == repair_id)).one()
                known = connection.execute(
                    sa.select(channels.c.attempts, channels.c.consecutive_failures).where(
                        *of_channel(self._gateway, row.key)
                    )
                ).one_or_none()
            return Job(
                id=row.id,
                channel=row.channel,
                key=row.key,
                reason=Reason(row.reason),
                look_only=row.look_only,
                waited=max(0.0, at - row.accepted_at),
                attempt=(known.attempts if known else 0) + 1,
                failures=known.consecutive_failures if known else 0,
            )
        return None

    def renew(self) -> None:
        """Keep hold of everything that this holder has claimed."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(repairs)
                .where(repairs.c.holder == self._holder, unfinished(self._gateway))
                .values(lease_until=now(connection) + LEASE_SECONDS)
            )

    def release(self) -> None:
        """Give back everything that this holder has claimed, for whoever comes next."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(repairs)
                .where(repairs.c.holder == self._holder, unfinished(self._gateway))
                .values(holder=None, lease_until=None)
            )

    def finish(self, job: Job, result: Result) -> bool:
        """Record how a repair ended; False where the lease was lost and another has it now."""
        with self._database.write() as connection:
            at = now(connection)
            done = connection.execute(
                sa.update(repairs)
                .where(*self._held(job))
                .values(
                    active_key=None,
                    holder=None,
                    lease_until=None,
                    finished_at=at,
                    channel=result.channel,
                    attempt=job.attempt,
                    action=result.action,
                    outcome=result.outcome,
                    detail=result.detail[:500],
                )
            )
            if done.rowcount != 1:
                return False
            self._remember(connection, job, result, at)
        return True

    def look_later(self, job: Job) -> None:
        """Put a look back: the gateway could not be asked."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(repairs)
                .where(*self._held(job))
                .values(
                    holder=None, lease_until=None, not_before=now(connection) + LOOK_AGAIN_SECONDS
                )
            )

    def drop(self, job: Job) -> None:
        """Forget a look that found nothing to do."""
        with self._database.write() as connection:
            connection.execute(sa.delete(repairs).where(*self._held(job)))

    def _remember(self, connection: sa.Connection, job: Job, result: Result, at: float) -> None:
        if result.outcome is Outcome.UNKNOWN_CHANNEL:
            connection.execute(sa.delete(channels).where(*of_channel(self._gateway, job.key)))
            return
        if not result.listed and not self._is_known(connection, job.key):
            return
        values: dict[str, object] = {"attempts": job.attempt}
        if result.action is not Action.NONE:
            values["called_at"] = at
        if result.outcome in {Outcome.RECONNECTED, Outcome.RECOVERED}:
            values |= {"attempts": 0, "consecutive_failures": 0, "qr_required": False}
        elif result.outcome is Outcome.QR_REQUIRED:
            values["qr_required"] = True
        elif result.outcome in {Outcome.FAILED, Outcome.STILL_DISCONNECTED}:
            values["consecutive_failures"] = channels.c.consecutive_failures + 1
        remember(connection, self._gateway, job.key, result.channel, **values)

    def _is_known(self, connection: sa.Connection, key: str) -> bool:
        row = sa.select(channels.c.key).where(*of_channel(self._gateway, key))
        return connection.scalar(row) is not None

    def _held(self, job: Job) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            repairs.c.id == job.id,
            repairs.c.holder == self._holder,
            # Another thread of this holder may repair by now what this one just looks at.
            repairs.c.look_only == job.look_only,
            unfinished(self._gateway),
        )

    def _free(self, at: float) -> sa.ColumnElement[bool]:
        """Return the condition for the rows that anybody may claim at ``at``."""
        unheld = repairs.c.holder.is_(None) | _is_over(repairs.c.lease_until, at, LEASE_SECONDS)
        due = _is_over(repairs.c.not_before, at, LOOK_AGAIN_SECONDS)
        return unfinished(self._gateway) & due & unheld


def _is_over(
    until: sa.ColumnElement[float | None], at: float, longest: float
) -> sa.ColumnElement[bool]:
    # What ends later than anything can was noted by a clock that has been put back since.
    return (until <= at) | (until > at + 2 * longest)
