"""Number of examples of property tests."""

from __future__ import annotations

from hypothesis import settings

FAST = "fast"
"""The profile of ``make test-fast``."""

settings.register_profile(FAST, max_examples=5)


def examples(most: int) -> int:
    """Return ``most``, or fewer with the fast profile."""
    chosen = settings.get_current_profile_name()
    return min(most, settings.get_profile(chosen).max_examples) if chosen == FAST else most
