"""Concurrent calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def at_once(*work: Callable[[], _T]) -> list[_T]:
    """Run all functions at the same time in separate threads; return their results."""
    barrier = threading.Barrier(len(work))

    def begin(one: Callable[[], _T]) -> _T:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))
