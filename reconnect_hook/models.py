"""Rows of channels and gateways: intents, phases, backoff and the circuit breaker."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, Self, TypeVar

from zapwatch.channels import Status


class RepairCause(enum.StrEnum):
    """Reason for a repair: the label ``reason`` of whatsapp_reconnect_attempts_total."""

    DISCONNECTED = "disconnected"
    SILENT = "silent"
    NEVER_HEARD = "never_heard"
    MANUAL = "manual"
    PROBE_FAILED = "probe_failed"
    ECHO_LOST = "echo_lost"
    SUSPECT = "suspect"
    ASKED = "asked"


PROBE_CAUSES = frozenset({RepairCause.SUSPECT, RepairCause.ASKED})
"""Causes that ask for a probe only."""

SILENCES = frozenset(
    {RepairCause.SILENT, RepairCause.NEVER_HEARD, RepairCause.PROBE_FAILED, RepairCause.ECHO_LOST}
)
"""Causes with which the gateway may still list the channel as connected."""


class Intent(enum.IntEnum):
    """Requested work for a channel; a greater intent replaces a smaller one."""

    NONE = 0
    PROBE = 1
    """Probe it."""
    RECHECK = 2
    """End its episode if it is connected."""
    REPAIR = 3
    FORCE = 4
    """Repair it without backoff."""


class AskedBy(enum.StrEnum):
    """Source of an intent."""

    ALERTMANAGER = "alertmanager"
    PAGE = "page"
    CHECK = "check"
    PROBE = "probe"
    RETRY = "retry"


class Phase(enum.StrEnum):
    """Phase of the work on a channel."""

    IDLE = "idle"
    CALLING = "calling"
    STARTING = "starting"
    """Reconnect was called; the session is starting."""
    VERIFYING = "verifying"
    PROVING = "proving"
    """A probe verifies its repair."""
    PROBING = "probing"
    RESTARTING = "restarting"
    """Its session is deleted, and the new one does not exist yet."""


AT_REST = frozenset({Phase.IDLE, Phase.PROBING})
"""Phases without a repair in progress."""


IN_HAND = frozenset({Phase.CALLING, Phase.PROVING, Phase.PROBING})
"""Phases in which a thread of the leader works."""

FOLLOWED = frozenset(Phase) - AT_REST - IN_HAND
"""Phases in which looks follow a repair."""


class Step(enum.StrEnum):
    """Last step of a phase."""

    RECONNECT = "reconnect"
    START = "start"
    QR = "qr"
    DELETE = "delete"
    CREATE = "create"
    POSTPONED = "postponed"
    """The probe resumes at the row's deadline."""


class Outcome(enum.StrEnum):
    """Outcome of a repair: the label ``outcome`` of whatsapp_reconnect_attempts_total."""

    RECOVERED = "recovered"
    RECONNECTED = "reconnected"
    REQUESTED = "requested"
    QR_REQUIRED = "qr_required"
    FAILED = "failed"
    STILL_DISCONNECTED = "still_disconnected"
    UNKNOWN_CHANNEL = "unknown_channel"


RECOVERIES = frozenset({Outcome.RECOVERED, Outcome.RECONNECTED})
"""Outcomes that end an episode."""

FAILURES = frozenset({Outcome.FAILED, Outcome.STILL_DISCONNECTED})
"""Outcomes that count as consecutive failures."""


class ProbeOutcome(enum.StrEnum):
    """Outcome of a probe: the label ``outcome`` of whatsapp_channel_probes_total."""

    PASSED = "passed"
    FAILED = "failed"
    """The channel is dead; a repair follows."""
    OTHER_FAILED = "other_failed"
    """The echo's sender is dead; its repair follows."""
    DELIVERY_BROKEN = "delivery_broken"
    """The gateway receives its messages, but they do not arrive: reconnecting does not help."""
    UNDECIDED = "undecided"
    """An echo was lost without showing which side is dead."""


class Action(enum.StrEnum):
    """The strongest call of a repair, as named in the log.

    GET_QR and RECONNECT keep the pairing; the adapter's ``reconnect_call`` is one of them.
    RESTART discards it.
    """

    NONE = "none"
    GET_QR = "getQr"
    RECONNECT = "reconnect"
    RESTART = "restart"


LONGEST_DUE_SECONDS = 600.0
"""Longest time until a phase ends or a row's next look; see ChannelRow.load()."""

LEASE_SECONDS = 10.0
"""A leader's lease expires so long after its last write."""

LONGEST_REST_SECONDS = 300.0
"""Longest time that a circuit stays open before the next trial."""

THRESHOLD = 5
"""Consecutive failures that open a gateway's circuit."""

FIRST_REST_SECONDS = 15.0
"""First time that a circuit stays open; each failed trial doubles it."""

WINDOW_SECONDS = 600.0
"""Failures further apart are not consecutive: one broken session must not open the circuit."""


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
    probe_began_at: float | None = None
    query_failed_at: float | None = None
    probe_outcome: str | None = None
    probe_ended_at: float | None = None
    suspended: bool = False
    stored: Sequence[Any] = field(default=(), init=False, repr=False, compare=False)
    """The stored values in the order of COLUMNS."""

    @classmethod
    def load(cls, values: Sequence[Any], now: float = inf) -> Self:
        """Return the row of stored ``values``, in the order of COLUMNS.

        Times that are only possible because the clock was set back are corrected: past events in
        the future become ``now``, deadlines beyond their maximum expire now.
        """
        row = cls(*values)
        row.intent, row.phase = _INTENTS[row.intent], _PHASES[row.phase]
        row.cause = _CAUSES[row.cause] or RepairCause.DISCONNECTED
        row.asked_by = _ASKED_BY[row.asked_by] or AskedBy.ALERTMANAGER
        row.step, row.last_cause = _STEPS[row.step], _CAUSES[row.last_cause]
        row.action = _ACTIONS[row.action] or Action.NONE
        row.since = row.since or 0.0
        row.stored = values
        for name in _PAST:
            value = getattr(row, name)
            if value is not None and value > now:
                setattr(row, name, now)
        if row.next_at is not None and row.next_at > now + LONGEST_DUE_SECONDS:
            row.next_at = now
        if row.deadline is not None and row.deadline > now + LONGEST_DUE_SECONDS:
            row.deadline = now
        return row

    @property
    def is_open(self) -> bool:
        """Whether it has an intent."""
        return self.next_at is not None

    @property
    def in_work(self) -> bool:
        """Whether a repair is in progress."""
        return self.phase not in AT_REST

    @property
    def has_episode(self) -> bool:
        """Whether repairs have not recovered it yet, or a QR code waits."""
        return bool(self.attempts or self.failures or self.qr_required)

    def is_paused(self, now: float) -> bool:
        """Whether an operator has paused its repairs."""
        return self.paused and (self.paused_until is None or self.paused_until > now)


_PAST = (
    "since",
    "asked_at",
    "called_at",
    "seen_at",
    "starting_since",
    "probe_began_at",
    "query_failed_at",
    "probe_ended_at",
)
COLUMNS = tuple(one.name for one in fields(ChannelRow) if one.init)
"""The table's columns that a ChannelRow has, in this order."""

_E = TypeVar("_E", bound=enum.StrEnum)


def _by_value(kind: type[_E]) -> dict[str | None, _E | None]:
    # A dictionary takes a fifth of the time of the enum's constructor.
    return {None: None, **{one.value: one for one in kind}}


_INTENTS = {one.value: one for one in Intent}
_PHASES = {one.value: one for one in Phase}
_CAUSES, _ASKED_BY = _by_value(RepairCause), _by_value(AskedBy)
_STEPS, _ACTIONS = _by_value(Step), _by_value(Action)


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
    list_failed: bool = False

    def is_led(self, now: float) -> bool:
        """Whether a hook holds a valid lease."""
        until = self.lease_until
        # A lease beyond its maximum is from before the clock was set back.
        return self.holder is not None and until is not None and now < until <= now + LEASE_SECONDS

    def rests(self, now: float) -> bool:
        """Whether its open circuit blocks all calls, also a trial."""
        until = self.rests_until
        return until is not None and now < until <= now + LONGEST_REST_SECONDS

    @property
    def is_tripped(self) -> bool:
        """Whether its circuit is open: only one call in flight is allowed, as a trial."""
        return self.failures >= THRESHOLD

    def _failed_lately(self, now: float) -> bool:
        return 0 <= now - (self.failed_at or 0.0) <= WINDOW_SECONDS

    def after_failure(self, now: float) -> GatewayRow:
        """Return the row after a failed call."""
        if self.rests(now):
            return self  # the call began before the circuit opened
        failures = self.failures + 1 if self._failed_lately(now) else 1
        rests_until = self.rests_until
        if failures >= THRESHOLD:
            # The bound of the exponent exceeds the longest time.
            rest = FIRST_REST_SECONDS * 2.0 ** min(failures - THRESHOLD, 16)
            rests_until = now + min(rest, LONGEST_REST_SECONDS)
        return replace(self, failures=failures, failed_at=now, rests_until=rests_until)

    def after_list(self, now: float) -> GatewayRow:
        """Return the row after an answered list; it closes the circuit if the one before failed.

        Lists may be answered while calls fail: the circuit stays half open, for one call at a time.
        """
        if self.list_failed:
            return replace(self, list_failed=False).after_answer(now)
        if self.rests(now):
            return self  # the list was read before the circuit opened
        if not self._failed_lately(now):
            return self.after_answer(now)
        # The next rest is a short one: the failing calls may be those of some sessions only.
        return replace(self, failures=min(self.failures, THRESHOLD), rests_until=None)

    def after_answer(self, now: float) -> GatewayRow:
        """Return the row after an answered call."""
        if not self.failures:
            return self
        back_at = now if self.is_tripped else self.back_at
        return replace(self, failures=0, rests_until=None, back_at=back_at)


_LONGEST_DELAY_SECONDS = 3600.0
"""Upper bound of the backoff; a longer cooldown is kept."""

ROUND_SECONDS = 30.0
"""Interval of looks while a repair waits."""

STALE_SECONDS = 10.0
"""An alert within this time after its channel was found connected is probably stale."""

_AUTO_RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Backoff from RECONNECT_COOLDOWN_SECONDS, doubled with each repair.

    The default of 300 gives 5, 10, 20, 40 and then 60 minutes. 0 means no delay.
    """

    cooldown: float

    def delay(self, attempts: int) -> float:
        """Return the delay in seconds after so many repairs without recovery."""
        # The bound of the exponent suits any cooldown and avoids float overflow.
        doubled = self.cooldown * 2.0 ** min(max(attempts - 1, 0), 32)
        return max(self.cooldown, min(doubled, _LONGEST_DELAY_SECONDS))

    def retries(self, attempts: int) -> bool:
        """Whether the hook retries without a new alert.

        Only with delays below 15 minutes. Later repairs need a new alert, which shows that the
        channel is still down and not silenced.
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
        """Return the time from which a call for the channel is allowed, 0 for at once.

        ``cause`` is that of a new alert, ``status`` the channel's current status at the gateway.
        """
        called_at = row.called_at
        if row.intent is Intent.FORCE or called_at is None or self.cooldown == 0:
            return 0.0
        escalated = escalates(row.last_cause, cause or row.cause) or (
            status is not None and row.last_status not in {None, status}
        )
        delay = self.cooldown if escalated else self.delay(row.attempts)
        if row.failures and gateway.back_at is not None and called_at <= gateway.back_at:
            # It failed while the gateway did; one that fails again and again is failing itself.
            delay = min(delay, 2.0 ** min(row.failures, 16))
        allowed_at = called_at + delay
        if row.failures and gateway.is_tripped:
            # Otherwise nothing might show for an hour that the gateway works again.
            allowed_at = min(allowed_at, (gateway.failed_at or 0.0) + LONGEST_REST_SECONDS)
        return allowed_at


def escalates(before: RepairCause | None, cause: RepairCause) -> bool:
    """Whether a silent channel has dropped since: a new problem, so only the cooldown applies.

    The reverse does not count: a late notification may say "silent" long after the drop.
    """
    return cause is RepairCause.DISCONNECTED and before in SILENCES
