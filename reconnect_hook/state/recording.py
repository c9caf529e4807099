"""How the ends of repairs are written down: in their own rows, and in what is known of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from reconnect_hook.outcomes import FAILURES, RECOVERIES, Action, Job, Outcome, Result
from reconnect_hook.state.schema import channels, of_channel, repairs

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
