"""A week of rates: the expectation for any stretch of it, and the time until an expectation."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import accumulate
from typing import NamedTuple

from zapwatch.messages.history import HOURS, Gap, History

WEEK_HOURS = 168


def hour_of_week(at: float, zone: tzinfo | None) -> float:
    """Return local hours since Monday 00:00, below 168; ``zone`` None is this machine's."""
    then = datetime.fromtimestamp(at, zone)
    return then.weekday() * 24 + then.hour + then.minute / 60 + then.second / 3600


class Profile:
    """The rate of each hour of the week, as an expectation per hour; all above 0."""

    def __init__(self, rates: Sequence[float]) -> None:
        # Arrays take a quarter of the memory of tuples, and there may be 20,000 channels.
        self.rates: Sequence[float] = array("d", rates)
        self._sums = array("d", accumulate(rates, initial=0.0))

    def expected(self, start: float, hours: float) -> float:
        """Return the expectation for ``hours`` from the hour of the week ``start`` on."""
        weeks, rest = divmod(hours, WEEK_HOURS)
        return weeks * self._sums[-1] + self._up_to(start + rest) - self._up_to(start)

    def hours_until(self, start: float, level: float) -> float:
        """Return the hours from ``start`` until ``level`` is expected: expected() inverted."""
        weeks, rest = divmod(self._up_to(start) + level, self._sums[-1])
        # The hour during which the rest is reached.
        hour = min(max(bisect_left(self._sums, rest) - 1, 0), WEEK_HOURS - 1)
        reached = hour + (rest - self._sums[hour]) / self.rates[hour]
        return max(0.0, weeks * WEEK_HOURS + reached - start)

    def _up_to(self, hour: float) -> float:
        weeks, rest = divmod(hour, WEEK_HOURS)
        whole = int(rest)
        part = (rest - whole) * self.rates[whole] if rest > whole else 0.0
        return weeks * self._sums[-1] + self._sums[whole] + part


MONTH_DAYS = 30.4
# The rarest gaps are as likely as not zombies or holidays. So the rate of rare gaps is extrapolated
# from the decline of those that are a little more common.
_COMMON = (16.0, 4.0)  # gaps a month


class Measured(NamedTuple):
    """A past gap: the expectation during it, how many like it there are per month, its hours."""

    expected: float
    per_month: float
    hours: float = 0.0


def hardly_speaks(measured: Collection[Measured]) -> bool:
    """Whether there are less than four gaps a month, and most of the time is in them."""
    silent_hours = sum(one.hours * one.per_month for one in measured)
    return silent_hours > MONTH_DAYS * 12 and sum(one.per_month for one in measured) < _COMMON[1]


def level_for(measured: Collection[Measured], per_month: float) -> float:
    """Return the expectation that only ``per_month`` gaps a month exceed.

    It never grows with ``per_month``. If there are less than four gaps a month in all, it is the
    largest one on a channel that hardly speaks, else 0, so that the floor applies: on a channel
    that never pauses, all of them may be zombies.
    """
    ordered = sorted(measured, reverse=True)
    totals = accumulate(one.per_month for one in ordered)
    tail = [(total, one.expected) for total, one in zip(totals, ordered, strict=True)]
    least = _COMMON[1]
    if per_month >= least:
        return _at(tail, per_month)
    if hardly_speaks(measured):
        return tail[0][1]
    often, seldom = (math.sqrt(_at(tail, rate)) for rate in _COMMON)
    slope = (seldom - often) / math.log(_COMMON[0] / least)
    return (seldom + slope * math.log(least / per_month)) ** 2


def _at(tail: Iterable[tuple[float, float]], per_month: float) -> float:
    """Interpolate between pairs of gaps per month and the expectation that they reach."""
    before: tuple[float, float] | None = None
    for total, expected in tail:
        if total >= per_month:
            if before is None:
                return expected
            share = math.log(per_month / before[0]) / math.log(total / before[0])
            return before[1] + share * (expected - before[1])
        before = (total, expected)
    return 0.0


WEEKS = HOURS // WEEK_HOURS
_HALF_LIFE_WEEKS = 2.0  # after which a week's weight is halved, as channels change
WEIGHTS = tuple(0.5 ** (week / _HALF_LIFE_WEEKS) for week in range(WEEKS))
_OWN_DAY_HOURS = 2.0  # of evidence: weight of the same hour of like days against an hour's own
_POOLED_HOURS = 2.0  # the same for the hour of all channels against that of a channel's like days
_LEAST = 0.01  # of the mean rate: the minimum for the quietest hour
_MOST_BUSY = 59.5  # minutes of an hour; a whole one would make the rate infinite


@dataclass(frozen=True, slots=True)
class Week:
    """Busy minutes of each hour of the week, and how often that hour was seen.

    Both are weighted sums over weeks.
    """

    busy: Sequence[float]
    seen: Sequence[float]


def local_hours(history: History, zone: tzinfo | None) -> list[int]:
    """Return the local hour of the week of each hour of a history."""
    middle = history.begins + 1800
    return [int(hour_of_week(middle + 3600 * hour, zone)) for hour in range(HOURS)]


def week_of(history: History, hours: Sequence[int], ignored: Collection[Gap], weeks: int) -> Week:
    """Return the last ``weeks`` weeks as one, in which older ones weigh less.

    Hours before the first message, after the last, and in ``ignored`` gaps count as not seen: an
    outage is no evidence about the channel.
    """
    unseen = bytearray(HOURS)
    span = history.span()
    if span is not None:
        for hour in (*range(span.start // 60), *range(span.end // 60 + 1, HOURS)):
            unseen[hour] = 1
    for gap in ignored:
        for hour in range(gap.start // 60 + 1, gap.end // 60):
            unseen[hour] = 1
    busy, seen = [0.0] * WEEK_HOURS, [0.0] * WEEK_HOURS
    for hour, minutes in enumerate(history.busy_minutes()):
        age = weeks_ago(hour)
        if age < weeks and not unseen[hour]:
            busy[hours[hour]] += WEIGHTS[age] * minutes
            seen[hours[hour]] += WEIGHTS[age]
    return Week(busy, seen)


def weeks_ago(hour: int) -> int:
    """Return the weeks between an hour of a history and its end: 0 to 3."""
    return (HOURS - 1 - hour) // WEEK_HOURS


def shape_of(week: Week) -> list[float]:
    """Return each hour's busy minutes relative to the mean; 1 for an hour that was not seen."""
    mean = _mean(week)
    return [b / s / mean if s and mean else 1.0 for b, s in zip(week.busy, week.seen, strict=True)]


def profile_of(week: Week, pooled: Sequence[float]) -> Profile:
    """Return the rates from a week's evidence and the shape of all channels.

    A rate is that of independent starts of busy minutes. Messages come in bursts, and a busy minute
    counts once, however many messages it contains.
    """
    mean = _mean(week) or 1 / WEEK_HOURS
    rates = []
    days = _like_days(week, pooled, mean)
    for hour, (busy, seen) in enumerate(zip(week.busy, week.seen, strict=True)):
        like = days[_kind_of_day(hour)][hour % 24]
        rates.append((busy + _OWN_DAY_HOURS * like) / (seen + _OWN_DAY_HOURS))
    smooth = [
        (rates[hour - 1] + 2 * rates[hour] + rates[(hour + 1) % WEEK_HOURS]) / 4
        for hour in range(WEEK_HOURS)
    ]
    least = _LEAST * mean
    return Profile([-60 * math.log1p(-min(max(rate, least), _MOST_BUSY) / 60) for rate in smooth])


def _like_days(week: Week, pooled: Sequence[float], mean: float) -> list[list[float]]:
    """Return the busy minutes of each hour of a working day, a Saturday and a Sunday."""
    busy = [[0.0] * 24 for _ in range(3)]
    seen = [[0.0] * 24 for _ in range(3)]
    prior = [[0.0] * 24 for _ in range(3)]
    for hour in range(WEEK_HOURS):
        kind = _kind_of_day(hour)
        busy[kind][hour % 24] += week.busy[hour]
        seen[kind][hour % 24] += week.seen[hour]
        prior[kind][hour % 24] += mean * pooled[hour] / (5 if kind == 0 else 1)
    return [
        [
            (busy[kind][hour] + _POOLED_HOURS * prior[kind][hour])
            / (seen[kind][hour] + _POOLED_HOURS)
            for hour in range(24)
        ]
        for kind in range(3)
    ]


def _kind_of_day(hour: int) -> int:
    return max(0, hour // 24 - 4)


def _mean(week: Week) -> float:
    seen = sum(week.seen)
    return sum(week.busy) / seen if seen else 0.0
