"""The time, handed to whatever needs it, so that a test can move it by hand."""

import datetime as dt
import math
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


_MILLISECONDS = 1e11  # a number above this counts milliseconds, not seconds (those are of 5138)


def unix_seconds(value: object) -> float:
    """Return a time that a gateway tells in Unix seconds, 0 where it is none.

    It may be in seconds or milliseconds, a number also as text, or RFC 3339 with its zone.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _of_text(value) if isinstance(value, str) else 0.0
    if not math.isfinite(number):
        return 0.0
    return number / 1000 if number > _MILLISECONDS else number


def _of_text(value: str) -> float:
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return at.timestamp() if at.tzinfo is not None else 0.0
