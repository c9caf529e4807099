"""A clock that stands still until a test moves it."""

from __future__ import annotations

import itertools
import threading

import pytest

from zapwatch.clock import Clock

_LOOK = 1e-6  # seconds that pass with each look, as they would


class HandMovedClock(Clock):
    """A clock whose pauses end at once, as the time that they take has passed."""

    def __init__(self) -> None:
        self._seconds = 5_000.0
        self._looks = itertools.count()

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._seconds + next(self._looks) * _LOOK

    def time(self) -> float:
        """Return seconds since 1970."""
        return 1_700_000_000.0 + self._seconds

    def sleep(self, seconds: float) -> None:
        """Let the time of a pause pass."""
        self.forward(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let the time of a pause pass, unless the event is set."""
        if not event.is_set():
            self.forward(seconds)
        return event.is_set()

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def rule(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """Take the place of ``time`` in modules that look at time.monotonic()."""
        for module in modules:
            monkeypatch.setattr(f"{module}.time", self)
