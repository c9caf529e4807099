"""Injectable clock, which tests can set."""

import threading
import time

STEP_SECONDS = 300.0
"""Tolerance in seconds for corrections of a clock; greater ones are steps."""

SETTLED_SECONDS = 3600.0
"""Monotonic time, which begins at the machine's start, from which its Unix time is trusted.

Before NTP has set it, it may be years off: nothing stored is deleted or replaced by it.
"""


class Clock:
    """System clocks, in seconds."""

    monotonic = staticmethod(time.monotonic)
    """Monotonic time, shared by all processes on the machine."""

    time = staticmethod(time.time)
    """Unix time, for people and other programs."""

    def sleep(self, seconds: float) -> None:
        """Block the thread."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait at most ``seconds`` for the event; return whether it is set."""
        return event.wait(seconds)


class SkippedTime:
    """Periods that a clock has skipped by a correction, or while the machine was suspended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: float | None = None
        self.periods: tuple[tuple[float, float], ...] = ()
        """The last ten, in Unix seconds."""

    def note(self, now: float) -> bool:
        """Compare ``now`` (Unix seconds) with the monotonic clock; return whether time was skipped.

        When the clock is set back, the periods that lie in the future are void.
        """
        monotonic = self._clock.monotonic()
        ahead = now - monotonic
        past = tuple(one for one in self.periods if one[1] <= now + STEP_SECONDS)
        if self._ahead is None or past != self.periods:
            self._ahead, self.periods = ahead, past
        before, self._ahead = self._ahead, max(ahead, self._ahead)
        if ahead <= before + STEP_SECONDS:
            return False
        self.periods = (*self.periods[-9:], (before + monotonic, now))
        return True
