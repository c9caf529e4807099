"""Channel history: the last 24 hours by quarter, the last week by hour.

It is Prometheus', or derived from the messages where Prometheus has none.
"""

from __future__ import annotations

import enum
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

from reconnect_hook.dashboard.readings import Prometheus, SourceError, quote_label
from zapwatch.channels import channel_key
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("reconnect_hook")

_T = TypeVar("_T")

QUARTER_SECONDS = 900
"""Length of one cell of a strip."""

QUARTERS = 96
"""Cells of a strip: 24 hours."""

_SECONDS = 15.0  # timeout of Prometheus
_SILENCE = "WhatsAppChannel(Silent|NeverHeard)"


class TimelineState(enum.StrEnum):
    """The worst state of a channel in a quarter of an hour."""

    UNKNOWN = "unknown"
    CONNECTED = "connected"
    SILENT = "silent"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """Consecutive quarters with the same state."""

    state: TimelineState
    begin: int
    length: int


def first_quarter_at(seconds: float) -> int:
    """Return the first quarter of the strip that ends at a Unix time."""
    return quarter_at(seconds) - QUARTERS + 1


def quarter_at(seconds: float) -> int:
    """Return the number of a Unix time's quarter of an hour, counted from 1970."""
    return math.ceil(seconds / QUARTER_SECONDS)


class DayTimelines:
    """Caches a gateway's quarters and shares; queries only what is new. Not thread-safe."""

    def __init__(self, prometheus: Prometheus, gateway: str, *, clock: Clock | None = None) -> None:
        self._prometheus = prometheus
        self._clock = clock or Clock()
        self._gateway = quote_label(gateway)
        self._cells: dict[str, dict[int, TimelineState]] = {}
        self._until: int | None = None
        """Quarters before this one are cached."""
        self._shares: dict[float, Mapping[str, Mapping[str, float]]] = {}
        self._ask_shares_at: dict[float, float] = {}

    def refresh(self) -> Mapping[str, Mapping[int, TimelineState]]:
        """Return the known quarters by channel key; raise SourceError."""
        first = first_quarter_at(self._clock.time())
        last = first + QUARTERS - 1
        begin = max(first, self._until) if self._until is not None else first
        connected = (
            f"min by (channel) (min_over_time(whatsapp_channel_connected"
            f"{{gateway={self._gateway}}}[{QUARTER_SECONDS}s]))"
        )
        silent = (
            f'max by (channel) (max_over_time(ALERTS{{alertname=~"{_SILENCE}",alertstate="firing",'
            f"gateway={self._gateway}}}[{QUARTER_SECONDS}s]))"
        )
        found = {
            key: {q: s for q, s in cells.items() if first <= q < begin}
            for key, cells in self._cells.items()
        }
        for key, quarter, value in self._ask(connected, begin, last):
            state = TimelineState.CONNECTED if value == 1 else TimelineState.DISCONNECTED
            found.setdefault(key, {})[quarter] = state
        for key, quarter, _ in self._ask(silent, begin, last):
            cells = found.setdefault(key, {})
            if cells.get(quarter) is not TimelineState.DISCONNECTED:
                cells[quarter] = TimelineState.SILENT
        self._cells = {key: cells for key, cells in found.items() if cells}
        # Query the current quarter again, and the one before it for late scrapes.
        self._until = last - 1
        return self._cells

    def shares(self) -> Mapping[str, Shares]:
        """Return the connected shares by channel key, the last ones if Prometheus fails."""
        now = self._clock.monotonic()
        for pause, queries in _SHARES.items():
            if now < self._ask_shares_at.get(pause, now):
                continue
            try:
                found = _read_shares(
                    self._prometheus, f"gateway={self._gateway}", queries, _SECONDS
                )
            except SourceError:
                self._ask_shares_at[pause] = now + _SHARES_AGAIN_SECONDS
            else:
                self._shares[pause] = found
                self._ask_shares_at[pause] = now + pause if found else now
        values: dict[str, dict[str, float]] = {}
        for known in self._shares.values():
            for key, some in known.items():
                values.setdefault(key, {}).update(some)
        return {key: Shares(**some) for key, some in values.items()}

    def _ask(self, query: str, first: int, last: int) -> Iterable[tuple[str, int, float]]:
        for series in self._prometheus.over_time(
            query, first * QUARTER_SECONDS, last * QUARTER_SECONDS, QUARTER_SECONDS, _SECONDS
        ):
            key = channel_key(series.labels.get("channel", ""))
            for at, value in series.values:
                yield key, round(at / QUARTER_SECONDS), value


def spans_of(cells: Mapping[int, TimelineState], first: int) -> tuple[TimelineSpan, ...]:
    """Return the strip of these cells that begins with the quarter ``first``."""
    states = [cells.get(first + index, TimelineState.UNKNOWN) for index in range(QUARTERS)]
    runs = []
    begin = 0
    for state, group in groupby(states):
        length = len(list(group))
        runs.append(TimelineSpan(state, begin, length))
        begin += length
    return tuple(runs)


class DrawnStrips(NamedTuple):
    """A gateway's last 24 hours from Prometheus' last answer, by channel key."""

    quarters: Mapping[str, Mapping[int, TimelineState]]
    shares: Mapping[str, Shares]


def with_messages(
    cells: Mapping[int, TimelineState], first: int, heard: Collection[int], limit: float | None
) -> Mapping[int, TimelineState]:
    """Return the cells of a strip, its unknown quarters derived from messages.

    A ``heard`` quarter had a message, so the channel was connected. Another is silent if the last
    message before it is more than ``limit`` seconds old; otherwise it stays unknown.
    """
    known = dict(cells)
    last = max((quarter for quarter in heard if quarter < first), default=None)
    for quarter in range(first, first + QUARTERS):
        if quarter in heard:
            last = quarter
            known.setdefault(quarter, TimelineState.CONNECTED)
        elif last is not None and limit and (quarter - 1 - last) * QUARTER_SECONDS >= limit:
            known.setdefault(quarter, TimelineState.SILENT)
    return known


HOURS = 168
"""Hours of a week."""

_WEEK_SECONDS = 3.0  # timeout of Prometheus
_FRESH_SECONDS = 60.0
_TROUBLE_SECONDS = 5.0  # until the next try after a failure
_PATIENCE_SECONDS = 1.0  # that a reader waits for another reader's query
_KEPT = 100  # channels


@dataclass(frozen=True, slots=True)
class HourCounts:
    """Messages of the hour that ends at ``end`` (Unix seconds); None without a count."""

    end: float
    received: float | None
    sent: float | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Connected shares (0 to 1) of the known time; None if no time is known."""

    day: float | None = None
    month: float | None = None
    days: float = 0.0
    """Days of the month that are known."""
    dropped_at: float | None = None
    """Last time it was not connected, Unix seconds, to five minutes."""
    connected_at: float | None = None
    """Last time it was connected, in the same unit."""


class ChannelAnswers(Generic[_T]):
    """Queries Prometheus once a minute for each channel on an open page; thread-safe."""

    _UNKNOWN: _T

    def __init__(self, prometheus: Prometheus, *, clock: Clock | None = None) -> None:
        self._prometheus = prometheus
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, _T]] = OrderedDict()

    def of(self, gateway: str, channel: str) -> _T:
        """Return the answer, empty if Prometheus gives none."""
        # A slow Prometheus must not block all of the hook's threads.
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            return self._UNKNOWN
        try:
            return self._of((gateway, channel))
        finally:
            self._lock.release()

    def _of(self, channel: tuple[str, str]) -> _T:
        until, answer = self._kept.get(channel, (-math.inf, self._UNKNOWN))
        if self._clock.monotonic() < until:
            return answer
        try:
            answer, seconds = self._ask(*channel), _FRESH_SECONDS
        except SourceError:
            answer, seconds = self._UNKNOWN, _TROUBLE_SECONDS
        self._kept[channel] = self._clock.monotonic() + seconds, answer
        self._kept.move_to_end(channel)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return answer

    def _ask(self, gateway: str, channel: str) -> _T:
        raise NotImplementedError


class ConnectedShares(ChannelAnswers[Shares]):
    """Each channel's connected share of the last day and of 30 days, with its last changes."""

    _UNKNOWN = Shares()

    def _ask(self, gateway: str, channel: str) -> Shares:
        labels = f"gateway={quote_label(gateway)},channel={quote_label(channel)}"
        found = _read_shares(self._prometheus, labels, _ALL_SHARES, _WEEK_SECONDS)
        return Shares(**found.get(channel_key(channel), {}))


_SHARES = {
    300.0: {"day": "avg_over_time({series}[24h])"},
    3600.0: {
        "month": "avg_over_time({series}[30d])",
        "days": "count_over_time({series}[30d:1d])",
    },
}
"""Queries of a gateway's shares by pause in seconds: a month's cost Prometheus 30 times a day's."""

_SHARES_AGAIN_SECONDS = 300.0  # after a failure

_ALL_SHARES = {
    **{name: query for queries in _SHARES.values() for name, query in queries.items()},
    "dropped_at": "max_over_time(timestamp({series} < 1)[30d:5m])",
    "connected_at": "max_over_time(timestamp({series} > 0)[30d:5m])",
}
"""Queries of one channel's Shares by field."""


def _read_shares(
    prometheus: Prometheus, labels: str, queries: Mapping[str, str], seconds: float
) -> dict[str, dict[str, float]]:
    """Return the fields of Shares by channel key; raise SourceError."""
    series = f"gateway_channel:whatsapp_channel_connected:avg5m{{{labels}}}"
    named = (
        f'label_replace({query.replace("{series}", series)}, "is", "{name}", "", "")'
        for name, query in queries.items()
    )
    found: dict[str, dict[str, float]] = {}
    for sample in prometheus.now(" or ".join(named), seconds):
        values = found.setdefault(channel_key(sample.labels.get("channel", "")), {})
        if sample.labels.get("is") in queries:
            values[sample.labels["is"]] = sample.value
    return found


class WeekHistory(ChannelAnswers[tuple[HourCounts, ...]]):
    """The hours of each channel's last week, oldest first."""

    _UNKNOWN = ()

    def _ask(self, gateway: str, channel: str) -> tuple[HourCounts, ...]:
        last = math.ceil(self._clock.time() / 3600)
        first = last - HOURS + 1
        # max: with several exporters, each counts all messages.
        query = (
            f"max by (direction) (increase(whatsapp_channel_messages_total{{"
            f"gateway={quote_label(gateway)},channel={quote_label(channel)}}}[1h]))"
        )
        counts: dict[str, dict[int, float]] = {}
        for series in self._prometheus.over_time(
            query, first * 3600, last * 3600, 3600, _WEEK_SECONDS
        ):
            hours = {round(at / 3600): value for at, value in series.values}
            counts[series.labels.get("direction", "")] = hours
        received, sent = counts.get("in", {}), counts.get("out", {})
        return tuple(
            HourCounts(hour * 3600.0, received.get(hour), sent.get(hour))
            for hour in range(first, last + 1)
        )


_WEEK_KEPT_SECONDS = 600.0
_WEEKS_KEPT = 100  # channels
_WEEK_PAUSE_SECONDS = 0.02  # between two statements, to leave the database to its other users
_WEEK_LONGEST_SECONDS = 120.0  # limit for reading a log for a page
_WEEK_PATIENCE_SECONDS = 1.0  # that a page waits for a week being read


@dataclass(frozen=True, slots=True)
class MessageWeek:
    """A channel's last week, derived from its messages."""

    hours: tuple[HourCounts, ...] = ()
    """A week of hours, oldest first; ``received`` counts minutes with a message."""
    quarters: frozenset[int] = frozenset()
    """The quarters of an hour with a message, as numbered by quarter_at()."""


_NOTHING = MessageWeek()


class _TooLongError(Exception):
    """Reading the week exceeded _WEEK_LONGEST_SECONDS."""


class MessageWeeks:
    """Reads channels' last weeks from the message source, one at a time; thread-safe."""

    def __init__(
        self,
        gateway: GatewaySettings,
        open_source: Callable[[], MessageSource | None],
        *,
        clock: Clock | None = None,
    ) -> None:
        self.count = 0
        """Number of weeks read so far."""
        self._gateway = gateway
        self._open_source = open_source
        self._clock = clock or Clock()
        self._condition = threading.Condition()
        self._reading: str | None = None
        self._weeks: dict[str, tuple[float, MessageWeek]] = {}

    def of(self, key: str) -> MessageWeek:
        """Return a channel's week; it is empty until read."""
        if not self._gateway.messages.has_echoes:
            return _NOTHING
        with self._condition:
            at, _week = self._weeks.get(key, (-math.inf, _NOTHING))
            is_old = self._clock.monotonic() - at > _WEEK_KEPT_SECONDS
            if is_old and self._reading is None:
                threading.Thread(
                    target=self._read, args=(key,), name="page-week", daemon=True
                ).start()
                self._reading = key  # only of a thread that could be started
            if key not in self._weeks and self._reading == key:
                self._condition.wait_for(lambda: key in self._weeks, _WEEK_PATIENCE_SECONDS)
            return self._weeks.get(key, (0.0, _NOTHING))[1]

    def _read(self, key: str) -> None:
        week = _NOTHING
        try:
            week = self._week(key)
        except (MessageLogError, _TooLongError) as error:
            _log.info("the page's message history of %s: %s", self._gateway.name, error)
        except Exception:  # noqa: BLE001 - handled as an unreadable log
            _log.exception("the page's message history failed: internal error")
        with self._condition:
            self._weeks.pop(key, None)
            self._weeks[key] = self._clock.monotonic(), week
            while len(self._weeks) > _WEEKS_KEPT:
                del self._weeks[next(iter(self._weeks))]
            self._reading = None
            self.count += 1
            self._condition.notify_all()

    def _week(self, key: str) -> MessageWeek:
        until = self._clock.monotonic() + _WEEK_LONGEST_SECONDS

        def pause() -> None:
            if self._clock.monotonic() > until:
                raise _TooLongError("there is too much to read for a page")
            self._clock.sleep(_WEEK_PAUSE_SECONDS)

        # A separate source: it is closed after this read.
        source = self._open_source()
        if source is None:
            return _NOTHING
        try:
            found = source.histories({key}, pause).get(key)
        finally:
            source.close()
        if found is None:
            return _NOTHING
        minutes = found.busy_minutes()
        first = len(minutes) - HOURS
        hours = tuple(
            HourCounts(found.begins + (first + index + 1) * 3600.0, float(busy) or None, None)
            for index, busy in enumerate(minutes[first:])
        )
        quarters = frozenset(quarter_at(began) + 1 for began in found.busy_quarters())
        return MessageWeek(hours, quarters)
