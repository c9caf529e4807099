"""Enumerated settings of a gateway, and readers of its settings by channel."""

from __future__ import annotations

import enum

from zapwatch.channels import ByName, channel_key
from zapwatch.config.readers import Reader


class ProbeKind(enum.StrEnum):
    """Kind of probe; the label ``kind`` of the probes' metrics."""

    OFF = "off"
    QUERY = "query"
    """A request to the gateway that WhatsApp's servers must answer."""
    DELIVERY = "delivery"
    """A query, and a check that the gateway's newest message is in the message log."""
    ECHO = "echo"
    """A message from another of the operator's channels, which must appear in the message log."""


class SilenceMode(enum.StrEnum):
    """Origin of the silence threshold: set in the settings, or learned."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


class AuditMode(enum.StrEnum):
    """Times of automatic audits."""

    OFF = "off"
    INCIDENTS = "incidents"
    """After each outage."""
    DAILY = "daily"
    """After each outage and once a day."""


class ReplayMode(enum.StrEnum):
    """Trigger of the delivery of missed messages, which requires the operator's webhook."""

    MANUAL = "manual"
    """On request."""
    AUTO = "auto"
    """On request, and after each audit that finds some."""


def is_number(text: str) -> bool:
    """Whether a text has the form of a telephone number with country code: 8 to 15 digits."""
    return text.isascii() and text.isdigit() and 8 <= len(text) <= 15


class MessageSourceKind(enum.StrEnum):
    """Message source: origin of the times of a channel's last messages."""

    LOG = "log"
    """PixelHub's table ``webhook_raw_logs``."""
    EVENTS = "events"
    """Events that the gateway posts to the exporter."""
    ACTIVITY = "activity"
    """The channel list, if it has times of activity or message counts."""
    NONE = "none"
    """No source: silent channels go undetected."""

    @property
    def has_echoes(self) -> bool:
        """Whether the source has single messages, as echoes and histories require."""
        return self in {MessageSourceKind.LOG, MessageSourceKind.EVENTS}


_LONGEST_TEXT = 500  # characters of a message


def read_kinds(read: Reader, name: str, default: str | None) -> ByName[ProbeKind]:
    """Return kinds of probes by channel."""
    kinds = {}
    for key, value, item in _by_channel(read.text(name, default)):
        if not key or value not in set(ProbeKind):
            raise read.wrong(
                name,
                f"must be channel=off, query, delivery or echo, as in loja=echo, not {item!r}",
            )
        kinds[key] = ProbeKind(value)
    return ByName(kinds)


def read_numbers(read: Reader, name: str, default: str | None) -> ByName[str]:
    """Return telephone numbers by channel."""
    numbers: dict[str, str] = {}
    for key, value, item in _by_channel(read.text(name, default)):
        if not key or not is_number(value):
            raise read.wrong(
                name,
                "must be channel=number, the number with its country code and digits only, as in "
                f"loja=5500000000001, not {item!r}",
            )
        if key in numbers:
            raise read.wrong(name, f"names one channel twice, the last time in {item!r}")
        if value in numbers.values():
            raise read.wrong(name, f"has one number for two channels, the last in {item!r}")
        numbers[key] = value
    return ByName(numbers)


def read_line(read: Reader, name: str, default: str | None) -> str:
    """Return one printable line of at most 500 characters."""
    text = read.text(name, default)
    if not text.isprintable() or len(text) > _LONGEST_TEXT:
        raise read.wrong(name, f"must be one line of at most {_LONGEST_TEXT} characters")
    return text


def _by_channel(text: str) -> list[tuple[str, str, str]]:
    """Split a comma-separated list of ``channel=value`` into (channel key, value, item)."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    parts = [(*item.rpartition("=")[::2], item) for item in items]
    return [(channel_key(channel), value.strip(), item) for channel, value, item in parts]
