"""A clock that stands still until a test moves it."""

from __future__ import annotations

import itertools

import pytest

_LOOK = 1e-6  # seconds that pass with each look, as they would


class HandMovedClock:
    """Both clocks that the simulator needs, and ``time`` for a module that only measures."""

    def __init__(self) -> None:
        self._seconds = 5_000.0
        self._looks = itertools.count()

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._seconds + next(self._looks) * _LOOK

    def epoch(self) -> float:
        """Return seconds since 1970."""
        return 1_700_000_000.0 + self._seconds

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def rule(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """Take the place of ``time`` in modules that look at time.monotonic()."""
        for module in modules:
            monkeypatch.setattr(f"{module}.time", self)
