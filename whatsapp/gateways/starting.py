"""Which sessions this process has just started, and which have been starting for too long."""

from __future__ import annotations

import threading
import time


class Starting:
    """Remembers starts for one gateway; safe to share between threads."""

    def __init__(self, *, settle_seconds: float, stuck_seconds: float) -> None:
        """Let a started session alone for a while, and give it up after another."""
        self._settle_seconds = settle_seconds
        self._stuck_seconds = stuck_seconds
        self._lock = threading.Lock()
        self._started_at: dict[str, float] = {}
        self._starting_since: dict[str, float] = {}

    def started(self, channel_id: str) -> None:
        """Note that the session has just been started."""
        with self._lock:
            self._started_at[channel_id] = time.monotonic()
            self._starting_since.pop(channel_id, None)

    def settles(self, channel_id: str) -> bool:
        """Whether it was started so lately that it must not even be asked."""
        with self._lock:
            started_at = self._started_at.get(channel_id)
            if started_at is None:
                return False
            if time.monotonic() - started_at < self._settle_seconds:
                return True
            del self._started_at[channel_id]
            return False

    def saw(self, channel_id: str, *, starting: bool) -> bool:
        """Note what the gateway says of a session, and tell whether it has got stuck.

        It has when it was seen starting each time, the first time long ago.
        """
        with self._lock:
            if not starting:
                self._starting_since.pop(channel_id, None)
                return False
            now = time.monotonic()
            return now - self._starting_since.setdefault(channel_id, now) >= self._stuck_seconds
