"""A channel's row, what can be wanted of it, and how a repair can end."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from reconnect_hook.alerts import RepairCause


class Intent(enum.IntEnum):
    """What is wanted of a channel; the greater takes the place of the smaller."""

    NONE = 0
    PROBE = 1
    """To find out whether it is alive."""
    RECHECK = 2
    """To end its episode if it is connected."""
    REPAIR = 3
    FORCE = 4
    """A repair, now."""


class AskedBy(enum.StrEnum):
    """Who wants it."""

    ALERTMANAGER = "alertmanager"
    PAGE = "page"
    CHECK = "check"
    PROBE = "probe"
    RETRY = "retry"


class Phase(enum.StrEnum):
    """What is being done about a channel."""

    IDLE = "idle"
    CALLING = "calling"
    STARTING = "starting"
    """The gateway was asked, and its session starts."""
    VERIFYING = "verifying"
    PROVING = "proving"
    """It is probed, as the proof of its repair."""
    PROBING = "probing"
    RESTARTING = "restarting"
    """Its session is thrown away, and a new one is not there yet."""


AT_REST = frozenset({Phase.IDLE, Phase.PROBING})
"""In the others a repair is under way."""


IN_HAND = frozenset({Phase.CALLING, Phase.PROVING, Phase.PROBING})
"""In these a thread of the leader's is at work."""


class Step(enum.StrEnum):
    """The last thing that was done in a phase."""

    RECONNECT = "reconnect"
    START = "start"
    QR = "qr"
    DELETE = "delete"
    CREATE = "create"
    POSTPONED = "postponed"
    """A probe that goes on at the row's deadline."""


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


PHASE_SECONDS = 600.0
"""No phase is longer; see clamped()."""

LEASE_SECONDS = 10.0
"""A leader that has written nothing for so long leads no more."""

LONGEST_REST_SECONDS = 300.0
"""A gateway that fails is left alone for no longer at a time."""


@dataclass(slots=True)
class ChannelRow:
    """One row of the table ``channel``; times are Unix seconds by the database's clock."""

    key: str
    channel: str
    listed: bool = False
    intent: Intent = Intent.NONE
    cause: RepairCause = RepairCause.DISCONNECTED
    asked_by: AskedBy = AskedBy.ALERTMANAGER
    since: float = 0.0
    raised_in: int = 0
    next_at: float | None = None
    phase: Phase = Phase.IDLE
    epoch: int = 0
    deadline: float | None = None
    step: Step | None = None
    tries: int = 0
    action: Action = Action.NONE
    silent: bool = False
    attempts: int = 0
    failures: int = 0
    stuck: int = 0
    asked_at: float | None = None
    called_at: float | None = None
    called_in: int = 0
    seen_at: float | None = None
    last_status: str | None = None
    last_cause: RepairCause | None = None
    qr_required: bool = False
    restarting: bool = False
    starting_since: float | None = None
    paused: bool = False
    paused_until: float | None = None
    unheard_since: float | None = None
    probe_began_at: float | None = None
    query_failed_at: float | None = None
    suspended: bool = False

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the state that a row of the table holds."""
        return cls(
            **{
                name: parse(row[name]) if parse and row[name] is not None else row[name]
                for name, parse in _PARSERS.items()
                if row[name] is not None or name in _OPTIONAL
            }
        )

    @property
    def is_open(self) -> bool:
        """Whether something is wanted of it."""
        return self.next_at is not None

    @property
    def in_work(self) -> bool:
        """Whether a repair is under way."""
        return self.phase not in AT_REST

    @property
    def has_episode(self) -> bool:
        """Whether a repair has not brought it back yet, or a QR code waits."""
        return bool(self.attempts or self.failures or self.qr_required)

    def is_paused(self, now: float) -> bool:
        """Whether a person has paused its repairs."""
        return self.paused and (self.paused_until is None or self.paused_until > now)

    def clamped(self, now: float, longest_wait: float) -> ChannelRow:
        """Return the state without what only a clock that has been put back since explains.

        What has happened later than now has happened now; a deadline that is further away than
        any can be is over.
        """
        past = {
            name: min(value, now)
            for name in _PAST
            if (value := getattr(self, name)) is not None and value > now
        }
        for name, most in (("next_at", longest_wait), ("deadline", PHASE_SECONDS)):
            value = getattr(self, name)
            if value is not None and value > now + most:
                past[name] = now
        return replace(self, **past) if past else self


_PAST = (
    "since",
    "asked_at",
    "called_at",
    "seen_at",
    "starting_since",
    "unheard_since",
    "probe_began_at",
    "query_failed_at",
)
_OPTIONAL = frozenset(field.name for field in fields(ChannelRow) if field.default is None)
_PARSERS: dict[str, Any] = {field.name: None for field in fields(ChannelRow)} | {
    "intent": Intent,
    "cause": RepairCause,
    "asked_by": AskedBy,
    "phase": Phase,
    "step": Step,
    "action": Action,
    "last_cause": RepairCause,
}


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """One row of the table ``gateway``; times are Unix seconds by the database's clock."""

    look: int = 0
    epoch: int = 0
    holder: str | None = None
    lease_until: float | None = None
    failures: int = 0
    failed_at: float | None = None
    rests_until: float | None = None
    back_at: float | None = None

    def is_led(self, now: float) -> bool:
        """Whether somebody leads it."""
        until = self.lease_until
        # A lease that ends later than any can is of a clock that has been put back since.
        return self.holder is not None and until is not None and now < until <= now + LEASE_SECONDS

    def rests(self, now: float) -> bool:
        """Whether it is left alone, since it has failed so often."""
        until = self.rests_until
        return until is not None and now < until <= now + LONGEST_REST_SECONDS
