"""How a repair can end."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """The label ``outcome`` of whatsapp_reconnect_attempts_total."""

    RECOVERED = "recovered"
    RECONNECTED = "reconnected"
    REQUESTED = "requested"
    QR_REQUIRED = "qr_required"
    FAILED = "failed"
    STILL_DISCONNECTED = "still_disconnected"
    UNKNOWN_CHANNEL = "unknown_channel"


class Action(enum.StrEnum):
    """The strongest thing that was asked of the gateway, as the log names it."""

    NONE = "none"
    GET_QR = "getQr"
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
