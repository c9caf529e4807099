"""A channel's messages in each hour of the last week, from Prometheus."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from reconnect_hook.page.sources import Prometheus, SourceError, quoted

HOURS = 168
"""A week."""

_SECONDS = 3.0  # until Prometheus has to have answered
_FRESH_SECONDS = 60.0
_TROUBLE_SECONDS = 5.0  # until it is asked again when it has failed
_PATIENCE_SECONDS = 1.0  # for another reader's question to be answered
_KEPT = 100  # channels


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour, which ends at ``end`` (Unix seconds); None where nothing was counted."""

    end: float
    received: float | None
    sent: float | None


class Weeks:
    """Asks once a minute for each channel that somebody looks at; safe between threads."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, tuple[Hour, ...]]] = OrderedDict()

    def of(self, gateway: str, channel: str) -> tuple[Hour, ...]:
        """Return the channel's hours, oldest first; none where Prometheus does not answer."""
        # A Prometheus that takes long must not hold up all of the hook's threads.
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            return ()
        try:
            return self._of((gateway, channel))
        finally:
            self._lock.release()

    def _of(self, channel: tuple[str, str]) -> tuple[Hour, ...]:
        at, hours = self._kept.get(channel, (-math.inf, ()))
        if time.monotonic() - at < _FRESH_SECONDS:
            return hours
        try:
            hours = self._ask(*channel)
        except SourceError:
            # Nor is a Prometheus that fails asked by each reader.
            hours, at = (), time.monotonic() - _FRESH_SECONDS + _TROUBLE_SECONDS
        else:
            at = time.monotonic()
        self._kept[channel] = at, hours
        self._kept.move_to_end(channel)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return hours

    def _ask(self, gateway: str, channel: str) -> tuple[Hour, ...]:
        last = math.ceil(time.time() / 3600)
        first = last - HOURS + 1
        # Of several exporters, each counts all messages.
        query = (
            f"max by (direction) (increase(whatsapp_channel_messages_total{{"
            f"gateway={quoted(gateway)},channel={quoted(channel)}}}[1h]))"
        )
        counts: dict[str, dict[int, float]] = {}
        for series in self._prometheus.over_time(query, first * 3600, last * 3600, 3600, _SECONDS):
            hours = {round(at / 3600): value for at, value in series.values}
            counts[series.labels.get("direction", "")] = hours
        received, sent = counts.get("in", {}), counts.get("out", {})
        return tuple(
            Hour(hour * 3600.0, received.get(hour), sent.get(hour))
            for hour in range(first, last + 1)
        )
