"""Profiles of property tests: how many examples, and no limit of time for one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

FAST = "fast"
"""The profile of ``make test-fast``."""

# How long an example takes says how busy the machine is.
settings.register_profile(
    "default",
    settings.get_profile("default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")
settings.register_profile(FAST, max_examples=5)


def examples(most: int) -> int:
    """Return ``most``, or fewer with the fast profile."""
    chosen = settings.get_current_profile_name()
    return min(most, settings.get_profile(chosen).max_examples) if chosen == FAST else most
