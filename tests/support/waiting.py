"""Waiting for something that another thread or process does: the one place where tests pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_PAUSES = (
    0.02,
    0.5,
)  # seconds, the shortest and the longest; what has taken long is looked at less
_PART = 0.02

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], seconds: float, what: str) -> _T:
    """Return what ``condition`` returns as soon as it is true; AssertionError after ``seconds``.

    ``what`` completes the sentence "waited n s for ...". The condition is looked at once more when
    the time is up, so that a slow machine does not miss what has just happened.
    """
    began = time.monotonic()
    deadline = began + seconds
    pause = threading.Event()
    while True:
        last = time.monotonic() >= deadline
        result = condition()
        if result:
            return result
        if last:
            raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {result!r}")
        shortest, longest = _PAUSES
        pause.wait(min(longest, max(shortest, _PART * (time.monotonic() - began))))
