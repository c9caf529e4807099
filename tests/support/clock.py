"""Clocks that tests move."""

from __future__ import annotations

import itertools
import threading

from zapwatch.clock import Clock

_LOOK = 1e-6  # seconds that pass with each reading


class AheadClock(Clock):
    """The machine's clock, ``ahead`` by a number of seconds that tests set.

    ``jumped`` is added to the wall clock only.
    """

    ahead = 0.0
    jumped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def time(self) -> float:
        return super().time() + self.ahead + self.jumped


class HandMovedClock(Clock):
    """A clock that stands still; pauses end at once and advance it."""

    def __init__(self, uptime: float = 5_000.0) -> None:
        self._seconds = uptime
        self._ahead = 1_700_000_000.0
        self.pauses: list[float] = []
        self._looks = itertools.count()

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._seconds + next(self._looks) * _LOOK

    def time(self) -> float:
        return self._ahead + self._seconds

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.forward(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()

    def forward(self, seconds: float) -> None:
        self._seconds += seconds

    def set_time(self, seconds: float) -> None:
        self._ahead = seconds - self._seconds
