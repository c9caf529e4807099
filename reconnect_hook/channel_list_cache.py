"""One channel list for all repairs that want one at the same time: the call is dear."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.gateways.base import Gateway, GatewayError

_FRESH_SECONDS = 1.0
_PAUSE_SECONDS = 1.0  # between two lists that are watched for what a call has brought about


class ChannelListCache:
    """Hands out the gateway's list; for any number of threads."""

    def __init__(self, client: Gateway, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._client = client
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answered_at = float("-inf")
        self._seconds = 0.0
        self._answer: Mapping[str, Channel] | GatewayError = {}

    @property
    def seconds(self) -> float:
        """How long the last list took."""
        return self._seconds

    def since(self, moment: float) -> Mapping[str, Channel]:
        """Return the channels by key, from a list that was asked for at ``moment`` or later.

        ``moment`` is of clock.monotonic(). Raises GatewayError, also the one that another thread
        got from such a list.
        """
        # Who waits here for another thread's call finds its answer, unless it came too early.
        with self._lock:
            return self._since(moment)

    def next(self, moment: float, wait: Callable[[float], None]) -> Mapping[str, Channel]:
        """Return what since() does, after a pause since the last list, as long as that one took.

        All repairs that watch their channels come back share one list a round, however many they
        are. ``wait`` pauses for some seconds. Raises GatewayError, and what ``wait`` raises.
        """
        while self._asked_at < moment:
            pause = self._answered_at + max(_PAUSE_SECONDS, self._seconds) - self.clock.monotonic()
            if pause <= 0:
                break
            wait(pause)
        return self.since(moment)

    def fresh(self, moment: float) -> Mapping[str, Channel]:
        """Return a list that was asked for at ``moment`` or later, and is still fresh.

        One list serves all repairs that begin while it is fresh: for as long after its answer as it
        took to come, and at least for a second. Raises GatewayError.
        """
        called_at = self.clock.monotonic()
        with self._lock:
            if isinstance(self._answer, GatewayError):
                # Only for those who waited for it: the next one is to try again.
                fresh_from = called_at - _FRESH_SECONDS
            else:
                fresh_from = self.clock.monotonic() - max(_FRESH_SECONDS, 2 * self._seconds)
            return self._since(max(moment, fresh_from))

    def _since(self, moment: float) -> Mapping[str, Channel]:
        if self._asked_at < moment:
            asked_at = self.clock.monotonic()
            try:
                listed = self._client.list_channels().channels
                self._answer = {channel.key: channel for channel in listed}
            except GatewayError as error:
                self._answer = error
            self._answered_at = self.clock.monotonic()
            self._seconds = self._answered_at - asked_at
            self._asked_at = asked_at
        answer = self._answer
        if isinstance(answer, GatewayError):
            raise answer.with_traceback(None)
        return answer
