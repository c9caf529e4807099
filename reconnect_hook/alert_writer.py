"""Stores the raises that alerts cause before they are answered."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target
from reconnect_hook.models import (
    ROUND_SECONDS,
    STALE_SECONDS,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    escalates,
)
from reconnect_hook.repository import Raise, raise_intents, read_state
from zapwatch.db import Database, StateError, UnavailableError, now


class Disposition(enum.StrEnum):
    """Result of deduplication: the label ``result`` of whatsapp_reconnect_alerts_total."""

    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    COOLDOWN = "cooldown"
    IGNORED = "ignored"


class _PendingPayload:
    """One payload's alerts, their dispositions and raises, and the error that it met."""

    def __init__(self, alerts: Sequence[Alert]) -> None:
        self.alerts = alerts
        self.dispositions: list[Disposition] = []
        self.raises: list[Raise] = []
        self.error: StateError | None = None


class AlertWriter:
    """Accepts alerts for one gateway, concurrently with other hooks on the same database."""

    def __init__(
        self,
        database: Database,
        gateway: str,
        backoff: Backoff,
        wake: Callable[[], None] = lambda: None,
        asked_by: AskedBy = AskedBy.ALERTMANAGER,
    ) -> None:
        """Call ``wake`` after each commit of new work."""
        self._database = database
        self._gateway = gateway
        self._backoff = backoff
        self._wake = wake
        self._asked_by = asked_by

    def accept(self, alerts: Sequence[Alert]) -> list[Disposition]:
        """Store the raises of one payload's alerts, and return each alert's disposition.

        1. An alert without a target is ignored.
        2. A channel with resolved alerts only is rechecked, which ends its episode if it is
           connected.
        3. A channel with a firing alert gets one repair, unless one is queued or in progress
           (coalesced). After a recent call, the repair is delayed (cooldown).

        Raises StateError; then nothing of this payload is accepted.
        """
        (result,) = self.accept_all([alerts])
        if isinstance(result, StateError):
            raise result
        return result

    def accept_all(
        self, payloads: Sequence[Sequence[Alert]]
    ) -> list[list[Disposition] | StateError]:
        """Accept several payloads in one transaction, each on its own; raise nothing.

        One that the database rejects does not fail the others.
        """
        those = [_PendingPayload(alerts) for alerts in payloads]
        try:
            # In an alert storm nearly all alerts are known already and need no write.
            self._admit(those)
            self._store([one for one in those if one.raises])
        except StateError as error:
            for one in those:
                one.error = one.error or error
        return [one.error or one.dispositions for one in those]

    def _admit(self, payloads: list[_PendingPayload]) -> None:
        keys = {alert.target.key for one in payloads for alert in one.alerts if alert.target}
        if not keys:
            for one in payloads:
                one.dispositions = [Disposition.IGNORED] * len(one.alerts)
            return
        with self._database.read() as connection:
            # Read the look's number with the rows: raises must not appear newer than they are.
            gateway, rows = read_state(connection, self._gateway, keys)
            # Read the clock afterwards, so that no other hook's row lies in the future.
            at = now(connection)
        gateway = gateway.clamped(at)
        for row in rows.values():
            row.clamp(at, self._backoff.longest)
        for payload in payloads:
            self._admit_payload(payload, gateway, rows, at)

    def _admit_payload(
        self,
        payload: _PendingPayload,
        gateway: GatewayRow,
        rows: dict[str, ChannelRow],
        at: float,
    ) -> None:
        firing = {
            alert.target.key
            for alert in payload.alerts
            if alert.target and alert.status is AlertStatus.FIRING
        }
        for alert in payload.alerts:
            target, disposition, raised = alert.target, Disposition.IGNORED, None
            # Within a payload, a firing alert overrides a resolved one.
            if target and (alert.status is AlertStatus.FIRING or target.key not in firing):
                row = rows.get(target.key)
                disposition, raised = admit(
                    row, gateway, alert.status, target, at, self._backoff, self._asked_by
                )
            payload.dispositions.append(disposition)
            if raised is not None:
                payload.raises.append(raised)
                rows[raised.key] = raised.applied_to(rows.get(raised.key))

    def _store(self, payloads: list[_PendingPayload]) -> None:
        if not payloads:
            return
        try:
            self._raise(raised for payload in payloads for raised in payload.raises)
        except UnavailableError:
            raise
        except StateError as error:
            if len(payloads) == 1:
                payloads[0].error = error
                return
            # One payload that the database rejects must not fail the others.
            for payload in payloads:
                self._store([payload])
        else:
            self._wake()

    def _raise(self, raises: Iterable[Raise]) -> None:
        stored = list(raises)

        def work(connection: sa.Connection) -> None:
            raise_intents(connection, self._gateway, stored)

        self._database.transact(work)


def admit(
    row: ChannelRow | None,
    gateway: GatewayRow,
    status: AlertStatus,
    target: Target,
    now: float,
    backoff: Backoff,
    asked_by: AskedBy = AskedBy.ALERTMANAGER,
) -> tuple[Disposition, Raise | None]:
    """Return an alert's disposition and the raise to store, if any."""

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
    # A look in progress may predate the drop: raise again, so that it cannot close the row.
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
    """Raise a recheck, which ends the channel's episode if it is connected.

    Alerts also resolve when the list fails or the exporter restarts, and a silence alert when the
    session drops: only the gateway's list shows whether the channel is back.
    """
    if row is None or not row.listed or target.reason.is_probe:
        return Disposition.IGNORED, None
    if not row.is_open or row.intent is Intent.PROBE:
        return Disposition.ACCEPTED, recheck if row.has_episode else None
    waits = not row.in_work and row.next_at is not None and row.next_at > now
    return Disposition.ACCEPTED, recheck if waits else None


def _fresh_from(row: ChannelRow, target: Target, now: float) -> float:
    """Return the earliest time for the look that decides whether the alert is stale.

    An alert soon after a look that found the channel connected may predate that look, or report a
    new drop: it is kept, and a later look decides. Silent channels are listed as connected anyway.
    """
    if target.reason is not RepairCause.DISCONNECTED or row.has_episode or row.seen_at is None:
        return now
    return max(now, row.seen_at + STALE_SECONDS)
