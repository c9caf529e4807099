"""Where the simulator gets its time from, so that a test can move it by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in the two ways the simulator needs."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, for durations."""
        ...

    def epoch(self) -> float:
        """Seconds since 1970, for people and other programs."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock, the same for every process on it."""
        return time.monotonic()

    def epoch(self) -> float:
        """Seconds since 1970."""
        return time.time()
