"""A channel's row and a gateway's: what can be wanted of them, and how long they are left alone."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Self

from reconnect_hook.alerts import RepairCause
from zapwatch.channels import Status


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


class ProbeOutcome(enum.StrEnum):
    """How a probe ended: the label ``outcome`` of whatsapp_channel_probes_total."""

    PASSED = "passed"
    FAILED = "failed"
    """The channel is dead, and is repaired."""
    OTHER_FAILED = "other_failed"
    """The channel that was to send the echo is dead, and is repaired."""
    DELIVERY_BROKEN = "delivery_broken"
    """The gateway receives its messages, and they do not arrive: there is nothing to reconnect."""
    UNDECIDED = "undecided"
    """An echo was lost, and which of the two is dead did not show."""


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
"""No phase is longer; see clamp()."""

LEASE_SECONDS = 10.0
"""A leader that has written nothing for so long leads no more."""

LONGEST_REST_SECONDS = 300.0
"""A gateway that fails is left alone for no longer at a time."""

THRESHOLD = 5
"""So many failures in a row open the circuit breaker of a gateway."""

FIRST_REST_SECONDS = 15.0
"""The first rest; each trial that fails doubles it."""

WINDOW_SECONDS = 600.0
"""Failures that are further apart are no row: one broken session alone does not open it."""


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
    probe_outcome: str | None = None
    probe_ended_at: float | None = None
    suspended: bool = False
    stored: Sequence[Any] | None = field(default=None, init=False, repr=False, compare=False)
    """What the table holds of it, in the order of COLUMNS; None where that is not known."""

    @classmethod
    def load(cls, values: Sequence[Any]) -> Self:
        """Return the row that the table holds as ``values``, in the order of COLUMNS."""
        row = cls(*values)
        row.intent, row.phase = _INTENTS[row.intent], _PHASES[row.phase]
        row.cause = _CAUSES[row.cause] or RepairCause.DISCONNECTED
        row.asked_by = _ASKED_BY[row.asked_by] or AskedBy.ALERTMANAGER
        row.step, row.last_cause = _STEPS[row.step], _CAUSES[row.last_cause]
        row.action = _ACTIONS[row.action] or Action.NONE
        row.since = row.since or 0.0
        row.stored = values
        return row

    def changes(self) -> tuple[tuple[str, Any], ...]:
        """Return the columns that are not as the table holds them, and their values.

        Not what only operators and ``check`` change.
        """
        before = self.stored or (_NOTHING,) * len(COLUMNS)
        return tuple(
            (name, value)
            for name, old, value in zip(COLUMNS, before, _values(self), strict=True)
            if old != value and name not in _OF_OTHERS
        )

    def restore(self) -> None:
        """Undo every change since it was loaded."""
        if self.stored is not None:
            before = self.load(self.stored)
            for name in COLUMNS:
                setattr(self, name, getattr(before, name))

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

    def clamp(self, now: float, longest_wait: float) -> None:
        """Change what only a clock that has been put back since explains.

        What has happened later than now has happened now; a deadline that is further away than
        any can be is over.
        """
        for name in _PAST:
            value = getattr(self, name)
            if value is not None and value > now:
                setattr(self, name, now)
        if self.next_at is not None and self.next_at > now + longest_wait:
            self.next_at = now
        if self.deadline is not None and self.deadline > now + PHASE_SECONDS:
            self.deadline = now


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
COLUMNS = tuple(one.name for one in fields(ChannelRow) if one.init)
"""The columns of the table that a ChannelRow has, in this order."""

_OF_OTHERS = frozenset({"key", "paused", "paused_until", "unheard_since"})
"""What the leader of a gateway does not change."""

_NOTHING = object()
_values = attrgetter(*COLUMNS)
# By what the table holds; looking it up takes a fifth of the time that the class takes.
_INTENTS = {one.value: one for one in Intent}
_PHASES = {one.value: one for one in Phase}
_CAUSES: dict[str | None, RepairCause | None] = {
    None: None,
    **{one.value: one for one in RepairCause},
}
_ASKED_BY: dict[str | None, AskedBy | None] = {None: None, **{one.value: one for one in AskedBy}}
_STEPS: dict[str | None, Step | None] = {None: None, **{one.value: one for one in Step}}
_ACTIONS: dict[str | None, Action | None] = {None: None, **{one.value: one for one in Action}}


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

    @property
    def is_tripped(self) -> bool:
        """Whether its circuit breaker is open: one call at most may be in flight, as a trial."""
        return self.failures >= THRESHOLD

    def after_failure(self, now: float) -> GatewayRow:
        """Return the state after a call that failed."""
        if self.is_tripped and self.rests(now):
            return self  # of a call that had begun before
        since = now - (self.failed_at or 0.0)
        failures = self.failures + 1 if self.is_tripped or 0 <= since <= WINDOW_SECONDS else 1
        rests_until = self.rests_until
        if failures >= THRESHOLD:
            # An exponent that is large enough for the longest rest.
            rest = FIRST_REST_SECONDS * 2.0 ** min(failures - THRESHOLD, 16)
            rests_until = now + min(rest, LONGEST_REST_SECONDS)
        return replace(self, failures=failures, failed_at=now, rests_until=rests_until)

    def after_answer(self, now: float) -> GatewayRow:
        """Return the state after a call that was answered."""
        if not self.failures:
            return self
        back_at = now if self.is_tripped else self.back_at
        return replace(self, failures=0, rests_until=None, back_at=back_at)


LONGEST_DELAY_SECONDS = 3600.0
"""Delays grow up to an hour; a longer cooldown stays as long as it is."""

ROUND_SECONDS = 30.0
"""How often a gateway's list is asked for while a repair waits."""

STALE_SECONDS = 10.0
"""An alert that comes so soon after its channel was found connected is likely older than that."""

_AUTO_RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delays that follow from RECONNECT_COOLDOWN_SECONDS: it doubles with each repair.

    With its default of 300 they are 5, 10, 20, 40 and then 60 minutes. 0 means no delay at all.
    """

    cooldown: float

    @property
    def longest(self) -> float:
        """No delay is longer."""
        return max(self.cooldown, LONGEST_DELAY_SECONDS)

    def delay(self, attempts: int) -> float:
        """Return the seconds after so many repairs that have not brought the channel back."""
        # An exponent that is large enough for any cooldown, and small enough for a float.
        doubled = self.cooldown * 2.0 ** min(max(attempts - 1, 0), 32)
        return max(self.cooldown, min(doubled, LONGEST_DELAY_SECONDS))

    def retries(self, attempts: int) -> bool:
        """Whether the hook tries again without having been asked.

        Only while the alert is that fresh. Later repairs are for alerts that have come since: then
        Alertmanager still says that the channel is down, and nobody has silenced it.
        """
        return 0 < self.delay(attempts) < _AUTO_RETRY_SECONDS

    def call_allowed_at(
        self,
        row: ChannelRow,
        gateway: GatewayRow,
        *,
        cause: RepairCause | None = None,
        status: Status | None = None,
    ) -> float:
        """Return the moment from which on the channel may be called, 0 where it may be at once.

        ``cause`` is that of a new alert, ``status`` what the gateway says of the channel now.
        """
        called_at = row.called_at
        if row.intent is Intent.FORCE or called_at is None or self.cooldown == 0:
            return 0.0
        if row.failures and gateway.back_at is not None and called_at <= gateway.back_at:
            return 0.0  # it failed while nothing could have helped
        if escalates(row.last_cause, cause or row.cause) or (
            status is not None and row.last_status not in {None, status}
        ):
            return called_at + self.cooldown
        return called_at + self.delay(row.attempts)


def escalates(before: RepairCause | None, cause: RepairCause) -> bool:
    """Whether a channel that was silent has dropped since: another problem, so no longer delay.

    Not the other way round: an old notification may say "silent" long after the drop.
    """
    return cause is RepairCause.DISCONNECTED and before is not None and before.is_silence
