"""What repairs are made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.models import Job
from reconnect_hook.probe_limits import ProbeOutcome, ProbeRepository
from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.config.gateway import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.source import MessageSource
from zapwatch.messages.webhook_log import MessageLogError


class PostponedError(Exception):
    """The probe can be made in a moment. ``str()`` says why not now."""


class UnableError(Exception):
    """The probe cannot be made. ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """What probes are made with.

    ``messages`` is a source that shows echoes, None where there is none; ``wait`` pauses for some
    seconds, or raises Interrupted.
    """

    client: Gateway
    messages: MessageSource | None
    book: ProbeRepository
    settings: ProbeSettings
    wait: Callable[[float], None] = time.sleep

    def kind_of(self, channel: Channel) -> ProbeKind:
        """Return how a channel is asked; without a log that tells of echoes, by query at most."""
        client = self.client
        kind = self.settings.kind_of(
            channel, can_query=client.can_query, asks_number=client.asks_number
        )
        if kind is ProbeKind.ECHO and self.messages is None:
            return ProbeKind.QUERY if client.can_query else ProbeKind.OFF
        return kind

    def number_of(self, channel: Channel) -> str | None:
        """Return the number to which echoes for a channel go; raise GatewayError."""
        number = self.settings.number_of(channel, None)
        return number or self.settings.number_of(channel, self.client.own_number(channel))

    def can_ask(self, key: str) -> bool:
        """Whether the settings and the gateway let a channel be asked at all."""
        wanted = self.settings.wanted(key)
        by_echo = wanted is ProbeKind.ECHO and self.messages is not None
        return wanted is not ProbeKind.OFF and (self.client.can_query or by_echo)


_OF_THE_WHOLE = frozenset(
    {
        GatewayErrorKind.TIMEOUT,
        GatewayErrorKind.CONNECTION,
        GatewayErrorKind.TLS,
        GatewayErrorKind.UNAUTHORIZED,
        GatewayErrorKind.HTML,
        GatewayErrorKind.LIMIT,
    }
)


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The program ends; the repair is left to whoever comes next."""


CountProbe = Callable[[str, ProbeKind, ProbeOutcome, float], None]
"""Is told of each probe that ended: the channel, how it was made, how it ended, its seconds."""


def _count_nothing(_channel: str, _kind: ProbeKind, _outcome: ProbeOutcome, _: float) -> None:
    pass


def _refuse_restart(_job: Job, _channel: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RepairContext:
    """What repairs are made with.

    ``silence_threshold`` gives a channel's threshold in seconds; ``wait`` pauses for some seconds,
    or raises Interrupted; ``begin_restart`` is told before a session is thrown away, and says
    whether that may be.
    """

    client: Gateway
    lists: ChannelListCache
    messages: MessageSource | None
    silence_threshold: Callable[[str], float]
    verify_seconds: float
    allow_restart: bool
    probing: ProbeContext | None = None
    count_probe: CountProbe = _count_nothing
    wait: Callable[[float], None] = time.sleep
    begin_restart: Callable[[Job, str], bool] = _refuse_restart

    @property
    def clock(self) -> Clock:
        """The clock of the lists, by whose moments they are asked for."""
        return self.lists.clock

    def heard_within(self, key: str, seconds: float) -> bool:
        """Whether a message of the channel came within so many seconds; False where it is unknown.

        It is the only proof that a silent channel is back.
        """
        try:
            return self.messages is not None and key in self.messages.recent(seconds).ages
        except MessageLogError:
            return False


def is_of_the_whole(error: GatewayError) -> bool:
    """Whether the gateway as a whole failed, and not one session of it.

    A list that fails does so for all. Else it is what comes from the network, a proxy or the check
    of the secret; the gateway's own JSON is about the session that was asked for.
    """
    of_the_whole = error.reason in _OF_THE_WHOLE and not error.one_channel
    return error.operation is Operation.LIST or of_the_whole


def words(error: GatewayError) -> str:
    """Return what the log says of a failure."""
    return f"{error} (request {error.request_id})"
