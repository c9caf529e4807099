"""What single settings of a gateway can say, and how they are read."""

from __future__ import annotations

import enum

from zapwatch.channels import channel_key
from zapwatch.config.readers import Reader


class ProbeKind(enum.StrEnum):
    """How a channel is asked; the label ``kind`` of the probes' metrics."""

    OFF = "off"
    QUERY = "query"
    """A request to the gateway that WhatsApp's servers must answer."""
    DELIVERY = "delivery"
    """A query, and whether the newest message at the gateway is in the message log."""
    ECHO = "echo"
    """A message from another of the operator's channels, which must appear in the message log."""


class SilenceMode(enum.StrEnum):
    """How long a channel may be silent: as the settings say, or as it has shown itself."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


class AuditMode(enum.StrEnum):
    """When a channel's messages at the gateway are compared with those that arrived."""

    OFF = "off"
    INCIDENTS = "incidents"
    """After each outage."""
    DAILY = "daily"
    """Once a day, too."""


class ReplayMode(enum.StrEnum):
    """When missed messages are delivered again, where the operator has named a webhook for it."""

    MANUAL = "manual"
    """When a person asks."""
    AUTO = "auto"
    """After each audit that found some, too."""


def is_number(text: str) -> bool:
    """Whether a text can be a telephone number with its country code: 8 to 15 digits."""
    return text.isascii() and text.isdigit() and 8 <= len(text) <= 15


class MessageSourceKind(enum.StrEnum):
    """Who tells when a channel last had a message."""

    LOG = "log"
    """PixelHub's table ``webhook_raw_logs``."""
    EVENTS = "events"
    """The gateway itself, which posts its events to the exporter."""
    ACTIVITY = "activity"
    """The channel list, where the gateway reports activity or counts messages in it."""
    NONE = "none"
    """Nobody: a silent channel is not noticed."""

    @property
    def has_echoes(self) -> bool:
        """Whether the source shows single messages, so that echoes and histories are in it."""
        return self in {MessageSourceKind.LOG, MessageSourceKind.EVENTS}


_LONGEST_TEXT = 500  # characters of a message


def read_kinds(read: Reader, name: str, default: str | None) -> dict[str, ProbeKind]:
    """Return how channels are asked, by channel key."""
    kinds = {}
    for key, value, item in _by_channel(read.text(name, default)):
        if not key or value not in set(ProbeKind):
            raise read.wrong(
                name,
                f"must be channel=off, query, delivery or echo, as in loja=echo, not {item!r}",
            )
        kinds[key] = ProbeKind(value)
    return kinds


def read_numbers(read: Reader, name: str, default: str | None) -> dict[str, str]:
    """Return telephone numbers by channel key."""
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
    return numbers


def read_line(read: Reader, name: str, default: str | None) -> str:
    """Return a text of one line."""
    text = read.text(name, default)
    if not text.isprintable() or len(text) > _LONGEST_TEXT:
        raise read.wrong(name, f"must be one line of at most {_LONGEST_TEXT} characters")
    return text


def _by_channel(text: str) -> list[tuple[str, str, str]]:
    """Return key, value and the item itself for each ``channel=value`` of a list with commas."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    parts = [(*item.rpartition("=")[::2], item) for item in items]
    return [(channel_key(channel), value.strip(), item) for channel, value, item in parts]
