"""Learns from the histories of all channels how long each may be silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from exporter.silence.calibration import MONTH_DAYS, Measured, level_for
from exporter.silence.evidence import (
    WEEKS,
    WEIGHTS,
    Week,
    local_hours,
    profile_of,
    shape_of,
    week_of,
    weeks_ago,
)
from exporter.silence.history import HOURS, Gap, History
from exporter.silence.profile import Profile, hour_of_week

_LEAST_DAYS = 7.0  # of history, below which nothing is learned of a channel
_OUTLIER = 3.0  # times the level that one gap a month passes: such a gap teaches nothing
# Of the false alarms that are allowed: the weeks to come are less like the past ones than those are
# like the profile that was made of them. By how much, the back-test has shown.
_PRUDENCE = 0.6
# Wrong suspicions that are accepted a month: each costs a question, not a reconnection.
_SUSPICIONS = 60.0
_RECENT_WEEKS = 2
_CLEARLY_SHORTER = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an operator decides: false alarms per channel and month, seconds at least and most."""

    false_alarms: float
    floor: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one channel: its week, two levels, from how much.

    At ``level`` it counts as silent, at ``suspect_level``, which is never higher, as suspect.
    """

    profile: Profile
    level: float
    suspect_level: float
    messages: int

    def threshold(self, last_message: float, bounds: Bounds, zone: tzinfo | None = None) -> float:
        """Return for how many seconds after ``last_message`` (Unix seconds) silence is normal."""
        return _seconds(self.profile, self.level, hour_of_week(last_message, zone), bounds)

    def suspicion(self, last_heard: float, bounds: Bounds, zone: tzinfo | None = None) -> float:
        """Return after how many seconds from ``last_heard`` on the channel is to be asked."""
        return _seconds(self.profile, self.suspect_level, hour_of_week(last_heard, zone), bounds)


def learn(
    histories: Mapping[str, History],
    bounds: Bounds,
    zone: tzinfo | None = None,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, Learned]:
    """Return what can be learned; channels with less than 7 days of history are left out.

    The histories must all end at the same time. ``pause`` is called after each step of some
    milliseconds.
    """
    hours: list[int] = []
    known = {}
    shapes = []
    for key, history in histories.items():
        hours = hours or local_hours(history, zone)
        span = history.span()
        if span is not None and HOURS * 60 - span.start >= _LEAST_DAYS * 1440:
            known[key] = history
            shapes.append(shape_of(week_of(history, hours, (), WEEKS)))
            pause()
    pooled = [sum(column) / len(shapes) for column in zip(*shapes, strict=True)]
    learned = {}
    for key, history in known.items():
        learned[key] = _learn_one(history, hours, pooled, bounds)
        pause()
    return learned


def _learn_one(
    history: History, hours: Sequence[int], pooled: Sequence[float], bounds: Bounds
) -> Learned:
    gaps = [
        gap
        for gap in history.gaps()
        # The floor keeps shorter ones from being alarms.
        if 60 * (gap.end - gap.start) > bounds.floor
    ]
    window = _look_at(WEEKS, history, gaps, hours, pooled, bounds)
    recent = _look_at(_RECENT_WEEKS, history, gaps, hours, pooled, bounds)
    # Older weeks of a channel that has moved to other hours only blur what is normal now.
    if recent.usual_threshold(bounds) < _CLEARLY_SHORTER * window.usual_threshold(bounds):
        window = recent
    level = level_for(window.measured, _PRUDENCE * bounds.false_alarms)
    suspect_level = min(level, level_for(window.measured, _SUSPICIONS))
    return Learned(window.profile, level, suspect_level, history.messages)


@dataclass(frozen=True, slots=True)
class _Window:
    """What the last weeks say: a profile, and the gaps measured by it."""

    profile: Profile
    measured: Sequence[Measured]

    def usual_threshold(self, bounds: Bounds) -> float:
        """Return the mean threshold at one false alarm a month, each hour counting by its rate."""
        level, rates = level_for(self.measured, 1), self.profile.rates
        total = sum(
            rate * _seconds(self.profile, level, hour, bounds) for hour, rate in enumerate(rates)
        )
        return total / sum(rates)


def _look_at(
    weeks: int,
    history: History,
    gaps: Sequence[Gap],
    hours: Sequence[int],
    pooled: Sequence[float],
    bounds: Bounds,
) -> _Window:
    gaps = [gap for gap in gaps if weeks_ago(gap.start // 60) < weeks]
    week = week_of(history, hours, (), weeks)
    profile = profile_of(week, pooled)
    measured = _measure(gaps, hours, week, profile, math.inf)
    limit = _OUTLIER * level_for(measured, 1)
    ignored = {gap for gap, one in zip(gaps, measured, strict=True) if one.expected > limit > 0}
    if ignored:
        gaps = [gap for gap in gaps if gap not in ignored]
        week = week_of(history, hours, ignored, weeks)
        profile = profile_of(week, pooled)
    # An alarm would have ended a gap at the ceiling.
    return _Window(profile, _measure(gaps, hours, week, profile, bounds.ceiling / 3600))


def _measure(
    gaps: Sequence[Gap], hours: Sequence[int], week: Week, profile: Profile, most: float
) -> list[Measured]:
    """Return what was to be expected in the first ``most`` hours of each gap."""
    per_month = MONTH_DAYS * 24 / (sum(week.seen) or 1)
    measured = []
    for gap in gaps:
        hour, minute = divmod(gap.start, 60)
        length = min((gap.end - gap.start) / 60, most)
        expected = profile.expected(hours[hour] + minute / 60, length)
        measured.append(Measured(expected, WEIGHTS[weeks_ago(hour)] * per_month))
    return measured


def _seconds(profile: Profile, level: float, start: float, bounds: Bounds) -> float:
    seconds = 3600 * profile.hours_until(start, level)
    return min(max(seconds, bounds.floor), bounds.ceiling)
