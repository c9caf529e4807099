"""Ten weeks of synthetic traffic of eight kinds of channels, for the back-test of learned silence.

Conversations start in a Weibull renewal process (shape 0.7: more clustered than chance), scaled by
an hourly rate with daily mood, holidays and the kind's trend. A conversation has a heavy-tailed
number of messages, with log-normal pauses. None of this matches the method's assumptions.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Lisbon")
BEGINS = datetime(2026, 2, 9, tzinfo=ZONE)  # a Monday; clocks go forward in the seventh week
WEEKS = 10
HOLIDAYS = (datetime(2026, 3, 5).date(), datetime(2026, 4, 3).date())  # noqa: DTZ001 - dates
_SHAPE = 0.7
_PAUSE_MEDIAN, _PAUSE_SIGMA, _PAUSE_MOST = 40.0, 1.2, 1200.0  # seconds within a conversation
_MOOD_SIGMA = 0.25


@dataclass(frozen=True)
class Kind:
    """Conversations per hour by local day (Monday 0) and hour; messages in each; factors."""

    name: str
    rate: Callable[[int, int], float]
    messages: float
    holiday: float = 1.0
    trend: Callable[[float], float] = lambda _weeks: 1.0


def _shop(day: int, hour: int) -> float:
    if not 8 <= hour < 22:
        return 0.6
    return (15 if day == 6 else 30) * (1.3 if hour in {11, 12, 18, 19, 20} else 0.9)


def _office(day: int, hour: int) -> float:
    if day < 5 and 9 <= hour < 18:
        return 3 if hour == 12 else 7
    return 0.06 if 7 <= hour < 22 else 0.005


def _support(_day: int, hour: int) -> float:
    return 20 if 6 <= hour < 14 else 14 if hour < 22 and hour >= 14 else 4


def _bar(day: int, hour: int) -> float:
    evening = (day if hour >= 5 else (day - 1) % 7) >= 2
    if evening and (hour >= 18 or hour < 3):
        return 9
    return 0.15 if hour >= 12 else 0.02


def _group(_day: int, hour: int) -> float:
    return 0.7 if 8 <= hour < 23 else 0.08


def _nearly_dead(_day: int, hour: int) -> float:
    return 0.035 if 8 <= hour < 22 else 0.003


def _small_shop(day: int, hour: int) -> float:
    return (2 if day == 6 else 5) if 8 <= hour < 20 else 0.1


KINDS = (
    Kind("shop", _shop, 3, holiday=0.3),
    Kind("office", _office, 5, holiday=0.02),
    Kind("support", _support, 4, holiday=0.7),
    Kind("night bar", _bar, 4, holiday=1.5),
    Kind("group", _group, 25),
    Kind("nearly dead", _nearly_dead, 2),
    Kind(
        "seasonal", _small_shop, 3, 0.2, lambda weeks: 1 + 0.6 * math.sin(weeks * 2 * math.pi / 5)
    ),
    Kind("growing", _small_shop, 3, 0.2, lambda weeks: 0.3 * 1.15**weeks),
)
BUSY = {"shop", "support"}
QUIET = {"office", "night bar", "group", "nearly dead"}


def make_channel(kind: Kind, chance: random.Random) -> list[float]:
    """Return the Unix seconds of ten weeks of messages, sorted."""
    scale = chance.lognormvariate(0, 0.4)
    shift = chance.choice((-1, 0, 0, 1))
    moods: dict[object, float] = {}
    mean = math.gamma(1 + 1 / _SHAPE)
    begins = BEGINS.timestamp()
    times: list[float] = []
    due = chance.random()  # time until the next conversation, in conversations
    for number in range(WEEKS * 168):
        at = begins + 3600 * number
        local = datetime.fromtimestamp(at, ZONE)
        shifted = local + timedelta(hours=shift)
        mood = moods.setdefault(local.date(), chance.lognormvariate(0, _MOOD_SIGMA))
        rate = kind.rate(shifted.weekday(), shifted.hour) * scale * mood
        rate *= kind.trend(number / 168) * (kind.holiday if local.date() in HOLIDAYS else 1)
        passed = 0.0
        while due < rate - passed:
            passed += due
            _converse(at + 3600 * passed / rate, kind.messages, times, chance)
            due = chance.weibullvariate(1 / mean, _SHAPE)
        due -= rate - passed
    ends = begins + WEEKS * 7 * 86400
    return sorted(at for at in times if at < ends)


def _converse(at: float, mean: float, times: list[float], chance: random.Random) -> None:
    # A Pareto distribution with exponent 1.8 has a mean of 2.25 times its minimum, and a long tail.
    count = min(400, max(1, round(chance.paretovariate(1.8) * mean / 2.25)))
    for _ in range(count):
        times.append(at)
        at += min(_PAUSE_MOST, chance.lognormvariate(math.log(_PAUSE_MEDIAN), _PAUSE_SIGMA))


def make_outages(chance: random.Random) -> list[tuple[float, float]]:
    """Return start and end of the channel's 2 outages as a zombie, of 2 to 40 hours."""
    begins = BEGINS.timestamp()
    found = []
    for _ in range(2):
        start = begins + chance.random() * WEEKS * 7 * 86400
        found.append((start, start + 3600 * min(40, max(2, chance.lognormvariate(2, 0.8)))))
    return sorted(found)


def without(times: list[float], outages: list[tuple[float, float]]) -> list[float]:
    """Return the messages outside of the outages."""
    for start, end in outages:
        times = times[: bisect_left(times, start)] + times[bisect_left(times, end) :]
    return times
