"""What probes are made with, and why one is not made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reconnect_hook.probes.ear import Ear
from reconnect_hook.state.probes import ProbeBook
from whatsapp.channels import Channel
from whatsapp.gateways.gateway import Gateway
from whatsapp.probe_settings import ProbeKind, ProbeSettings


class PostponedError(Exception):
    """The probe can be made in a moment. ``str()`` says why not now."""


class UnableError(Exception):
    """The probe cannot be made. ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class ProbeMeans:
    """What probes are made with; ``wait`` pauses for some seconds, or raises Interrupted."""

    client: Gateway
    ear: Ear | None
    book: ProbeBook
    settings: ProbeSettings
    wait: Callable[[float], None] = time.sleep

    def kind_of(self, channel: Channel) -> ProbeKind:
        """Return how a channel is asked; without a log that tells of echoes, by query at most."""
        client = self.client
        kind = self.settings.kind_of(
            channel, can_query=client.can_query, asks_number=client.asks_number
        )
        if kind is ProbeKind.ECHO and self.ear is None:
            return ProbeKind.QUERY if client.can_query else ProbeKind.OFF
        return kind

    def number_of(self, channel: Channel) -> str | None:
        """Return the number to which echoes for a channel go; raise GatewayError."""
        number = self.settings.number_of(channel, None)
        return number or self.settings.number_of(channel, self.client.own_number(channel))

    def can_ask(self, key: str) -> bool:
        """Whether the settings and the gateway let a channel be asked at all."""
        wanted = self.settings.wanted(key)
        by_echo = wanted is ProbeKind.ECHO and self.ear is not None
        return wanted is not ProbeKind.OFF and (self.client.can_query or by_echo)
