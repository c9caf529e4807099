"""Alerts: a lenient parser of webhook payloads, deduplication, and the raises stored for them.

Alertmanager and Grafana send the payloads; each alert stands alone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from reconnect_hook.models import (
    PROBE_CAUSES,
    ROUND_SECONDS,
    SILENCES,
    STALE_SECONDS,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    RepairCause,
    escalates,
)
from reconnect_hook.repository import Raise, raise_intents, read_state
from zapwatch.channels import channel_key, is_usable_id
from zapwatch.db import Database, StateError, UnavailableError
from zapwatch.http import parse_json

MAX_ALERTS = 20_000
"""A larger payload is refused: 10 MiB of Alertmanager's own hold fewer alerts."""

_REASONS = {
    "WhatsAppChannelDisconnected": RepairCause.DISCONNECTED,
    "WhatsAppChannelSilent": RepairCause.SILENT,
    "WhatsAppChannelNeverHeard": RepairCause.NEVER_HEARD,
}


_OUTAGES = {"WhatsAppGatewayDown", "WhatsAppMessageLogDown"}


class AlertStatus(enum.StrEnum):
    """Status of an alert; INVALID if missing or unknown."""

    FIRING = "firing"
    RESOLVED = "resolved"
    INVALID = "invalid"


class PayloadError(Exception):
    """The body is not a valid payload. ``str()`` is one short line."""


class TooManyAlertsError(PayloadError):
    """The payload holds more than MAX_ALERTS alerts."""


@dataclass(frozen=True, slots=True)
class Target:
    """The channel that an alert wants repaired or probed, and the reason."""

    channel: str
    reason: RepairCause
    key: str = field(init=False)
    """The channel's key."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", channel_key(self.channel))


@dataclass(frozen=True, slots=True)
class Outage:
    """A period of possible message loss; the channel is empty for the whole gateway."""

    channel: str
    noticed_at: float
    """Start of the alert, Unix seconds."""
    silent: bool = False
    """Whether silence revealed it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; ``target`` is None if it is not for this hook."""

    status: AlertStatus
    target: Target | None
    gateway: str = ""
    """The label; without a target it may name no known gateway."""
    outage: Outage | None = None
    """The outage that this resolved alert ends."""


@dataclass(frozen=True, slots=True)
class Notification:
    """Status, name and summary of an alert, for people."""

    status: AlertStatus
    name: str
    summary: str


def parse_alerts(body: bytes, gateways: Collection[str]) -> list[Alert]:
    """Return all alerts of a payload; raise PayloadError.

    Alerts for this hook carry ``remediation="reconnect"`` or ``"probe"``, a ``gateway`` that it
    serves, and a usable ``channel``.
    """
    return [_alert(entry, gateways) for entry in _entries(body)]


def parse_notifications(body: bytes) -> list[Notification]:
    """Return a payload's alerts for people; raise PayloadError."""
    return [
        Notification(
            _status(entry),
            _text(entry, "labels", "alertname"),
            _text(entry, "annotations", "summary"),
        )
        for entry in _entries(body)
    ]


def _entries(body: bytes) -> list[Any]:
    try:
        payload = parse_json(body)
    except (ValueError, RecursionError):
        raise PayloadError("the body is not JSON") from None
    # Grafana Alerting sends the same format as version 1.
    if not isinstance(payload, dict) or payload.get("version") not in ("1", "4"):
        raise PayloadError("the body is not Alertmanager's webhook payload of version 4")
    entries = payload.get("alerts")
    if not isinstance(entries, list):
        raise PayloadError("the payload has no list of alerts")
    if len(entries) > MAX_ALERTS:
        raise TooManyAlertsError(f"the payload has more than {MAX_ALERTS} alerts")
    return entries


def _alert(entry: Any, gateways: Collection[str]) -> Alert:
    status = _status(entry)
    labels = ("gateway", "channel", "remediation", "alertname")
    gateway, channel, remediation, name = (_text(entry, "labels", label) for label in labels)
    if gateway not in gateways:
        return Alert(status, None, gateway)
    cause, is_usable = _REASONS.get(name), is_usable_id(channel)
    outage = None
    if status is AlertStatus.RESOLVED and (name in _OUTAGES if cause is None else is_usable):
        outage = _outage(entry, cause, channel)
    if status is AlertStatus.INVALID or remediation not in {"reconnect", "probe"} or not is_usable:
        return Alert(status, None, gateway, outage)
    if remediation == "probe":
        cause = RepairCause.SUSPECT
    # A repair by an operator's own rule counts as manual.
    return Alert(status, Target(channel, cause or RepairCause.MANUAL), gateway, outage)


def _outage(entry: Any, cause: RepairCause | None, channel: str) -> Outage | None:
    """Return the outage that a resolved alert ends; None if it does not show its start."""
    try:
        noticed_at = datetime.fromisoformat(entry["startsAt"]).timestamp()
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    return Outage(channel if cause else "", noticed_at, cause in SILENCES)


def _status(entry: Any) -> AlertStatus:
    try:
        return AlertStatus(entry["status"])
    except (TypeError, KeyError, ValueError):
        return AlertStatus.INVALID


def _text(entry: Any, group: str, name: str) -> str:
    """Return a label or annotation, empty if it is missing or not text."""
    values = entry.get(group) if isinstance(entry, dict) else None
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""


class Disposition(enum.StrEnum):
    """Result of deduplication: the label ``result`` of whatsapp_reconnect_alerts_total."""

    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    COOLDOWN = "cooldown"
    IGNORED = "ignored"


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
        self.listed_in: int | None = None
        """Number of the look that shows the alerts, which may also close their rows."""

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
        try:
            dispositions, raises = self._admit(payloads)
            # In an alert storm nearly all alerts are known already and need no write.
            if raises:
                store = partial(raise_intents, name=self._gateway, raises=raises)
                self._database.transact(store)
                self._wake()
        except StateError as error:
            if len(payloads) == 1 or isinstance(error, UnavailableError):
                return [error for _ in payloads]
            # Again from the start: what is coalesced may rest on a raise of the rejected one.
            return [self.accept_all([one])[0] for one in payloads]
        return [*dispositions]

    def _admit(
        self, payloads: Sequence[Sequence[Alert]]
    ) -> tuple[list[list[Disposition]], list[Raise]]:
        keys = {alert.target.key for one in payloads for alert in one if alert.target}
        if not keys:
            return [[Disposition.IGNORED] * len(one) for one in payloads], []
        with self._database.read() as connection:
            gateway, rows, at = read_state(connection, self._gateway, keys)
        if gateway.look == self.listed_in:
            gateway = replace(gateway, look=gateway.look - 1)
        raises: list[Raise] = []
        return [self._admit_payload(one, gateway, rows, at, raises) for one in payloads], raises

    def _admit_payload(
        self,
        alerts: Sequence[Alert],
        gateway: GatewayRow,
        rows: dict[str, ChannelRow],
        at: float,
        raises: list[Raise],
    ) -> list[Disposition]:
        """Return the alerts' dispositions; add their raises, also to ``rows``."""
        firing = {
            alert.target.key
            for alert in alerts
            if alert.target and alert.status is AlertStatus.FIRING
        }
        dispositions = []
        for alert in alerts:
            target, disposition, raised = alert.target, Disposition.IGNORED, None
            # Within a payload, a firing alert overrides a resolved one.
            if target and (alert.status is AlertStatus.FIRING or target.key not in firing):
                row = rows.get(target.key)
                disposition, raised = admit(
                    row, gateway, alert.status, target, at, self._backoff, self._asked_by
                )
            dispositions.append(disposition)
            if raised is not None:
                raises.append(raised)
                raised.apply_to(rows.setdefault(raised.key, ChannelRow(raised.key, raised.channel)))
        return dispositions


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
    if target.reason in PROBE_CAUSES:
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
    if row is None or not row.listed or target.reason in PROBE_CAUSES:
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
