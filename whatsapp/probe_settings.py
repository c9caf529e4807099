"""What an operator decides about asking quiet channels whether they are alive."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from whatsapp.channels import Channel


class ProbeKind(enum.StrEnum):
    """How a channel is asked; the label ``kind`` of the probes' metrics."""

    OFF = "off"
    QUERY = "query"
    """A request to the gateway that WhatsApp's servers must answer."""
    ECHO = "echo"
    """A message from another of the operator's channels, which must appear in the message log."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How, when and how often channels are asked. Keys are channel keys, numbers digits only."""

    kind: ProbeKind
    overrides: Mapping[str, ProbeKind]
    after_minutes: float
    pause_minutes: float
    echoes_per_day: int
    echo_numbers: Mapping[str, str] = field(repr=False)
    echo_text: str

    def number_of(self, channel: Channel, told: str | None) -> str | None:
        """Return the number to which echoes for a channel go; None where there is none.

        Only the operator, or the gateway for its own session, can say which number that is:
        ``told`` is what the gateway says.
        """
        own = told if told and is_number(told) else None
        return self.echo_numbers.get(channel.key, own)

    def wanted(self, key: str) -> ProbeKind:
        """Return how the operator wants a channel to be asked, possible or not."""
        return self.overrides.get(key, self.kind)

    def kind_of(self, channel: Channel, *, can_query: bool, asks_number: bool = False) -> ProbeKind:
        """Return how the channel is asked, on a gateway that has a safe query or has none.

        ``asks_number``: it can be asked for a number that its list does not tell.
        """
        if not channel.repairable:
            return ProbeKind.OFF
        wanted = self.wanted(channel.key)
        known = asks_number or self.number_of(channel, channel.number) is not None
        if wanted is ProbeKind.ECHO and not known:
            wanted = ProbeKind.QUERY
        if wanted is ProbeKind.QUERY and not can_query:
            return ProbeKind.OFF
        return wanted


def is_number(text: str) -> bool:
    """Whether a text can be a telephone number with its country code: 8 to 15 digits."""
    return text.isascii() and text.isdigit() and 8 <= len(text) <= 15
