"""The repairs that have ended, read once and then only what is new."""

from __future__ import annotations

import math

from reconnect_hook.outcomes import FAILURES, RECOVERIES
from reconnect_hook.page.rows import Mark
from reconnect_hook.page.strips import QUARTER_SECONDS, QUARTERS
from reconnect_hook.state.history import Attempt, History

_OVERLAP_SECONDS = 60.0  # for what ended by the clock, and was committed later
_DAY = QUARTERS * QUARTER_SECONDS


class Ended:
    """Knows each channel's last repair, and all of the last 24 hours. For one thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._last: dict[str, Attempt] = {}
        self._today: dict[int, Attempt] = {}
        self._seen_until: float | None = None

    def refresh(self, at: float) -> None:
        """Read what has ended by ``at``, Unix seconds by the database's clock."""
        if self._seen_until is None:
            new = self._history.last_of_each() + self._history.ended_since(at - _DAY)
        else:
            new = self._history.ended_since(self._seen_until - _OVERLAP_SECONDS)
        for attempt in new:
            known = self._last.get(attempt.key)
            if known is None or known.id < attempt.id:
                self._last[attempt.key] = attempt
            self._today[attempt.id] = attempt
        self._seen_until = at
        for old in [one.id for one in self._today.values() if one.finished_at < at - _DAY]:
            del self._today[old]

    def last(self, key: str) -> Attempt | None:
        """Return the channel's last repair, None where there was none."""
        return self._last.get(key)

    def marks(self) -> dict[str, tuple[Mark, ...]]:
        """Return what to mark in the channels' strips: one mark a quarter of an hour at most."""
        helped: dict[str, dict[int, bool]] = {}
        for attempt in self._today.values():
            if attempt.outcome in RECOVERIES | FAILURES:
                quarter = math.ceil(attempt.finished_at / QUARTER_SECONDS)
                quarters = helped.setdefault(attempt.key, {})
                did = attempt.outcome in RECOVERIES
                quarters[quarter] = quarters.get(quarter, False) or did
        return {
            key: tuple(Mark(quarter, did) for quarter, did in sorted(quarters.items()))
            for key, quarters in helped.items()
        }
