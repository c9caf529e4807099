"""How long channels and gateways are left alone: exponential backoff, and a circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconnect_hook.alerts import RepairCause
from reconnect_hook.models import LONGEST_REST_SECONDS, ChannelRow, GatewayRow, Intent
from zapwatch.channels import Status

LONGEST_DELAY_SECONDS = 3600.0
"""Delays grow up to an hour; a longer cooldown stays as long as it is."""

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


THRESHOLD = 5
"""So many failures in a row open the circuit breaker of a gateway."""

FIRST_REST_SECONDS = 15.0
"""The first rest; each trial that fails doubles it."""

WINDOW_SECONDS = 600.0
"""Failures that are further apart are no row: one broken session alone does not open it."""


def record_failure(gateway: GatewayRow, now: float) -> GatewayRow:
    """Return the state of a gateway that has failed a call."""
    is_open = gateway.failures >= THRESHOLD
    if is_open and gateway.rests(now):
        return gateway  # of a call that had begun before
    since = now - (gateway.failed_at or 0.0)
    failures = gateway.failures + 1 if is_open or 0 <= since <= WINDOW_SECONDS else 1
    rests_until = gateway.rests_until
    if failures >= THRESHOLD:
        # An exponent that is large enough for the longest rest.
        rest = FIRST_REST_SECONDS * 2.0 ** min(failures - THRESHOLD, 16)
        rests_until = now + min(rest, LONGEST_REST_SECONDS)
    return replace(gateway, failures=failures, failed_at=now, rests_until=rests_until)


def record_answer(gateway: GatewayRow, now: float) -> GatewayRow:
    """Return the state of a gateway that has answered a call."""
    if not gateway.failures:
        return gateway
    back_at = now if is_tripped(gateway) else gateway.back_at
    return replace(gateway, failures=0, rests_until=None, back_at=back_at)


def is_tripped(gateway: GatewayRow) -> bool:
    """Whether one call at most may be in flight, as a trial."""
    return gateway.failures >= THRESHOLD
