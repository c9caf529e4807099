"""Waiting for another thread or process: the only place where tests pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT = 300.0
"""Seconds after which something hangs: ten times as long as it takes on a busy machine."""

_PAUSES = (0.02, 0.5)  # seconds, minimum and maximum
_PART = 0.1  # the pause, of the wait so far: each look costs the programs that are asked

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], what: str, seconds: float = TIMEOUT) -> _T:
    """Return the first true result of ``condition``; AssertionError after ``seconds``.

    ``what`` completes the sentence "waited n s for ...". The condition is checked once more after
    the deadline, so that a slow machine does not miss a recent change.
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
