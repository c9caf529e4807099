"""Clocks that a test moves."""

from __future__ import annotations

import itertools
import threading

from zapwatch.clock import Clock

_LOOK = 1e-6  # seconds that pass with each look, as they would


class AheadClock(Clock):
    """The machine's clock, ``ahead`` by as many seconds as a test sets."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def time(self) -> float:
        return super().time() + self.ahead


class HandMovedClock(Clock):
    """A clock that stands still; its pauses end at once, as the time that they take has passed."""

    def __init__(self) -> None:
        self._seconds = 5_000.0
        self._ahead = 1_700_000_000.0
        self.pauses: list[float] = []
        self._looks = itertools.count()

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._seconds + next(self._looks) * _LOOK

    def time(self) -> float:
        """Return seconds since 1970."""
        return self._ahead + self._seconds

    def sleep(self, seconds: float) -> None:
        """Let the time of a pause pass."""
        self.pauses.append(seconds)
        self.forward(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let the time of a pause pass, unless the event is set."""
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def set_time(self, seconds: float) -> None:
        """Set the seconds since 1970, as an operator does."""
        self._ahead = seconds - self._seconds
