"""The dependencies of probes, and the exceptions that end one without a finding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reconnect_hook.attempt_log import StepKind
from reconnect_hook.delivery import DeliveryCheck
from reconnect_hook.probe_limits import ProbeRepository
from zapwatch.channels import Channel
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import Gateway
from zapwatch.messages.source import MessageSource


class PostponedError(Exception):
    """The probe can resume in ``seconds``. ``str()`` is the reason."""

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(why)
        self.seconds = seconds


class QueryFailedOnceError(PostponedError):
    """A second query, a minute later, must confirm the failure."""


class UnableError(Exception):
    """The probe cannot run. ``str()`` is the reason."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The probe was cancelled, or the program ends."""


class NoteStep(Protocol):
    """Records a step of a probe."""

    def __call__(self, kind: StepKind, words: str = "", /) -> None:
        """Record the step with its details."""


def _note_nothing(_kind: StepKind, _words: str = "", /) -> None:
    """Discard the step."""


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """The dependencies of probes.

    ``messages`` is a source that shows echoes, or None; ``wait`` sleeps for some seconds or raises
    Interrupted; ``note`` records each step for the log; ``delivery`` is None if messages cannot be
    compared.
    """

    client: Gateway
    messages: MessageSource | None
    book: ProbeRepository
    settings: ProbeSettings
    wait: Callable[[float], None] = time.sleep
    note: NoteStep = _note_nothing
    delivery: DeliveryCheck | None = None

    def kind_of(self, channel: Channel) -> ProbeKind:
        """Return how a channel is probed; without a source of echoes, by query at most."""
        client = self.client
        kind = self.settings.kind_of(
            channel,
            can_query=client.can_query,
            can_compare=self.delivery is not None,
            asks_number=client.asks_number,
        )
        if kind is ProbeKind.ECHO and self.messages is None:
            return ProbeKind.QUERY if client.can_query else ProbeKind.OFF
        return kind

    def number_of(self, channel: Channel) -> str | None:
        """Return the phone number for echoes to a channel; raise GatewayError."""
        number = self.settings.number_of(channel, None)
        return number or self.settings.number_of(channel, self.client.own_number(channel))

    def can_ask(self, channel: Channel) -> bool:
        """Whether settings and gateway allow any probe of a channel."""
        wanted = self.settings.wanted(channel)
        by_echo = wanted is ProbeKind.ECHO and self.messages is not None
        return wanted is not ProbeKind.OFF and (self.client.can_query or by_echo)
