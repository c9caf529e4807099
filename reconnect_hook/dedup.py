"""What becomes of one alert, given what is known of its channel: decided without the database."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from reconnect_hook.alerts import AlertStatus, RepairCause, Target
from reconnect_hook.backoff import OLD_NEWS_SECONDS, Backoff


class Disposition(enum.StrEnum):
    """What was done with an alert: the label ``result`` of whatsapp_reconnect_alerts_total."""

    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    COOLDOWN = "cooldown"
    IGNORED = "ignored"


@dataclass(slots=True)
class ActiveJob:
    """A channel's row in the queue; ``id`` is None as long as it is not stored."""

    id: int | None
    channel: str
    reason: RepairCause
    look_only: bool
    accepted_at: float
    due_at: float
    repair_at: float | None = None
    held: bool = False
    changed: bool = False
    """Whether it must be stored."""
    let_go: bool = False
    """Whether whoever holds it loses hold."""


@dataclass(slots=True)
class ChannelState:
    """What is remembered of a channel, and its row in the queue if it has one."""

    listed: bool = False
    """Whether the gateway is known to have it."""
    episode: bool = False
    """Whether a repair has not brought it back yet, or a QR code waits."""
    attempts: int = 0
    called_at: float | None = None
    seen_at: float | None = None
    """When a look last found it well."""
    reason: RepairCause | None = None
    """Of the last repair."""
    active: ActiveJob | None = None


def admit(
    known: ChannelState,
    status: AlertStatus,
    target: Target,
    at: float,
    pauses: Backoff,
    *,
    keep: bool,
) -> Disposition:
    """Return the verdict on an alert, and change ``known.active`` to what is to be stored.

    With ``keep``, an alert that comes during a pause is kept until its end.
    """
    if status is AlertStatus.FIRING:
        return _admit_firing(known, target, at, pauses, keep=keep)
    return _admit_resolved(known, target, at)


def _admit_firing(
    known: ChannelState, target: Target, at: float, pauses: Backoff, *, keep: bool
) -> Disposition:
    """Give the channel one repair, now or at the end of its pause."""
    active = known.active
    if target.reason.is_probe:
        return _admit_probe(known, target, at)
    asks = active is not None and active.reason.is_probe and not active.look_only
    if active is not None and not active.look_only and not asks:
        return _admit_another(known, active, target, at, pauses)
    grown = known.attempts
    if _is_worse(target.reason, known.reason):
        grown = 1
    due_at = pauses.end(known.called_at, grown, at)
    old_until = _old_news_until(known, target, at) if keep else at
    is_old = old_until > due_at
    due_at = max(due_at, old_until)
    if due_at > at and not keep:
        return Disposition.COOLDOWN
    if active is None:
        known.active = _row(target, at, due_at, look_only=is_old)
        known.active.repair_at = due_at if is_old else None
    elif asks:
        # Whoever is asking it loses hold: what it is told by now is too late.
        active.look_only = is_old
        active.repair_at = due_at if is_old else None
        active.reason = target.reason
        active.accepted_at, active.due_at = at, due_at
        active.changed = active.let_go = True
    elif due_at > at:
        if active.repair_at is None:
            active.repair_at = due_at
            active.reason = target.reason
            active.accepted_at = at
            active.changed = True
    else:
        # Whoever is just looking loses hold of it, and leaves the repair alone.
        active.look_only = False
        active.repair_at = None
        active.reason = target.reason
        active.accepted_at = active.due_at = at
        active.changed = active.let_go = True
    return Disposition.ACCEPTED if due_at <= at else Disposition.COOLDOWN


def _admit_probe(known: ChannelState, target: Target, at: float) -> Disposition:
    """Have the channel asked, unless it is being asked, looked at or repaired.

    How often it may be is for whoever begins: see ProbeBook.
    """
    if known.active is not None:
        return Disposition.COALESCED
    known.active = _row(target, at, at, look_only=False)
    return Disposition.ACCEPTED


def _admit_another(
    known: ChannelState, active: ActiveJob, target: Target, at: float, pauses: Backoff
) -> Disposition:
    """Let a repair that is there already do for this alert too."""
    if active.held or active.due_at <= at:
        return Disposition.COALESCED
    if _is_worse(target.reason, active.reason):
        active.reason = target.reason
        active.due_at = min(active.due_at, pauses.end(known.called_at, 1, at))
        active.changed = True
    return Disposition.COALESCED if active.due_at <= at else Disposition.COOLDOWN


def _admit_resolved(known: ChannelState, target: Target, at: float) -> Disposition:
    """Have the channel looked at, which ends its episode if it is connected.

    An alert also ends when the list fails or the exporter restarts, and a silent channel's when its
    session drops: only the gateway's list can tell whether the channel is back.
    """
    if not known.listed or target.reason.is_probe:
        return Disposition.IGNORED
    active = known.active
    if active is None:
        if known.episode:
            known.active = _row(target, at, at, look_only=True)
    elif active.reason.is_probe and not active.look_only:
        if known.episode:
            active.look_only = True
            active.reason = target.reason
            active.accepted_at = active.due_at = at
            active.changed = active.let_go = True
    elif not active.look_only and not active.held and active.due_at > at:
        active.look_only = True
        active.repair_at = active.due_at
        active.due_at = at
        active.changed = True
    return Disposition.ACCEPTED


def _old_news_until(known: ChannelState, target: Target, at: float) -> float:
    """Return until when an alert may be older than the look that has just found its channel well.

    It may also be news, of a channel that dropped again: so it is kept, as in a pause, and then
    the channel is looked at. A silent channel is not well for being connected.
    """
    seen_at = known.seen_at
    if target.reason is not RepairCause.DISCONNECTED or known.episode or seen_at is None:
        return at
    # A look in the future was noted by a clock that has been put back since.
    return seen_at + OLD_NEWS_SECONDS if seen_at <= at else at


def _is_worse(now: RepairCause, before: RepairCause | None) -> bool:
    """Whether a channel that was silent has dropped since: another trouble, so no longer pause.

    Not the other way round: an old notification may say "silent" long after the drop.
    """
    return now is RepairCause.DISCONNECTED and before is not None and before.is_silence


def _row(target: Target, at: float, due_at: float, *, look_only: bool) -> ActiveJob:
    return ActiveJob(
        id=None,
        channel=target.channel,
        reason=target.reason,
        look_only=look_only,
        accepted_at=at,
        due_at=due_at,
        changed=True,
    )
