"""One gateway's channels from its own list and message source, while Prometheus is down."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from reconnect_hook.dashboard.prometheus import ChannelMetrics, GatewayReadings
from reconnect_hook.dashboard.timeline import HOURS, HourCounts, quarter_at
from zapwatch.channels import Channel, known_numbers
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings
from zapwatch.config.gateway import MessageSourceKind
from zapwatch.gateways.base import Gateway, GatewayError
from zapwatch.messages.source import MessageSource
from zapwatch.messages.webhook_log import MessageLogError

_log = logging.getLogger("reconnect_hook")

LIST_SECONDS = 10.0
"""Pause between two lists, shared by all viewers."""

_BUDGET_SECONDS = 900.0  # the same for a gateway with a request budget
_PATIENCE_SECONDS = 2.0  # that a reader waits for a list just requested

OpenSource = Callable[[Callable[[], Collection[Channel]]], MessageSource | None]
"""Opens the gateway's message source; the argument returns the channels listed last."""


class DirectReader:
    """Reads one gateway while a page is open: one list at a time, shared by all viewers.

    With a request budget, repairs have priority, and the last list counts until the next one.
    """

    def __init__(
        self,
        client: Gateway,
        gateway: GatewaySettings,
        open_source: OpenSource,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._gateway = gateway
        self._open_source = open_source
        self._clock = clock or Clock()
        self._is_counted = gateway.requests_per_month is not None
        self._pause = _BUDGET_SECONDS if self._is_counted else LIST_SECONDS
        self._condition = threading.Condition()
        self._is_listing = self._is_reading = False
        self._channels: tuple[Channel, ...] = ()
        self._readings: GatewayReadings | None = None
        self._read_at = self._began_at = self._next_at = float("-inf")
        self._ages: Mapping[str, float] = {}
        self._log_up: bool | None = None
        self._source: MessageSource | None = None
        self.numbers: Mapping[str, str] = {}
        """The channels' own numbers by key, from all lists so far; only in memory."""

    def begin(self) -> None:
        """Request a list if one is due."""
        with self._condition:
            now = self._clock.monotonic()
            if self._is_reading or now < self._next_at:
                return
            if self._client.can_spare_list():
                threading.Thread(target=self._read, name="page-list", daemon=True).start()
                self._is_reading = self._is_listing = True
                self._began_at = now
            else:
                self._next_at = now + self._pause

    def readings(self) -> GatewayReadings | None:
        """Return the readings of the last list, or None if it is too old.

        Waits for a list only if there is no other, and at most two seconds from its request.
        """
        self.begin()
        with self._condition:
            if self._present() is None:
                left = self._began_at + _PATIENCE_SECONDS - self._clock.monotonic()
                self._condition.wait_for(lambda: not self._is_listing, max(0.0, left))
            return self._present()

    def channels(self) -> Collection[Channel]:
        """Return the channels of the last list; request one if it is due."""
        self.readings()
        return self._channels

    def _present(self) -> GatewayReadings | None:
        is_old = self._clock.monotonic() - self._read_at > 2 * self._pause
        return None if is_old and not self._is_counted else self._readings

    def _read(self) -> None:
        """Publish the list as soon as it arrives, and again with the ages of messages."""
        try:
            is_up = self._list()
            self._publish(is_up=is_up)
            if is_up:
                self._read_ages()
                self._publish(is_up=True)
        finally:
            with self._condition:
                self._is_reading = self._is_listing = False
                self._next_at = self._clock.monotonic() + self._pause
                self._condition.notify_all()

    def _list(self) -> bool:
        try:
            self._channels = self._client.list_channels().channels
            self.numbers = known_numbers(self._channels, self.numbers)
        except GatewayError as error:
            _log.info("the page's list of %s: %s", self._gateway.name, error)
        except Exception:  # noqa: BLE001 - handled as a failed list
            _log.exception("the page's list met a fault of the hook itself")
        else:
            return True
        return False

    def _read_ages(self) -> None:
        try:
            if self._source is None:
                self._source = self._open_source(lambda: self._channels)
            source = self._source
            if source is None:
                return
            # From the gateway's own list, find() returns only times of messages, no first looks.
            is_list = self._gateway.messages is MessageSourceKind.ACTIVITY
            found = (source.find if is_list else source.poll)(self._channels)
        except MessageLogError as error:
            _log.info("the page's messages of %s: %s", self._gateway.name, error)
            self._ages, self._log_up = {}, False
        except Exception:  # noqa: BLE001 - handled as an unreadable log
            _log.exception("the page's messages met a fault of the hook itself")
            self._ages, self._log_up = {}, False
        else:
            # The newest message may be among the unread rows.
            self._ages = {} if found.unread else found.last_message
            self._log_up = True

    def _publish(self, *, is_up: bool) -> None:
        channels = {one.key: self._metrics_of(one) for one in self._channels} if is_up else {}
        readings = GatewayReadings(self._clock.time(), is_up, self._log_up, channels)
        with self._condition:
            self._readings = readings
            self._read_at = self._clock.monotonic()
            self._is_listing = False
            self._condition.notify_all()

    def _metrics_of(self, channel: Channel) -> ChannelMetrics:
        found = ChannelMetrics(channel.id, channel.connected, channel.status)
        if self._log_up is None:
            return found
        return replace(
            found,
            last_message=self._ages.get(channel.key),
            threshold=self._gateway.silence_threshold(channel),
        )

    def close(self) -> None:
        """Close the connections; a read in progress closes its own at its end."""
        source, self._source = self._source, None
        if source is not None:
            source.close()


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
            _log.info("the page's week of %s: %s", self._gateway.name, error)
        except Exception:  # noqa: BLE001 - handled as an unreadable log
            _log.exception("the page's week met a fault of the hook itself")
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
                raise _TooLongError("it is too long to be read for a page")
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
