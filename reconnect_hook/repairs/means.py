"""What repairs are made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reconnect_hook.outcomes import Job
from reconnect_hook.probes.means import ProbeMeans
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.state.probes import ProbeOutcome
from whatsapp.gateways.gateway import Gateway, GatewayError, Operation, Reason
from whatsapp.message_sources import Messages
from whatsapp.probe_settings import ProbeKind

_OF_THE_WHOLE = frozenset(
    {Reason.TIMEOUT, Reason.CONNECTION, Reason.TLS, Reason.UNAUTHORIZED, Reason.HTML}
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
class Means:
    """What repairs are made with.

    ``silence_threshold`` gives a channel's threshold in seconds; ``wait`` pauses for some seconds,
    or raises Interrupted; ``begin_restart`` is told before a session is thrown away, and says
    whether that may be.
    """

    client: Gateway
    lists: ChannelLists
    messages: Messages | None
    silence_threshold: Callable[[str], float]
    verify_seconds: float
    allow_restart: bool
    probing: ProbeMeans | None = None
    count_probe: CountProbe = _count_nothing
    wait: Callable[[float], None] = time.sleep
    begin_restart: Callable[[Job, str], bool] = _refuse_restart

    def heard_within(self, key: str, seconds: float) -> bool:
        """Whether a message of the channel has come within so many seconds, if anybody can tell.

        It is the only proof that a silent channel is back.
        """
        return self.messages is not None and self.messages.heard_within(key, seconds)


def is_of_the_whole(error: GatewayError) -> bool:
    """Whether the gateway as a whole failed, and not one session of it.

    A list that fails does so for all. Else it is what comes from the network, a proxy or the check
    of the secret; the gateway's own JSON is about the session that was asked for.
    """
    return error.operation is Operation.LIST or error.reason in _OF_THE_WHOLE


def words(error: GatewayError) -> str:
    """Return what the log says of a failure."""
    return f"{error} (request {error.request_id})"
