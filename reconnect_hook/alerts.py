"""Lenient parser of Alertmanager's and Grafana's webhook payload: each alert stands alone."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from zapwatch.channels import channel_key, is_usable_id
from zapwatch.http import parse_json


class RepairCause(enum.StrEnum):
    """Reason for a repair: the label ``reason`` of whatsapp_reconnect_attempts_total."""

    DISCONNECTED = "disconnected"
    SILENT = "silent"
    NEVER_HEARD = "never_heard"
    MANUAL = "manual"
    PROBE_FAILED = "probe_failed"
    ECHO_LOST = "echo_lost"
    # The next two only probe the channel.
    SUSPECT = "suspect"
    ASKED = "asked"

    @property
    def is_probe(self) -> bool:
        """Whether it asks for a probe only."""
        return self in {RepairCause.SUSPECT, RepairCause.ASKED}

    @property
    def is_silence(self) -> bool:
        """Whether the gateway may still list the channel as connected."""
        return self in _SILENCES


_SILENCES = frozenset(
    {RepairCause.SILENT, RepairCause.NEVER_HEARD, RepairCause.PROBE_FAILED, RepairCause.ECHO_LOST}
)


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
    gateway = _text(entry, "labels", "gateway")
    channel = _text(entry, "labels", "channel")
    remediation = _text(entry, "labels", "remediation")
    if (
        status is AlertStatus.INVALID
        or remediation not in {"reconnect", "probe"}
        or gateway not in gateways
        or not is_usable_id(channel)
    ):
        return Alert(status, None, gateway, _outage(entry, status) if gateway in gateways else None)
    # A repair by an operator's own rule counts as manual.
    reason = _REASONS.get(_text(entry, "labels", "alertname"), RepairCause.MANUAL)
    if remediation == "probe":
        reason = RepairCause.SUSPECT
    return Alert(status, Target(channel, reason), gateway, _outage(entry, status))


def _outage(entry: Any, status: AlertStatus) -> Outage | None:
    """Return the outage that a resolved alert ends, or None."""
    if status is not AlertStatus.RESOLVED:
        return None
    name = _text(entry, "labels", "alertname")
    reason = _REASONS.get(name)
    channel = "" if reason is None else _text(entry, "labels", "channel")
    is_known = name in _OUTAGES if reason is None else is_usable_id(channel)
    if not is_known:
        return None
    silent = reason is not None and reason.is_silence
    try:
        return Outage(channel, datetime.fromisoformat(entry["startsAt"]).timestamp(), silent)
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


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
