"""How long a channel is left alone between two repairs of one episode."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import sqlalchemy as sa

from reconnect_hook.schema import channels, gateways, repairs, unfinished

LONGEST_PAUSE_SECONDS = 3600.0
"""Pauses grow up to an hour; a longer cooldown stays as long as it is."""

OLD_NEWS_SECONDS = 10.0
"""An alert that comes so soon after its channel was found connected is likely older than that."""

_SELF_RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses that follow from RECONNECT_COOLDOWN_SECONDS: it doubles with each repair.

    With its default of 300 they are 5, 10, 20, 40 and then 60 minutes. 0 means no pauses at all.
    """

    cooldown: float

    @property
    def longest(self) -> float:
        """No pause is longer."""
        return max(self.cooldown, LONGEST_PAUSE_SECONDS)

    def after(self, attempts: int) -> float:
        """Return the seconds after so many repairs that have not brought the channel back."""
        # An exponent that is large enough for any cooldown, and small enough for a float.
        doubled = self.cooldown * 2.0 ** min(max(attempts - 1, 0), 32)
        return max(self.cooldown, min(doubled, LONGEST_PAUSE_SECONDS))

    def end(self, called_at: float | None, attempts: int, at: float) -> float:
        """Return when the channel may be repaired again: ``at`` or later."""
        # A call in the future was noted by a clock that has been put back since.
        if called_at is None or called_at > at:
            return at
        return max(at, called_at + self.after(attempts))

    def retry(self, attempts: int) -> float | None:
        """Return after how many seconds the hook tries again without having been asked.

        Only while the alert is that fresh. Later repairs, after None, are for alerts that have come
        since: then Alertmanager still says that the channel is down, and nobody has silenced it.
        """
        pause = self.after(attempts)
        return pause if 0 < pause < _SELF_RETRY_SECONDS else None


THRESHOLD = 5
"""So many failures in a row open it."""

FIRST_PAUSE_SECONDS = 15.0
"""The first pause; each trial that fails doubles it."""

LONGEST_OPEN_SECONDS = 300.0
"""No pause is longer."""

WINDOW_SECONDS = 600.0
"""Failures that are further apart are no row: one broken session alone does not open it."""

_log = logging.getLogger("reconnect_hook")


def admits(connection: sa.Connection, gateway: str, at: float, *, lock: bool = False) -> bool:
    """Whether a repair may begin: any while it is closed, and after a pause a single one, as trial.

    With ``lock``, other transactions wait to hear the same until this one has ended.
    """
    query = sa.select(gateways).where(gateways.c.gateway == gateway)
    known = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if known is None or known.failures < THRESHOLD:
        return True
    if _rests(known.paused_until, at):
        return False
    under_way = sa.select(repairs.c.id).where(
        unfinished(gateway), repairs.c.holder.is_not(None), repairs.c.lease_until > at
    )
    return connection.scalar(under_way.limit(1)) is None


def is_closed(connection: sa.Connection, gateway: str) -> bool:
    """Whether any number of repairs may begin."""
    query = sa.select(gateways.c.failures).where(gateways.c.gateway == gateway)
    return (connection.scalar(query) or 0) < THRESHOLD


def open_until(connection: sa.Connection, gateway: str, at: float) -> float | None:
    """Return when the pause of a gateway ends, in Unix seconds; None where it does not rest."""
    query = sa.select(gateways.c.paused_until).where(gateways.c.gateway == gateway)
    until: float | None = connection.scalar(query)
    return until if _rests(until, at) else None


def note(connection: sa.Connection, gateway: str, at: float, *, failed: bool) -> None:
    """Note that the gateway failed a call, or answered one; the latter closes it."""
    query = sa.select(gateways).where(gateways.c.gateway == gateway)
    known = connection.execute(query.with_for_update()).one_or_none()
    if not failed:
        if known is not None and known.failures:
            _close(connection, gateway, at, was_open=known.failures >= THRESHOLD)
        return
    if known is None:
        row = {"gateway": gateway, "failures": 1, "failed_at": at}
        connection.execute(sa.insert(gateways).values(row))
        return
    is_open = known.failures >= THRESHOLD
    if is_open and _rests(known.paused_until, at):
        return  # of a call that had begun before
    in_a_row = is_open or 0 <= at - known.failed_at <= WINDOW_SECONDS
    failures = known.failures + 1 if in_a_row else 1
    values: dict[str, object] = {"failures": failures, "failed_at": at}
    if failures >= THRESHOLD:
        # An exponent that is large enough for the longest pause.
        pause = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - THRESHOLD, 16)
        pause = min(pause, LONGEST_OPEN_SECONDS)
        values["paused_until"] = at + pause
        _log.warning(
            "the gateway has failed %d times in a row: it is left alone for %.0f s", failures, pause
        )
    connection.execute(sa.update(gateways).where(gateways.c.gateway == gateway).values(values))


def _close(connection: sa.Connection, gateway: str, at: float, *, was_open: bool) -> None:
    connection.execute(
        sa.update(gateways)
        .where(gateways.c.gateway == gateway)
        .values(failures=0, paused_until=None)
    )
    if was_open:
        _log.warning("the gateway answers again")
        # What failed meanwhile failed while nothing could have helped: its pause is over.
        failing = sa.select(channels.c.key).where(
            channels.c.gateway == gateway, channels.c.consecutive_failures > 0
        )
        waiting = (unfinished(gateway), repairs.c.holder.is_(None), repairs.c.due_at > at)
        connection.execute(
            sa.update(repairs).where(*waiting, repairs.c.key.in_(failing)).values(due_at=at)
        )


def _rests(paused_until: float | None, at: float) -> bool:
    # What ends later than anything can was noted by a clock that has been put back since.
    return paused_until is not None and at < paused_until <= at + LONGEST_OPEN_SECONDS
