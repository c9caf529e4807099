"""Doing several things at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def at_once(*work: Callable[[], _T]) -> list[_T]:
    """Do all of it at the same time, each in a thread of its own, and return what it returns."""
    barrier = threading.Barrier(len(work))

    def begin(one: Callable[[], _T]) -> _T:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))
