"""The last 24 hours of every channel, a quarter of an hour at a time, from Prometheus."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from reconnect_hook.page.sources import Prometheus, quoted
from whatsapp.channels import channel_key

QUARTER_SECONDS = 900
"""What one cell of a strip stands for."""

QUARTERS = 96
"""So many of them make a strip."""

_SECONDS = 15.0  # until Prometheus has to have answered
_SILENCE = "WhatsAppChannel(Silent|NeverHeard)"


class State(enum.StrEnum):
    """The worst that a channel was in a quarter of an hour."""

    UNKNOWN = "unknown"
    CONNECTED = "connected"
    SILENT = "silent"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Run:
    """Quarters in a row with the same state."""

    state: State
    begin: int
    length: int


def current_quarter() -> int:
    """Return the number of the quarter of an hour that it is now, since 1970."""
    return math.ceil(time.time() / QUARTER_SECONDS)


class Strips:
    """Remembers what each quarter was; refresh() asks for what is new. For one thread."""

    def __init__(self, prometheus: Prometheus, gateway: str) -> None:
        self._prometheus = prometheus
        self._gateway = quoted(gateway)
        self._cells: dict[str, dict[int, State]] = {}
        self._until: int | None = None
        """Quarters before this one are known."""

    def refresh(self) -> Mapping[str, tuple[Run, ...]]:
        """Return the strips by channel key; raise SourceError."""
        last = current_quarter()
        first = last - QUARTERS + 1
        begin = max(first, self._until) if self._until is not None else first
        connected = (
            f"min by (channel) (min_over_time(whatsapp_channel_connected"
            f"{{gateway={self._gateway}}}[{QUARTER_SECONDS}s]))"
        )
        silent = (
            f'max by (channel) (max_over_time(ALERTS{{alertname=~"{_SILENCE}",alertstate="firing",'
            f"gateway={self._gateway}}}[{QUARTER_SECONDS}s]))"
        )
        found: dict[str, dict[int, State]] = {}
        for key, quarter, value in self._ask(connected, begin, last):
            state = State.CONNECTED if value == 1 else State.DISCONNECTED
            found.setdefault(key, {})[quarter] = state
        for key, quarter, _ in self._ask(silent, begin, last):
            cells = found.setdefault(key, {})
            if cells.get(quarter) is not State.DISCONNECTED:
                cells[quarter] = State.SILENT
        kept = {
            key: {q: s for q, s in cells.items() if first <= q < begin}
            for key, cells in self._cells.items()
        }
        for key, cells in found.items():
            kept.setdefault(key, {}).update(cells)
        self._cells = {key: cells for key, cells in kept.items() if cells}
        # The present quarter, and the one before for what was scraped late, are asked for again.
        self._until = last - 1
        return {key: _runs(cells, first) for key, cells in self._cells.items()}

    def _ask(self, query: str, first: int, last: int) -> Iterable[tuple[str, int, float]]:
        for series in self._prometheus.over_time(
            query, first * QUARTER_SECONDS, last * QUARTER_SECONDS, QUARTER_SECONDS, _SECONDS
        ):
            key = channel_key(series.labels.get("channel", ""))
            for at, value in series.values:
                yield key, round(at / QUARTER_SECONDS), value


def _runs(cells: Mapping[int, State], first: int) -> tuple[Run, ...]:
    states = [cells.get(first + index, State.UNKNOWN) for index in range(QUARTERS)]
    runs = []
    begin = 0
    for state, group in groupby(states):
        length = len(list(group))
        runs.append(Run(state, begin, length))
        begin += length
    return tuple(runs)
