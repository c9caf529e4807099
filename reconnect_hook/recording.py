"""How the end of a repair is written down: in its own row, and in what is known of the channel."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from reconnect_hook.outcomes import FAILURES, RECOVERIES, Action, Job, Outcome, Result
from reconnect_hook.schema import channels, of_channel, remember, repairs


def end(
    connection: sa.Connection,
    held: Sequence[sa.ColumnElement[bool]],
    job: Job,
    result: Result,
    at: float,
) -> bool:
    """End a repair's row; False where it is not ``held`` any more."""
    done = connection.execute(
        sa.update(repairs)
        .where(*held)
        .values(
            active_key=None,
            due_at=None,
            repair_at=None,
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
    return done.rowcount == 1


def remember_result(
    connection: sa.Connection, gateway: str, job: Job, result: Result, at: float
) -> bool:
    """Note what the outcome means for the episode; whether the channel is remembered."""
    if result.outcome is Outcome.UNKNOWN_CHANNEL:
        connection.execute(sa.delete(channels).where(*of_channel(gateway, job.key)))
        return False
    if not result.listed and not _is_known(connection, gateway, job.key):
        return False
    values: dict[str, object] = {
        "attempts": job.attempt,
        "reason": job.reason,
        "status": result.status,
    }
    if result.action is not Action.NONE or result.outcome in FAILURES:
        values["called_at"] = at
    elif result.outcome is Outcome.RECOVERED:
        values["seen_at"] = at
    if result.action is Action.RESTART and not result.restart_pending:
        values["restarting"] = False
    if result.outcome in RECOVERIES:
        values |= {
            "attempts": 0,
            "consecutive_failures": 0,
            "qr_required": False,
            "restarting": False,
        }
    elif result.outcome is Outcome.QR_REQUIRED:
        values["qr_required"] = True
    elif result.outcome in FAILURES:
        values["consecutive_failures"] = channels.c.consecutive_failures + 1
    remember(connection, gateway, job.key, result.channel, **values)
    return True


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


def _is_known(connection: sa.Connection, gateway: str, key: str) -> bool:
    row = sa.select(channels.c.key).where(*of_channel(gateway, key))
    return connection.scalar(row) is not None
