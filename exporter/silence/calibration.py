"""How much a healthy channel may let one expect before a message comes: from its own past gaps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MONTH_DAYS = 30.4
# The rarest gaps are zombies and holidays as likely as not. So those that are a little more common
# tell how they thin out, and the rare ones are taken from that.
_COMMON = (16.0, 4.0)  # gaps a month


class Measured(NamedTuple):
    """A gap of the past: what was expected in it, and how often a month there is one like it."""

    expected: float
    per_month: float


def level_for(measured: Iterable[Measured], per_month: float) -> float:
    """Return what is expected in so long a silence that only ``per_month`` gaps are longer.

    It never grows with ``per_month``. It is 0, so that the floor counts, where there are less than
    four gaps a month in all: what is so rare on a channel that never rests may all be zombies.
    """
    tail = _tail(measured)
    least = _COMMON[1]
    if per_month >= least:
        return _at(tail, per_month)
    often, seldom = (math.sqrt(_at(tail, rate)) for rate in _COMMON)
    slope = (seldom - often) / math.log(_COMMON[0] / least)
    return (seldom + slope * math.log(least / per_month)) ** 2


def _tail(measured: Iterable[Measured]) -> list[tuple[float, float]]:
    """Return pairs of an expectation and how many gaps a month reach it, the largest first."""
    total = 0.0
    tail = []
    for expected, per_month in sorted(measured, reverse=True):
        total += per_month
        tail.append((total, expected))
    return tail


def _at(tail: Sequence[tuple[float, float]], per_month: float) -> float:
    before: tuple[float, float] | None = None
    for total, expected in tail:
        if total >= per_month:
            if before is None:
                return expected
            share = math.log(per_month / before[0]) / math.log(total / before[0])
            return before[1] + share * (expected - before[1])
        before = (total, expected)
    return 0.0
