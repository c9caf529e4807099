"""What becomes of one alert, given its channel's row: decided without the database."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from reconnect_hook.alerts import AlertStatus, RepairCause, Target
from reconnect_hook.backoff import STALE_SECONDS, Backoff, escalates
from reconnect_hook.models import AskedBy, ChannelRow, GatewayRow, Intent

ROUND_SECONDS = 30.0
"""How often a gateway's list is asked for while a repair waits."""


class Disposition(enum.StrEnum):
    """What was done with an alert: the label ``result`` of whatsapp_reconnect_alerts_total."""

    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    COOLDOWN = "cooldown"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Raise:
    """What is to be wanted of a channel, at least; see repository.raise_intents()."""

    key: str
    channel: str
    intent: Intent
    cause: RepairCause
    since: float
    next_at: float
    raised_in: int
    asked_by: AskedBy = AskedBy.ALERTMANAGER

    def applied_to(self, row: ChannelRow | None) -> ChannelRow:
        """Return the row as the database will have it."""
        state = row or ChannelRow(self.key, self.channel)
        more = self.intent > state.intent
        dropped = self.intent == state.intent and escalates(state.cause, self.cause)
        return replace(
            state,
            since=self.since if more else state.since,
            asked_by=self.asked_by if more else state.asked_by,
            cause=self.cause if not state.in_work and (more or dropped) else state.cause,
            next_at=self.next_at if state.next_at is None else min(state.next_at, self.next_at),
            raised_in=max(state.raised_in, self.raised_in),
            intent=max(state.intent, self.intent),
        )


def admit(
    row: ChannelRow | None,
    gateway: GatewayRow,
    status: AlertStatus,
    target: Target,
    now: float,
    backoff: Backoff,
    asked_by: AskedBy = AskedBy.ALERTMANAGER,
) -> tuple[Disposition, Raise | None]:
    """Return how an alert is counted, and what is to be stored of it."""

    def raised(intent: Intent, next_at: float) -> Raise:
        return Raise(
            target.key,
            target.channel,
            intent,
            target.reason,
            now,
            next_at,
            gateway.look,
            asked_by,
        )

    if status is not AlertStatus.FIRING:
        return _admit_resolved(row, target, now, raised(Intent.RECHECK, now))
    if target.reason.is_probe:
        if row is not None and row.is_open:
            return Disposition.COALESCED, None
        return Disposition.ACCEPTED, raised(Intent.PROBE, now)
    state = row or ChannelRow(target.key, target.channel)
    if not state.is_open or state.intent < Intent.REPAIR:
        allowed = backoff.call_allowed_at(state, gateway, cause=target.reason)
        fresh = _fresh_from(state, target, now)
        if max(allowed, fresh) <= now:
            return Disposition.ACCEPTED, raised(Intent.REPAIR, now)
        next_at = max(fresh, min(allowed, now + ROUND_SECONDS))
        return Disposition.COOLDOWN, raised(Intent.REPAIR, next_at)
    # A look under way may have begun before the channel dropped: it must not close the row.
    again = raised(Intent.REPAIR, state.next_at or now) if state.raised_in < gateway.look else None
    allowed = backoff.call_allowed_at(state, gateway)
    if state.in_work or allowed <= now:
        return Disposition.COALESCED, again
    if escalates(state.cause, target.reason):
        allowed = min(allowed, (state.called_at or 0.0) + backoff.cooldown)
        again = raised(Intent.REPAIR, max(now, min(allowed, now + ROUND_SECONDS)))
    return Disposition.COALESCED if allowed <= now else Disposition.COOLDOWN, again


def _admit_resolved(
    row: ChannelRow | None, target: Target, now: float, recheck: Raise
) -> tuple[Disposition, Raise | None]:
    """Have the channel looked at, which ends its episode if it is connected.

    An alert also ends when the list fails or the exporter restarts, and a silent channel's when its
    session drops: only the gateway's list can tell whether the channel is back.
    """
    if row is None or not row.listed or target.reason.is_probe:
        return Disposition.IGNORED, None
    if not row.is_open or row.intent is Intent.PROBE:
        return Disposition.ACCEPTED, recheck if row.has_episode else None
    waits = not row.in_work and row.next_at is not None and row.next_at > now
    return Disposition.ACCEPTED, recheck if waits else None


def _fresh_from(row: ChannelRow, target: Target, now: float) -> float:
    """Return from when on a look tells whether the alert is older than the one that found it well.

    It may also be news, of a channel that dropped again: so it is kept, and then the channel is
    looked at. A silent channel is not well for being connected.
    """
    if target.reason is not RepairCause.DISCONNECTED or row.has_episode or row.seen_at is None:
        return now
    return max(now, row.seen_at + STALE_SECONDS)
