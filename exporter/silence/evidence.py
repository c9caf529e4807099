"""From minutes to rates: what a channel's weeks say of each hour, and a profile made of that."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from exporter.silence.history import HOURS, Gap, History
from exporter.silence.profile import WEEK_HOURS, Profile, hour_of_week

WEEKS = HOURS // WEEK_HOURS
_HALF_LIFE_WEEKS = 2.0  # after which a week counts half, as channels change
WEIGHTS = tuple(0.5 ** (week / _HALF_LIFE_WEEKS) for week in range(WEEKS))
_OWN_DAY_HOURS = 2.0  # of evidence, that the same hour of like days weighs against an hour's own
_POOLED_HOURS = 2.0  # the same for the hour of all channels, against that of a channel's like days
_LEAST = 0.01  # of the mean rate: so much is expected at the deadest hour
_MOST_BUSY = 59.5  # minutes of an hour; a whole one would make the rate infinite


@dataclass(frozen=True, slots=True)
class Week:
    """How many minutes of each hour of the week were busy, and how often that hour was seen.

    Both are sums over weeks of different weight.
    """

    busy: Sequence[float]
    seen: Sequence[float]


def local_hours(history: History, zone: tzinfo | None) -> list[int]:
    """Return for each hour of a history which local hour of the week it is."""
    middle = history.begins + 1800
    return [int(hour_of_week(middle + 3600 * hour, zone)) for hour in range(HOURS)]


def week_of(history: History, hours: Sequence[int], ignored: Collection[Gap], weeks: int) -> Week:
    """Return the last so many weeks as one, in which older ones weigh less.

    What came before the first message and after the last was not seen, nor what is ``ignored``: an
    outage says nothing of the channel.
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
    """Return how many weeks before the end of a history an hour of it lies: 0 to 3."""
    return (HOURS - 1 - hour) // WEEK_HOURS


def shape_of(week: Week) -> list[float]:
    """Return each hour's busy minutes against the mean; 1 where an hour was not seen."""
    mean = _mean(week)
    return [b / s / mean if s and mean else 1.0 for b, s in zip(week.busy, week.seen, strict=True)]


def profile_of(week: Week, pooled: Sequence[float]) -> Profile:
    """Return the rates that a week's evidence and the shape of all channels suggest.

    A rate is that of the beginnings of busy minutes if they came independently. Messages come in
    bursts, and a busy minute counts once however many fell into it.
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
    """Return the busy minutes of each hour of a working day, of a Saturday and of a Sunday."""
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
