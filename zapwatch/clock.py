"""Injectable clock, which tests can set."""

import threading
import time

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
