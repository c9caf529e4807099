"""What the page knows of a gateway without Prometheus: its list, and its message source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from reconnect_hook.dashboard.readings import (
    LIST_SECONDS,
    ChannelMetrics,
    DirectReader,
    GatewayReadings,
)
from reconnect_hook.dashboard.timeline import MessageWeek, MessageWeeks, quarter_at
from tests.support.clock import HandMovedClock
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import MessageSourceKind
from zapwatch.gateways.base import ChannelList, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.history import History
from zapwatch.messages.message import ActivitySnapshot, MessageLogError

_KNOWN = ActivitySnapshot(1_000.0, {"Loja": 900.0}, messages={}, rows_read=1)
_LIMIT = 3_600.0


class Scene:
    """A reader of a gateway that lists ``loja``, and of a message source."""

    def __init__(
        self, kind: MessageSourceKind = MessageSourceKind.LOG, requests_per_month: int | None = None
    ) -> None:
        self.clock = HandMovedClock()
        self.lists = 0
        self.has_budget = True
        self.list_error: Exception | None = None
        self.listing: Callable[[], None] = lambda: None
        self.found: ActivitySnapshot | Exception = _KNOWN
        self.asked: list[str] = []
        gateway = SimpleNamespace(
            name="wpp",
            messages=kind,
            requests_per_month=requests_per_month,
            silence_threshold=lambda _channel: _LIMIT,
        )
        has_source = kind is not MessageSourceKind.NONE
        self.reader = DirectReader(
            cast(Any, self),
            cast(Any, gateway),
            lambda _listed: cast(Any, self) if has_source else None,
            clock=self.clock,
        )

    def can_spare_list(self) -> bool:
        return self.has_budget

    def list_channels(self) -> ChannelList:
        self.lists += 1
        self.listing()
        if self.list_error is not None:
            raise self.list_error
        return ChannelList((Channel("Loja", Status.CONNECTED),))

    def poll(self, _channels: object) -> ActivitySnapshot:
        self.asked.append("poll")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def find(self, channels: object) -> ActivitySnapshot:
        found = self.poll(channels)
        self.asked[-1] = "find"
        return found

    def read(self) -> GatewayReadings:
        """Return the readings once all of them are there."""
        self.reader.readings()
        wait_until(lambda: not self.reader._is_reading, "the messages")
        readings = self.reader.readings()
        assert readings is not None
        return readings

    def loja(self) -> ChannelMetrics:
        return self.read().channels["Loja"]


def test_ages_come_from_the_message_source() -> None:
    scene = Scene()
    expected = ChannelMetrics("Loja", True, Status.CONNECTED, 900.0, _LIMIT)
    assert scene.loja() == expected
    assert scene.read().log_up is True
    assert scene.asked == ["poll"]


def test_ages_that_an_earlier_viewer_was_shown_are_not_those_of_a_new_list() -> None:
    scene = Scene()
    scene.loja()
    scene.clock.forward(3 * LIST_SECONDS)
    shown: list[GatewayReadings | None] = []

    def poll(_channels: object) -> ActivitySnapshot:
        shown.append(scene.reader.readings())
        return _KNOWN

    scene.poll = poll  # type: ignore[method-assign]
    assert scene.loja().last_message == 900.0
    (before,) = shown
    assert before is not None
    assert before.channels["Loja"] == ChannelMetrics("Loja", True, Status.CONNECTED)


def test_while_rows_are_unread_no_age_is_known() -> None:
    scene = Scene()
    scene.found = replace(_KNOWN, unread=3)
    # Nor is it denied, as it would be with a threshold.
    assert scene.loja() == ChannelMetrics("Loja", True, Status.CONNECTED)


@pytest.mark.parametrize("error", [MessageLogError("made up"), ValueError("made up")])
def test_a_message_source_that_fails_is_told_and_the_list_stays(error: Exception) -> None:
    scene = Scene()
    scene.found = error
    assert scene.loja().connected
    readings = scene.read()
    assert (readings.gateway_up, readings.log_up) == (True, False)


def test_without_a_source_nothing_is_said_of_messages() -> None:
    scene = Scene(MessageSourceKind.NONE)
    assert scene.loja() == ChannelMetrics("Loja", True, Status.CONNECTED)
    assert scene.read().log_up is None


def test_of_activity_only_what_was_seen_counts() -> None:
    scene = Scene(MessageSourceKind.ACTIVITY)
    scene.loja()
    assert scene.asked == ["find"], "poll() would begin each clock with the first look"


@pytest.mark.parametrize(
    "error",
    [GatewayError(Operation.LIST, GatewayErrorKind.TIMEOUT, "made up"), ValueError("made up")],
)
def test_a_list_that_fails_shows_no_channel(error: Exception) -> None:
    scene = Scene()
    scene.list_error = error
    readings = scene.read()
    assert (readings.gateway_up, readings.channels) == (False, {})


def test_without_a_budget_the_last_list_stays_and_is_dated() -> None:
    scene = Scene(requests_per_month=1_000)
    scene.has_budget = False
    assert scene.reader.readings() is None
    scene.has_budget = True
    assert scene.reader.readings() is None, "nor is the budget looked at each time"
    scene.clock.forward(900)
    listed_at = scene.clock.time()
    assert scene.read().at == listed_at
    scene.has_budget = False
    scene.clock.forward(10 * 3600)
    later = scene.read()
    assert (scene.lists, later.at, later.channels["Loja"].connected) == (1, listed_at, True)


@pytest.mark.parametrize(("per_month", "pause"), [(None, LIST_SECONDS), (1_000, 900.0)])
def test_lists_are_seconds_apart_and_a_list_of_before_is_forgotten(
    per_month: int | None, pause: float
) -> None:
    scene = Scene(requests_per_month=per_month)
    for _ in range(5):
        scene.read()
    assert scene.lists == 1
    scene.clock.forward(pause)
    scene.read()
    assert scene.lists == 2
    hangs = threading.Event()
    scene.listing = lambda: cast(None, hangs.wait(10))
    scene.clock.forward(pause)
    assert scene.reader.readings() is not None, "the last list counts until the next one is there"
    wait_until(lambda: scene.lists == 3, "the next list to begin")
    scene.clock.forward(2 * pause)
    assert (scene.reader.readings() is None) == (per_month is None)
    assert scene.lists == 3, "one at a time"
    hangs.set()
    wait_until(lambda: not scene.reader._is_reading, "the end of the list")


class WeekSource:
    """A message source of which only the histories are read."""

    def __init__(self) -> None:
        self.clock = HandMovedClock()
        self.history: History | None = None
        self.error: Exception | None = None
        self.pauses = 1
        self.reads = self.closed = 0
        gateway = SimpleNamespace(name="wpp", messages=MessageSourceKind.LOG)
        self.weeks = MessageWeeks(cast(Any, gateway), lambda: cast(Any, self), clock=self.clock)

    def histories(self, wanted: set[str], pause: Callable[[], None]) -> dict[str, History]:
        self.reads += 1
        for _ in range(self.pauses):
            pause()
        if self.error is not None:
            raise self.error
        (key,) = wanted
        return {key: self.history} if self.history else {}

    def close(self) -> None:
        self.closed += 1

    def week(self) -> MessageWeek:
        self.weeks.of("loja")
        wait_until(lambda: self.weeks._reading is None, "the week")
        return self.weeks.of("loja")


def test_a_week_is_read_from_the_messages_and_kept_for_a_while() -> None:
    source = WeekSource()
    now = source.clock.time()
    this_hour = now // 3600 * 3600
    source.history = History(now)
    for seconds in (-3570, -3560, -3510, -72 * 3600 + 60):
        source.history.note(this_hour + seconds)
    week = source.week()
    hours, quarter = week.hours, quarter_at(this_hour)
    assert week.quarters == {quarter - 3, quarter - 72 * 4 + 1}
    assert len(hours) == 168
    assert hours[-1].end == this_hour + 3600
    assert [hour.received for hour in hours[-2:]] == [2.0, None], "minutes, of a whole hour"
    assert hours[-1 - 72].received == 1.0
    assert sum(hour.received is not None for hour in hours) == 2
    for _ in range(5):
        source.week()
    assert (source.reads, source.closed, source.weeks.count) == (1, 1, 1)
    source.clock.forward(601)
    source.week()
    assert source.reads == 2


@pytest.mark.parametrize("error", [MessageLogError("made up"), ValueError("made up"), None])
def test_a_week_that_cannot_be_read_is_none(error: Exception | None) -> None:
    source = WeekSource()
    source.error = error
    assert source.week() == MessageWeek()
    assert (source.reads, source.closed) == (1, 1)


def test_a_week_is_read_after_a_thread_that_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = WeekSource()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no new thread")))
        with pytest.raises(RuntimeError, match="new thread"):
            source.weeks.of("loja")
    source.week()
    assert source.reads == 1


def test_a_log_that_is_too_long_is_not_read_to_its_end() -> None:
    source = WeekSource()
    source.pauses = 1_000_000
    assert source.week() == MessageWeek()
    assert len(source.clock.pauses) < 10_000
    assert source.closed == 1
