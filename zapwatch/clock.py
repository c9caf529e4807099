"""Injectable clock, which tests can set, and parsing of gateways' timestamps."""

import datetime as dt
import math
import threading
import time


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


_MILLISECONDS = 1e11  # a larger number is in milliseconds (as seconds it would be the year 5138)


def unix_seconds(value: object) -> float:
    """Return a gateway's timestamp in Unix seconds, 0 if it is invalid.

    Accepts seconds or milliseconds, as a number or a text, and RFC 3339 with a time zone.
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
