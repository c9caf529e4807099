"""Strips and charts as SVG shapes: where each one is and how large, for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconnect_hook.page.rows import Row
from reconnect_hook.page.strips import QUARTERS, State
from reconnect_hook.page.week import Hour

CHART_HEIGHT = 100
"""The chart's units from its foot to the highest bar."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour of the chart: the heights of what was received, and of what was sent above it."""

    left: int
    received: float
    sent: float
    hour: Hour


@dataclass(frozen=True, slots=True)
class Chart:
    """A week of messages."""

    bars: tuple[Bar, ...]
    most: int
    """Messages in the busiest hour."""
    received: int
    sent: int


def marks(row: Row) -> list[tuple[int, bool]]:
    """Return where in the strip repairs ended, and whether they helped."""
    places = [(mark.quarter - row.first_quarter, mark.helped) for mark in row.marks]
    return [(place, helped) for place, helped in places if 0 <= place < QUARTERS]


def hours_in(row: Row, state: State) -> float:
    """Return for how many hours of the last 24 the channel was in a state."""
    return sum(run.length for run in row.strip if run.state == state) / 4


def chart(hours: Sequence[Hour]) -> Chart:
    """Return what is to be drawn."""
    totals = [(hour.received or 0) + (hour.sent or 0) for hour in hours]
    most = max([*totals, 1])
    scale = CHART_HEIGHT / most
    bars = tuple(
        Bar(index, (hour.received or 0) * scale, (hour.sent or 0) * scale, hour)
        for index, hour in enumerate(hours)
    )
    return Chart(
        bars,
        round(max([*totals, 0])),
        round(sum(hour.received or 0 for hour in hours)),
        round(sum(hour.sent or 0 for hour in hours)),
    )
