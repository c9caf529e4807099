"""The time, handed to whatever needs it, so that a test can move it by hand."""

import threading
import time


class Clock:
    """The machine's own clocks, in seconds."""

    monotonic = staticmethod(time.monotonic)
    """A time that only ever grows, the same for every process on the machine."""

    time = staticmethod(time.time)
    """The seconds since 1970, for people and other programs."""

    def sleep(self, seconds: float) -> None:
        """Pause the thread."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Pause until the event is set, for so many seconds at most; whether it is set."""
        return event.wait(seconds)
