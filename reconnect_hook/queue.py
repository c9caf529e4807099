"""The queue of repairs: who claims one holds it for a while, and nobody else has it meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from reconnect_hook import backoff
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.models import FAILURES, RECOVERIES, Action, Job, Outcome, Result
from reconnect_hook.schema import (
    channels,
    is_probe,
    may_call,
    of_channel,
    probes,
    remember,
    repairs,
    unfinished,
)
from zapwatch.db import Database, now

Ended = Sequence[tuple[Job, Result]]
"""Repairs and how each ended."""

_Values = tuple[str, dict[str, object]]  # a channel's key, and what is to be known of it

# Made once, since making a statement takes as long as executing it. A name must not be a column's.
_END = (
    sa.update(repairs)
    .where(repairs.c.id == sa.bindparam("of_id"))
    .values(
        active_key=None,
        due_at=None,
        repair_at=None,
        holder=None,
        lease_until=None,
        **{
            name: sa.bindparam(f"to_{name}")
            for name in ("finished_at", "channel", "attempt", "action", "outcome", "detail")
        },
    )
)
# Locked, since failures are counted from what is read here.
_KNOWN = (
    sa.select(channels)
    .where(
        channels.c.gateway == sa.bindparam("of_gateway"),
        channels.c.key.in_(sa.bindparam("of_keys", expanding=True)),
    )
    .with_for_update()
)
_EPISODE = (
    "channel",
    "attempts",
    "consecutive_failures",
    "qr_required",
    "called_at",
    "seen_at",
    "reason",
    "status",
    "restarting",
)
_REMEMBER = (
    sa.update(channels)
    .where(
        channels.c.gateway == sa.bindparam("of_gateway"), channels.c.key == sa.bindparam("of_key")
    )
    .values({name: sa.bindparam(f"to_{name}") for name in _EPISODE})
)


def end(connection: sa.Connection, ended: Ended, at: float) -> None:
    """End the rows of repairs."""
    rows = [
        {
            "of_id": job.id,
            "to_finished_at": at,
            "to_channel": result.channel,
            "to_attempt": job.attempt,
            "to_action": result.action,
            "to_outcome": result.outcome,
            "to_detail": result.detail[:500],
        }
        for job, result in ended
    ]
    if rows:
        connection.execute(_END, rows)


def remember_results(connection: sa.Connection, gateway: str, ended: Ended, at: float) -> set[str]:
    """Note what the outcomes mean for the episodes; return the keys that are remembered."""
    known = _known(connection, gateway, [job.key for job, _ in ended])
    new, changed = [], []
    for job, result in ended:
        before = known.get(job.key)
        if result.outcome is Outcome.UNKNOWN_CHANNEL:
            connection.execute(sa.delete(channels).where(*of_channel(gateway, job.key)))
        elif before is not None:
            changed.append((job.key, _episode(before, job, result, at)))
        elif result.listed:
            new.append((job.key, _episode(_NOTHING, job, result, at)))
    _store(connection, gateway, new, changed)
    return {key for key, _ in [*new, *changed]}


def note_well(connection: sa.Connection, gateway: str, ended: Ended, at: float) -> None:
    """Note that looks found their channels well, where no episode was open."""
    known = _known(connection, gateway, [job.key for job, _ in ended])
    new: list[_Values] = []
    changed: list[_Values] = []
    for job, result in ended:
        before = known.get(job.key)
        kept = {name: before[name] for name in _EPISODE} if before else _NOTHING
        values = {**kept, "channel": result.channel, "seen_at": at, "status": result.status}
        (changed if before else new).append((job.key, values))
    _store(connection, gateway, new, changed)


def _store(
    connection: sa.Connection, gateway: str, new: Sequence[_Values], changed: Sequence[_Values]
) -> None:
    if new:
        rows = [{"gateway": gateway, "key": key, **values} for key, values in new]
        connection.execute(sa.insert(channels), rows)
    if changed:
        updates = [
            {
                "of_gateway": gateway,
                "of_key": key,
                **{f"to_{name}": value for name, value in values.items()},
            }
            for key, values in changed
        ]
        connection.execute(_REMEMBER, updates)


_NOTHING = {
    "attempts": 0,
    "consecutive_failures": 0,
    "qr_required": False,
    "called_at": None,
    "seen_at": None,
    "reason": None,
    "restarting": False,
}


def _known(connection: sa.Connection, gateway: str, keys: Sequence[str]) -> dict[str, Any]:
    rows = connection.execute(_KNOWN, {"of_gateway": gateway, "of_keys": list(keys)})
    return {row["key"]: row for row in rows.mappings()}


def _episode(before: Any, job: Job, result: Result, at: float) -> dict[str, object]:
    """Return what is known of a channel's episode after a repair."""
    called = result.action is not Action.NONE or result.outcome in FAILURES
    recovered = result.outcome in RECOVERIES
    restarted = result.action is Action.RESTART and not result.restart_pending
    return {
        "channel": result.channel,
        "attempts": 0 if recovered else job.attempt,
        "consecutive_failures": (
            0 if recovered else before["consecutive_failures"] + (result.outcome in FAILURES)
        ),
        "qr_required": not recovered
        and (before["qr_required"] or result.outcome is Outcome.QR_REQUIRED),
        "called_at": at if called else before["called_at"],
        "seen_at": before["seen_at"] if called or not recovered else at,
        "reason": job.reason,
        "status": result.status,
        "restarting": before["restarting"] and not (recovered or restarted),
    }


def queue(
    connection: sa.Connection, gateway: str, job: Job, result: Result, at: float, due_at: float
) -> None:
    """Queue the next repair of a channel whose last one has just ended."""
    connection.execute(
        sa.insert(repairs).values(
            gateway=gateway,
            key=job.key,
            active_key=job.key,
            channel=result.channel,
            reason=job.reason,
            look_only=False,
            accepted_at=at,
            due_at=due_at,
        )
    )


LEASE_SECONDS = 30.0
"""A repair whose holder has not renewed its lease for so long is taken up by another."""

LOOK_AGAIN_SECONDS = 30.0
"""How long a look waits that could not be taken because the gateway did not answer."""

_CANDIDATES = 16  # read for one claim, of which others may be quicker to claim some


class Jobs:
    """One holder's side of one gateway's queue.

    Each method is one transaction and raises StateError; what it did not return was not stored.
    """

    def __init__(
        self,
        database: Database,
        gateway: str,
        pauses: Backoff,
        *,
        retry: bool = True,
        only_probes: bool = False,
    ) -> None:
        """Take repairs from the queue; those that fail come again by themselves with ``retry``.

        With ``only_probes``, take what only asks a channel, and else all but that.
        """
        self._mine = is_probe() if only_probes else ~is_probe()
        self._database = database
        self._gateway = gateway
        self._pauses = pauses
        self._retry = retry
        self._holder = uuid.uuid4().hex
        # What a commit has claimed whose answer got lost is in nobody's hands: its lease must end.
        self._in_hand: set[int] = set()

    def claim(self) -> Job | None:
        """Take the oldest repair that is due and that nobody holds.

        None where there is none, or where the gateway is to be left alone.
        """
        with self._database.read() as connection:
            at = now(connection)
            if not backoff.admits(connection, self._gateway, at):
                return None
            candidates = self._candidates(connection, at)
        for repair_id in candidates:
            for job in self.claim_these([repair_id]):
                return job
        return None

    def _candidates(self, connection: sa.Connection, at: float) -> list[int]:
        mine = repairs.c.gateway == self._gateway
        # What is due later than anything can was noted by a clock that has been put back since.
        far = at + 2 * self._pauses.longest
        for when in (repairs.c.due_at <= at, repairs.c.due_at > far):
            found = connection.scalars(
                sa.select(repairs.c.id)
                .where(mine, self._mine, when, self._unheld(at), may_call(self._gateway, at))
                .order_by(repairs.c.due_at, repairs.c.id)
                .limit(_CANDIDATES)
            ).all()
            if found:
                return list(found)
        return []

    def claim_these(self, repair_ids: Sequence[int]) -> list[Job]:
        """Take those of these repairs that are due and that nobody holds."""
        with self._database.write() as connection:
            at = now(connection)
            if not backoff.admits(connection, self._gateway, at, lock=True):
                return []
            far = at + 2 * self._pauses.longest
            due = (repairs.c.due_at <= at) | (repairs.c.due_at > far)
            allowed = may_call(self._gateway, at)
            rows = self._lock(connection, repair_ids, self._mine, due, self._unheld(at), allowed)
            if not rows:
                return []
            connection.execute(
                sa.update(repairs)
                .where(repairs.c.id.in_([row.id for row in rows]))
                .values(holder=self._holder, lease_until=at + LEASE_SECONDS)
            )
            known = {
                row.key: row
                for row in connection.execute(
                    sa.select(channels).where(
                        channels.c.gateway == self._gateway,
                        channels.c.key.in_([row.key for row in rows]),
                    )
                )
            }
        self._in_hand.update(row.id for row in rows)
        return [_job(row, known.get(row.key), at) for row in rows]

    def _lock(
        self,
        connection: sa.Connection,
        repair_ids: Sequence[int],
        *conditions: sa.ColumnElement[bool],
    ) -> Sequence[Any]:
        """Return those of these unfinished repairs for which the conditions hold.

        No other transaction changes them until this one has ended.
        """
        query = sa.select(repairs).where(
            repairs.c.id.in_(repair_ids), unfinished(self._gateway), *conditions
        )
        return connection.execute(query.with_for_update()).all()

    def renew(self) -> None:
        """Keep hold of everything that is in this holder's hands."""
        in_hand = repairs.c.id.in_(self._in_hand.copy())
        with self._database.write() as connection:
            connection.execute(
                sa.update(repairs)
                .where(in_hand, repairs.c.holder == self._holder, unfinished(self._gateway))
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
        return self.finish_all([(job, result)])[0]

    def finish_all(self, ended: Ended) -> list[bool]:
        """Record how repairs ended, all at once, and return what finish() would for each."""
        with self._database.write() as connection:
            at = now(connection)
            mine = self._still_held(connection, ended)
            end(connection, mine, at)
            self._end_halts(connection, mine)
            remembered = remember_results(connection, self._gateway, mine, at)
            self._retry_failed(connection, [one for one in mine if one[0].key in remembered], at)
            self._note_calls(connection, [result.gateway_failed for _, result in mine], at)
        self._in_hand.difference_update(job.id for job, _ in ended)
        recorded = {job.id for job, _ in mine}
        return [job.id in recorded for job, _ in ended]

    def _end_halts(self, connection: sa.Connection, ended: Ended) -> None:
        """Allow echoes again to channels that were repaired."""
        repaired = [
            job.key
            for job, result in ended
            if result.action is not Action.NONE or result.outcome in RECOVERIES
        ]
        if repaired:
            mine = (probes.c.gateway == self._gateway, probes.c.key.in_(repaired))
            connection.execute(
                sa.update(probes).where(*mine, probes.c.halted.is_(True)).values(halted=False)
            )

    def _still_held(self, connection: sa.Connection, ended: Ended) -> Ended:
        """Return what this holder still has of these, locked."""
        rows = self._lock(
            connection, [job.id for job, _ in ended], repairs.c.holder == self._holder
        )
        # Another thread of this holder may repair by now what this one just looked at.
        held = {(row.id, row.look_only, RepairCause(row.reason).is_probe) for row in rows}
        return [
            (job, result)
            for job, result in ended
            if (job.id, job.look_only, job.reason.is_probe) in held
        ]

    def _retry_failed(self, connection: sa.Connection, ended: Ended, at: float) -> None:
        """As long as the alert is fresh, let the next repair come without being asked for."""
        for job, result in ended:
            pause = self._pauses.retry(job.attempt) if self._retry else None
            if result.outcome in FAILURES and pause is not None:
                queue(connection, self._gateway, job, result, at, at + pause)

    def _note_calls(
        self, connection: sa.Connection, failed: Sequence[bool | None], at: float
    ) -> None:
        if False in failed:
            backoff.note(connection, self._gateway, at, failed=False)
        for _ in range(failed.count(True)):
            backoff.note(connection, self._gateway, at, failed=True)

    def look_later(self, job: Job) -> None:
        """Put a look back: the gateway could not be asked."""
        with self._database.write() as connection:
            at = now(connection)
            connection.execute(
                sa.update(repairs)
                .where(*self._held(job))
                .values(holder=None, lease_until=None, due_at=at + LOOK_AGAIN_SECONDS)
            )
            backoff.note(connection, self._gateway, at, failed=True)
        self._in_hand.discard(job.id)

    def put_back(self, job: Job, seconds: float = LOOK_AGAIN_SECONDS) -> None:
        """Put a job back, to be tried again in a while."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(repairs)
                .where(*self._held(job))
                .values(holder=None, lease_until=None, due_at=now(connection) + seconds)
            )
        self._in_hand.discard(job.id)

    def drop(self, job: Job) -> None:
        """Forget a probe that has ended; the gateway has answered."""
        with self._database.write() as connection:
            connection.execute(sa.delete(repairs).where(*self._held(job)))
            backoff.note(connection, self._gateway, now(connection), failed=False)
        self._in_hand.discard(job.id)

    def let_go(self, job: Job) -> None:
        """Keep no hold of what has become somebody else's."""
        self._in_hand.discard(job.id)

    def nothing_found(self, job: Job) -> None:
        """Forget a look that found nothing to do; a repair that waited behind it waits on."""
        with self._database.write() as connection:
            waits = connection.execute(
                sa.update(repairs)
                .where(*self._held(job), repairs.c.repair_at.is_not(None))
                .values(
                    look_only=False,
                    due_at=repairs.c.repair_at,
                    holder=None,
                    lease_until=None,
                )
            )
            if waits.rowcount == 0:
                connection.execute(sa.delete(repairs).where(*self._held(job)))
        self._in_hand.discard(job.id)

    def old_news(self, ended: Ended) -> None:
        """Forget looks that found their channels well, where no episode was open."""
        with self._database.write() as connection:
            at = now(connection)
            mine = self._still_held(connection, ended)
            if mine:
                ids = [job.id for job, _ in mine]
                connection.execute(sa.delete(repairs).where(repairs.c.id.in_(ids)))
                note_well(connection, self._gateway, mine, at)
                backoff.note(connection, self._gateway, at, failed=False)
        self._in_hand.difference_update(job.id for job, _ in ended)

    def begin_restart(self, job: Job, channel: str) -> bool:
        """Note that the channel's session is about to be thrown away; False where it must not be.

        From now on, whoever repairs the channel and finds no session makes one.
        """
        with self._database.write() as connection:
            if connection.scalar(sa.select(repairs.c.id).where(*self._held(job))) is None:
                return False
            remember(connection, self._gateway, job.key, channel, restarting=True)
        return True

    def _held(self, job: Job) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            repairs.c.id == job.id,
            repairs.c.holder == self._holder,
            # Another thread of this holder may repair by now what this one just looks at.
            repairs.c.look_only == job.look_only,
            is_probe() if job.reason.is_probe and not job.look_only else ~is_probe(),
            unfinished(self._gateway),
        )

    def _unheld(self, at: float) -> sa.ColumnElement[bool]:
        # A lease that ends later than any can is of a clock that has been put back since. What this
        # holder has is still in the hands of one of its threads, however late the renewal comes.
        over = (repairs.c.lease_until <= at) | (repairs.c.lease_until > at + 2 * LEASE_SECONDS)
        mine = (repairs.c.holder == self._holder) & repairs.c.id.in_(self._in_hand.copy())
        return repairs.c.holder.is_(None) | (over & ~mine)


def _job(row: Any, known: Any, at: float) -> Job:
    return Job(
        id=row.id,
        channel=known.channel if known else row.channel,
        key=row.key,
        reason=RepairCause(row.reason),
        look_only=row.look_only,
        waited=max(0.0, at - row.accepted_at),
        attempt=(known.attempts if known else 0) + 1,
        failures=known.consecutive_failures if known else 0,
        status=known.status if known else None,
        restarting=known.restarting if known else False,
    )


@dataclass(frozen=True, slots=True)
class DeferredJob:
    """A repair that waits for the end of a pause; ``called_at`` of the one before it."""

    id: int
    key: str
    reason: RepairCause
    status: str | None
    called_at: float | None
    failing: bool


class Backlog:
    """One gateway's queue; each method is one transaction and raises StateError."""

    def __init__(self, database: Database, gateway: str, pauses: Backoff) -> None:
        self._database = database
        self._gateway = gateway
        self._pauses = pauses

    def due(self) -> list[tuple[int, str]]:
        """Return id and key of what is due, not begun, and over once its channel is connected."""
        with self._database.read() as connection:
            at = now(connection)
            if not backoff.is_closed(connection, self._gateway):
                return []
            rows = connection.execute(
                sa.select(repairs.c.id, repairs.c.key)
                .where(
                    repairs.c.gateway == self._gateway,
                    repairs.c.due_at <= at,
                    repairs.c.holder.is_(None),
                    repairs.c.look_only | (repairs.c.reason == RepairCause.DISCONNECTED),
                    may_call(self._gateway, at),
                )
                .order_by(repairs.c.due_at, repairs.c.id)
            ).all()
        return [(row.id, row.key) for row in rows]

    def paused(self) -> list[DeferredJob]:
        """Return the repairs that wait for the end of a pause; none while the gateway rests."""
        with self._database.read() as connection:
            at = now(connection)
            if not backoff.admits(connection, self._gateway, at):
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
            DeferredJob(
                row.id,
                row.key,
                RepairCause(row.reason),
                row.status,
                row.called_at,
                row.consecutive_failures > 0,
            )
            for row in rows
        ]

    def skip_backoff(
        self, now_due: Collection[DeferredJob], after_cooldown: Collection[DeferredJob]
    ) -> None:
        """End pauses at once, or as soon as the cooldown after the last call is over."""
        with self._database.write() as connection:
            at = now(connection)
            soon = [(one, self._pauses.end(one.called_at, 1, at)) for one in after_cooldown]
            for one, due_at in [*((one, at) for one in now_due), *soon]:
                connection.execute(
                    sa.update(repairs).where(*self._waits(one, due_at)).values(due_at=due_at)
                )

    def look_at(self, some: Collection[DeferredJob]) -> None:
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

    def _waits(self, one: DeferredJob, until: float) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the condition that a repair still waits, for longer than ``until``."""
        return (
            repairs.c.id == one.id,
            unfinished(self._gateway),
            repairs.c.holder.is_(None),
            repairs.c.due_at > until,
        )
