"""The time, handed to whatever needs it, so that a test can move it by hand."""

import threading
import time


class Clock:
    """The machine's own clocks, in seconds."""

    def monotonic(self) -> float:
        """Return a time that only ever grows, the same for every process on the machine."""
        return time.monotonic()

    def time(self) -> float:
        """Return the seconds since 1970, for people and other programs."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Pause the thread."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Pause until the event is set, for so many seconds at most; whether it is set."""
        return event.wait(seconds)
