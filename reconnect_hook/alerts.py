"""Alertmanager's webhook payload, and Grafana's, parsed leniently: each alert counts for itself."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from zapwatch.channels import channel_key, is_usable_id
from zapwatch.http import parse_json


class RepairCause(enum.StrEnum):
    """Why a repair is made: the label ``reason`` of whatsapp_reconnect_attempts_total."""

    DISCONNECTED = "disconnected"
    SILENT = "silent"
    NEVER_HEARD = "never_heard"
    MANUAL = "manual"
    PROBE_FAILED = "probe_failed"
    ECHO_LOST = "echo_lost"
    # The next two are no repairs: they only ask the channel whether it is alive.
    SUSPECT = "suspect"
    ASKED = "asked"

    @property
    def is_probe(self) -> bool:
        """Whether the channel is only to be asked."""
        return self in {RepairCause.SUSPECT, RepairCause.ASKED}

    @property
    def is_silence(self) -> bool:
        """Whether the gateway may call the channel connected all the same."""
        return self in _SILENCES


_SILENCES = frozenset(
    {RepairCause.SILENT, RepairCause.NEVER_HEARD, RepairCause.PROBE_FAILED, RepairCause.ECHO_LOST}
)


MAX_ALERTS = 20_000
"""A payload with more is refused: not even 10 MiB of Alertmanager's own hold so many."""

_REASONS = {
    "WhatsAppChannelDisconnected": RepairCause.DISCONNECTED,
    "WhatsAppChannelSilent": RepairCause.SILENT,
    "WhatsAppChannelNeverHeard": RepairCause.NEVER_HEARD,
}


_OUTAGES = {"WhatsAppGatewayDown", "WhatsAppMessageLogDown"}
_SILENCE_ALERTS = {"WhatsAppChannelSilent", "WhatsAppChannelNeverHeard"}


class AlertStatus(enum.StrEnum):
    """Whether an alert fires; INVALID where it does not say so."""

    FIRING = "firing"
    RESOLVED = "resolved"
    INVALID = "invalid"


class PayloadError(Exception):
    """The body is no such payload. ``str()`` is one short line."""


class TooManyAlertsError(PayloadError):
    """There are more than MAX_ALERTS in it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The channel that an alert asks to be repaired, and why."""

    channel: str
    reason: RepairCause
    key: str = field(init=False)
    """The spelling-free identity of the channel."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", channel_key(self.channel))


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which messages may have been lost; the channel is empty for the whole gateway."""

    channel: str
    noticed_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; ``target`` is None where it is not for this hook."""

    status: AlertStatus
    target: Target | None
    gateway: str = ""
    """The label; what it holds need be no gateway's name where there is no target."""
    outage: Outage | None = None
    """The outage that has ended by it."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One alert as people read it: its status, name and summary."""

    status: AlertStatus
    name: str
    summary: str


def parse_alerts(body: bytes, gateways: Collection[str]) -> list[Alert]:
    """Return all alerts of a payload; raise PayloadError.

    Those for this hook carry ``remediation="reconnect"`` or ``"probe"``, the label ``gateway`` of
    one of the gateways that it serves, and a ``channel`` that can be one.
    """
    return [_alert(entry, gateways) for entry in _entries(body)]


def parse_notifications(body: bytes) -> list[Notification]:
    """Return what a payload has to tell people; raise PayloadError."""
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
    # Grafana's own alerting sends the same in its version 1.
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
    # A rule of the operator's own that asks for a repair is as good as the operator asking.
    reason = _REASONS.get(_text(entry, "labels", "alertname"), RepairCause.MANUAL)
    if remediation == "probe":
        reason = RepairCause.SUSPECT
    return Alert(status, Target(channel, reason), gateway, _outage(entry, status))


def _outage(entry: Any, status: AlertStatus) -> Outage | None:
    """Return the outage of which an alert says that it is over.

    That of a channel which was disconnected ends with its repair.
    """
    name = _text(entry, "labels", "alertname")
    is_silence = name in _SILENCE_ALERTS
    channel = _text(entry, "labels", "channel") if is_silence else ""
    is_known = is_usable_id(channel) if is_silence else name in _OUTAGES
    if status is not AlertStatus.RESOLVED or not is_known:
        return None
    try:
        return Outage(channel, datetime.fromisoformat(entry["startsAt"]).timestamp())
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _status(entry: Any) -> AlertStatus:
    try:
        return AlertStatus(entry["status"])
    except (TypeError, KeyError, ValueError):
        return AlertStatus.INVALID


def _text(entry: Any, group: str, name: str) -> str:
    """Return a label or annotation, and nothing where there is none that is text."""
    values = entry.get(group) if isinstance(entry, dict) else None
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""
