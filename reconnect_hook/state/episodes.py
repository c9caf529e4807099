"""How long a channel is left alone between two repairs of one episode."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE_SECONDS = 3600.0
"""Pauses grow up to an hour; a longer cooldown stays as long as it is."""

OLD_NEWS_SECONDS = 10.0
"""An alert that comes so soon after its channel was found connected is likely older than that."""

_SELF_RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Pauses:
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
