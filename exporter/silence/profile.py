"""A week of rates: how much is to be expected in any stretch of it, and how long that takes."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import accumulate

WEEK_HOURS = 168


def hour_of_week(at: float, zone: tzinfo | None = None) -> float:
    """Return the local hours since Monday 00:00, below 168; ``zone`` None is this machine's."""
    then = datetime.fromtimestamp(at, zone)
    return then.weekday() * 24 + then.hour + then.minute / 60 + then.second / 3600


class Profile:
    """The rate of each hour of the week, in what is expected per hour; all above 0."""

    def __init__(self, rates: Sequence[float]) -> None:
        # Arrays take a fourth of the memory of tuples, and there may be 20,000 channels.
        self.rates: Sequence[float] = array("d", rates)
        self._sums = array("d", accumulate(rates, initial=0.0))

    def expected(self, start: float, hours: float) -> float:
        """Return what is expected in so many hours from the hour of the week ``start`` on."""
        weeks, rest = divmod(hours, WEEK_HOURS)
        return weeks * self._sums[-1] + self._up_to(start + rest) - self._up_to(start)

    def hours_until(self, start: float, level: float) -> float:
        """Return after how many hours from ``start`` so much is expected: expected() inverted."""
        weeks, rest = divmod(self._up_to(start) + level, self._sums[-1])
        # The hour in whose course the rest is reached.
        hour = min(max(bisect_left(self._sums, rest) - 1, 0), WEEK_HOURS - 1)
        reached = hour + (rest - self._sums[hour]) / self.rates[hour]
        return max(0.0, weeks * WEEK_HOURS + reached - start)

    def _up_to(self, hour: float) -> float:
        weeks, rest = divmod(hour, WEEK_HOURS)
        whole = int(rest)
        part = (rest - whole) * self.rates[whole] if rest > whole else 0.0
        return weeks * self._sums[-1] + self._sums[whole] + part
