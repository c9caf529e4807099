"""Memory that a piece of work allocates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def least_peak(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> int:
    """Return the most bytes that ``work`` has allocated at a time; ``before`` does not count.

    The least of three runs: other threads of the tests' process allocate too.
    """
    peaks = []
    for _ in range(3):
        before()
        tracemalloc.start()
        try:
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
