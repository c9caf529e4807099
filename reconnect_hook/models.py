"""What is to be repaired, and how it can end."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from reconnect_hook.alerts import RepairCause


class Outcome(enum.StrEnum):
    """The label ``outcome`` of whatsapp_reconnect_attempts_total."""

    RECOVERED = "recovered"
    RECONNECTED = "reconnected"
    REQUESTED = "requested"
    QR_REQUIRED = "qr_required"
    FAILED = "failed"
    STILL_DISCONNECTED = "still_disconnected"
    UNKNOWN_CHANNEL = "unknown_channel"


RECOVERIES = frozenset({Outcome.RECOVERED, Outcome.RECONNECTED})
"""These end an episode."""

FAILURES = frozenset({Outcome.FAILED, Outcome.STILL_DISCONNECTED})
"""These count as failures in a row."""


class Action(enum.StrEnum):
    """The strongest thing that was asked of the gateway, as the log names it.

    GET_QR and RECONNECT keep the pairing: which of them, says the adapter's ``reconnect_call``.
    RESTART throws it away.
    """

    NONE = "none"
    GET_QR = "getQr"
    RECONNECT = "reconnect"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one repair; ``channel`` is the gateway's own spelling if it is ``listed``."""

    channel: str
    outcome: Outcome
    action: Action = Action.NONE
    detail: str = ""
    """The gateway's own words where it refused; one line."""
    listed: bool = True
    """Whether the gateway is known to have such a channel: what alerts say proves nothing."""
    status: str | None = None
    """What the gateway last said of the channel."""
    gateway_failed: bool | None = None
    """Whether the gateway as a whole failed a call; None where that does not show."""
    restart_pending: bool = False
    """Whether the session may be gone, and no new one is known to be there."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed repair.

    ``waited`` is the seconds since it was accepted, ``attempt`` counts from 1 within the episode,
    ``failures`` is how many repairs in a row have failed before it, ``status`` is what the gateway
    said of the channel at the end of the last one, None where that is not known. ``restarting`` is
    true where a restart of the session was begun and not ended.
    """

    id: int
    channel: str
    key: str
    reason: RepairCause
    look_only: bool
    waited: float
    attempt: int
    failures: int
    status: str | None = None
    restarting: bool = False
