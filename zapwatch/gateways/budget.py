"""The request budget of a gateway: how many requests a month may cost, and how they are spread.

Both programs ask the same account and share nothing, so each has a part of its own: the exporter
three quarters, for its lists, and whatever else makes calls the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from zapwatch.clock import Clock

_List = TypeVar("_List")
MONTH_SECONDS = 30 * 86400.0
_FOR_LISTS = 0.75
_AT_ONCE = 0.1  # of what calls may cost in a month
_UNSENT = ("connection", "tls")  # reasons of errors


class RequestBudget:
    """A budget without bounds."""

    def take(self) -> bool:
        """Take one request out of the budget; false where none is left."""
        return True

    def spares(self, requests: int) -> bool:  # noqa: ARG002
        """Whether so many may go to what can wait, so that repairs keep enough."""
        return True

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:  # noqa: ARG002
        """Return the list that ``ask`` makes with so many requests; raise what it raises."""
        return ask()


class CallBudget(RequestBudget):
    """The part for calls: a tenth of it at once, the rest as the month goes by.

    So no 30 days have more than the whole, wherever they begin. Safe to share between threads.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        calls = per_month * (1 - _FOR_LISTS)
        self._most = calls * _AT_ONCE
        self._per_second = calls * (1 - _AT_ONCE) / MONTH_SECONDS
        self._left = self._most
        self._at = self._clock.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one request out of the budget; false where none is left."""
        with self._lock:
            self._refill()
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def spares(self, requests: int) -> bool:
        """Whether so many leave half of what may be used at once."""
        with self._lock:
            self._refill()
            return self._left - requests >= self._most / 2

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now


class ListBudget(RequestBudget):
    """The part for lists: one as often as the month allows, and the last one again in between.

    For one thread. An error is kept as a list is, so that a gateway which fails costs no more,
    unless no request has reached the gateway.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._per_month = per_month * _FOR_LISTS
        self._next = float("-inf")
        self._answer: Any = None

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:
        """Return the list that ``ask`` makes with so many requests, or the last one."""
        now = self._clock.monotonic()
        if now >= self._next:
            # So many lists have one pause less between them.
            pauses = max(1, self._per_month // requests - 1)
            self._next = now + MONTH_SECONDS / pauses
            try:
                self._answer = ask()
            except Exception as error:  # noqa: BLE001 - it is raised below
                self._answer = error
                if getattr(error, "reason", None) in _UNSENT:
                    self._next = now
        if isinstance(self._answer, Exception):
            raise self._answer.with_traceback(None)
        return self._answer  # type: ignore[no-any-return]
