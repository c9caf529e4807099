"""How the exporter asks its sources: its pace, what it pins, and what it logs."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
import sqlalchemy as sa

from demo.simulator.client import Simulator
from exporter.app import create_app
from exporter.event_buffer import Post
from exporter.pollers import GatewayPoller, GatewayState, LogPoller, Poller, StateStore
from exporter.supervisor import GatewayMonitor, Supervisor
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET, hook_settings
from tests.support.message_logs import WrittenLog
from tests.support.waiting import wait_until
from zapwatch import server
from zapwatch.channels import Channel, Status
from zapwatch.config import parse
from zapwatch.gateways.base import ChannelList, Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.messages import log_tailer
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import MessageLog

_LOOKBACK = 86_400.0


class Paced(Poller):
    """Polls a source that takes so many seconds each time, on a clock moved by hand."""

    source = "thing"

    def __init__(self, clock: HandMovedClock, pause: float, polls: list[float | Exception]) -> None:
        super().__init__(pause, clock=clock)
        self._moved = clock
        self._polls = polls
        self.failures = 0
        self.closed = False

    def poll(self) -> None:
        what = self._polls.pop(0)
        if not self._polls:
            self.stop()
        if isinstance(what, Exception):
            raise what
        self._moved.forward(what)

    def pin_failure(self) -> None:
        self.failures += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> HandMovedClock:
    return HandMovedClock()


@pytest.fixture
def simulated(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja")
    return simulator


@pytest.fixture
def board() -> StateStore:
    return StateStore()


@pytest.fixture
def poller(simulated: Simulator, board: StateStore) -> Iterator[GatewayPoller]:
    client = WrapperGateway(simulated.url, SECRET, list_timeout=30)
    yield GatewayPoller(client, board, 1000)
    client.close()


def _log_poller(log: WrittenLog, board: StateStore) -> LogPoller:
    return LogPoller(LogMessages(MessageLog(log.reader), _LOOKBACK), board, 1000, lambda _: None)


def _statuses(board: StateStore) -> dict[str, Status] | None:
    gateway = board.snapshot.gateway
    assert gateway is not None
    return {channel.id: channel.status for channel in gateway.channels} if gateway.up else None


def test_it_pauses_for_the_poll_seconds_or_as_long_as_the_poll_took(
    clock: HandMovedClock,
) -> None:
    paced = Paced(clock, 5, [0, 4.5, 5, 90, 0.1, 0])
    paced.run()
    assert clock.pauses == pytest.approx([5, 5, 5, 90, 5])
    assert paced.closed


def test_a_secret_that_is_refused_is_sent_less_often(
    clock: HandMovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    refused = GatewayError(Operation.LIST, GatewayErrorKind.UNAUTHORIZED, "HTTP 401, wrong secret?")
    away = GatewayError(Operation.LIST, GatewayErrorKind.CONNECTION, "refused")
    paced = Paced(clock, 5, [refused, refused, refused, refused, refused, away, 0, refused, 0, 0])
    paced.run()
    assert clock.pauses == pytest.approx([10, 20, 40, 60, 60, 5, 5, 10, 5])
    told = [record.getMessage() for record in caplog.records if "401" in record.getMessage()]
    assert len(told) == 2, "once each time that it begins"
    slow = Paced(clock, 90, [refused, refused, 0])
    del clock.pauses[:]
    slow.run()
    assert clock.pauses == pytest.approx([90, 90])


def test_it_goes_on_whatever_a_poll_raises(
    clock: HandMovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    paced = Paced(clock, 5, [RuntimeError("oops"), 1, MemoryError(), 1])
    paced.run()
    assert len(clock.pauses) == 3
    assert paced.failures == 2
    assert "internal error" in caplog.records[0].getMessage()
    assert caplog.records[0].exc_info, "what to report"


def test_a_poller_that_dies_shows_and_leaves_nothing_that_looks_current(
    simulated: Simulator, dead_threads: list[str]
) -> None:
    settings = parse(hook_settings(simulated.url))
    # No thread can wait that long: the settings allow an hour.
    settings = replace(settings, exporter_poll_seconds=1e10)
    supervisor = Supervisor(settings, Post(settings))
    supervisor.apply_config(settings.gateways)
    wait_until(lambda: dead_threads, "the thread to end")
    pages = create_app(supervisor.page, tuple).test_client()
    assert pages.get("/-/healthy").text == "No longer at work: channel list of wpp.\n"
    shown = pages.get("/metrics").text
    assert "\nwhatsapp_exporter_dead_threads 1.0\n" in shown
    assert '\nwhatsapp_gateway_up{gateway="wpp"} 0.0\n' in shown


def test_rows_with_a_wrong_clock_are_told_once(
    sqlite_log: WrittenLog, board: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    poller = _log_poller(sqlite_log, board)
    poller.poll_once()
    for age in (10_800, 0, 10_800, 10_800):
        sqlite_log.write("loja", age_seconds=age)
        poller.poll_once()
    poller.close()
    [line] = [one for one in caplog.messages if "dated" in one]
    assert line.startswith("message log: rows are dated 3.0 h back: their writer's clock or time")
    log = board.snapshot.log
    view = log.view if log else None
    assert view is not None
    assert view.clock_offset < -10_000
    assert (view.age("loja") or 0) < 60


def test_who_is_in_a_hurry_does_not_wait_for_the_pause(
    poller: GatewayPoller, simulated: Simulator
) -> None:
    server.start_thread("poller", poller.run)
    wait_until(lambda: len(simulated.requests("list")) == 1, "the first poll")
    poller.hurry()
    wait_until(lambda: len(simulated.requests("list")) == 2, "the hurried poll")
    poller.hurry()
    wait_until(lambda: len(simulated.requests("list")) == 3, "the next hurried poll")


class Told(Paced):
    """One that is told of ``events``, by their moments, while it waits; seconds from the start."""

    least_pause = GatewayPoller.least_pause

    def __init__(self, clock: HandMovedClock, events: list[float], takes: float) -> None:
        super().__init__(clock, 5, [])
        self.began: list[float] = []
        self._start = clock.monotonic()
        self._events = events
        self._takes = takes
        clock.wait = self._wait  # type: ignore[method-assign]

    def poll(self) -> None:
        self.began.append(self._moved.monotonic() - self._start)
        self._wait(threading.Event(), self._takes)
        if not self._events:
            self.stop()

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        until = self._moved.monotonic() + seconds
        while self._events and self._start + self._events[0] <= until and not event.is_set():
            left = self._start + self._events.pop(0) - self._moved.monotonic()
            self._moved.forward(max(0.0, left))
            self.hurry()
        if not event.is_set():
            self._moved.forward(max(0.0, until - self._moved.monotonic()))
        return event.is_set()


def test_an_event_of_a_state_makes_the_list_be_asked_at_once(clock: HandMovedClock) -> None:
    told = Told(clock, [2.0, 4.5], 0.1)
    told.run()
    assert told.began == pytest.approx([0, 2, 4.5], abs=0.01)


class Refused(Told):
    reason: GatewayErrorKind

    def poll(self) -> None:
        super().poll()
        raise GatewayError(Operation.LIST, self.reason, "HTTP 401 or 429")


@pytest.mark.parametrize("reason", [GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT])
def test_a_secret_that_is_refused_is_sent_no_sooner_for_an_event(
    clock: HandMovedClock, reason: GatewayErrorKind
) -> None:
    """Nor is the list of a gateway that takes no more calls."""
    refused = Refused(clock, [2.0, 4.5, 11.0], 0.1)
    refused.reason = reason
    refused.run()
    assert refused.began == pytest.approx([0, 10.1, 30.2], abs=0.01)


@pytest.mark.parametrize(("takes", "pause"), [(0.1, 1.0), (3.0, 3.0)])
def test_of_600_events_in_three_minutes_the_list_is_asked_no_more_than_once_a_second(
    clock: HandMovedClock, takes: float, pause: float
) -> None:
    told = Told(clock, [0.3 * number for number in range(600)], takes)
    told.run()
    pauses = [after - before - takes for before, after in pairwise(told.began)]
    assert min(pauses) >= pause - 0.01
    assert max(pauses) <= pause + 0.3, "nor much later"
    assert told.began[-1] >= 0.3 * 599 - takes, "the last one is followed by a list too"


def test_the_list_is_pinned_and_unpinned_and_pinned_again(
    poller: GatewayPoller, simulated: Simulator, board: StateStore
) -> None:
    def last_success() -> float | None:
        gateway = board.snapshot.gateway
        return gateway.last_success if gateway else None

    assert board.snapshot.gateway is None
    poller.poll_once()
    assert _statuses(board) == {"loja": "connected"}
    before = last_success()
    assert before is not None
    simulated.put_channel("Pixel12 Digital", status="qr_required")
    simulated.fault("list", "html_504", times=2)
    for _ in range(2):
        poller.poll_once()
        assert _statuses(board) is None
        assert last_success() == before
    poller.poll_once()
    assert _statuses(board) == {"loja": "connected", "Pixel12 Digital": "qr_required"}
    simulated.remove("loja")
    poller.poll_once()
    assert _statuses(board) == {"Pixel12 Digital": "qr_required"}


def test_one_line_when_the_list_fails_and_one_when_it_works_again(
    poller: GatewayPoller, simulated: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    poller.poll_once()
    assert caplog.messages == []
    simulated.fault("list", "unauthorized")
    for _ in range(5):
        poller.poll_once()
    (failed,) = caplog.records
    assert failed.levelno == logging.WARNING
    assert failed.getMessage().startswith("channel list cannot be read: unauthorized: HTTP 401")
    request = simulated.requests("list")[1]["request_id"]
    assert request in failed.getMessage(), "the gateway's log has it too"
    simulated.fault("list", "html_502")
    for _ in range(5):
        poller.poll_once()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert "html: HTTP 502" in caplog.messages[1]
    simulated.clear_faults()
    for _ in range(3):
        poller.poll_once()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert caplog.messages[2].startswith("channel list can be read again, after ")
    assert not any("\n" in message or SECRET in message for message in caplog.messages)


def test_words_that_are_new_each_time_are_no_change(
    board: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a request's id or the time in them."""
    words = [f"HTTP 500: request {number}" for number in range(5)]

    def fail() -> ChannelList:
        raise GatewayError(Operation.LIST, GatewayErrorKind.HTTP, words.pop(0), http_status=500)

    babbling = cast("Gateway", SimpleNamespace(list_channels=fail))
    poller = GatewayPoller(babbling, board, 1000)
    while words:
        poller.poll_once()
    (line,) = caplog.messages
    assert "HTTP 500: request 0" in line


def test_unusable_entries_are_told_once_and_leave_the_others_alone(
    poller: GatewayPoller, simulated: Simulator, board: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter")
    for name in ("odd", "strange"):
        simulated.put_channel(name, lists_id=False)
    for _ in range(3):
        poller.poll_once()
    assert _statuses(board) == {"loja": "connected"}
    for name in ("odd", "strange"):
        simulated.remove(name)
    poller.poll_once()
    assert caplog.messages == [
        "channel list: 2 entries are left out: 2 without a usable id",
        "channel list: no entry is left out now",
    ]


def test_a_list_that_stays_the_same_is_the_same_object(
    poller: GatewayPoller, simulated: Simulator, board: StateStore
) -> None:
    lists = []
    for status in ("connected", "connected", "disconnected"):
        simulated.put_channel("loja", status=status)
        poller.poll_once()
        assert board.snapshot.gateway is not None
        lists.append(board.snapshot.gateway.channels)
    assert lists[0] is lists[1]
    assert lists[1] != lists[2]


def test_new_channels_hurry_the_log_and_known_ones_do_not(
    simulated: Simulator, board: StateStore
) -> None:
    calls: list[int] = []
    client = WrapperGateway(simulated.url, SECRET)
    poller = GatewayPoller(client, board, 1000, lambda: calls.append(len(_statuses(board) or {})))
    poller.poll_once()
    poller.poll_once()
    assert calls == [1], "and the list is pinned by then"
    simulated.put_channel("nova")
    poller.poll_once()
    poller.poll_once()
    assert calls == [1, 2]
    simulated.remove("loja")
    poller.poll_once()
    assert calls == [1, 2]
    client.close()


def test_a_list_that_works_again_hurries_the_log(simulated: Simulator, board: StateStore) -> None:
    def ups() -> tuple[bool, bool]:
        gateway, log = board.snapshot.gateway, board.snapshot.log
        assert gateway is not None
        assert log is not None
        return gateway.up, log.up

    def listed() -> tuple[Channel, ...]:
        gateway = board.snapshot.gateway
        if gateway is None or not gateway.up:
            raise MessageLogError("no list")
        return gateway.channels

    source = Activity(listed)
    log_poller = LogPoller(source, board, 1000, lambda _: None)
    client = WrapperGateway(simulated.url, SECRET)
    poller = GatewayPoller(client, board, 1000, log_poller.poll_once)
    poller.poll_once()
    assert ups() == (True, True)
    simulated.fault("list", "html_504", times=1)
    poller.poll_once()
    log_poller.poll_once()
    assert ups() == (False, False)
    poller.poll_once()
    assert ups() == (True, True), "the channels in the list are the log"
    client.close()


def _ages(board: StateStore) -> dict[str, float] | None:
    log = board.snapshot.log
    assert log is not None
    if not log.up:
        return None
    assert log.view is not None
    return {key: log.view.now - at for key, at in log.view.last_message.items()}


def test_activity_is_not_unavailable_before_the_first_list() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kind = {"WPP_GATEWAY_TYPE": "evolution", "MESSAGE_SOURCE": "activity"}
        settings = parse(hook_settings(url, **kind))
        log = logging.getLogger(__name__)
        monitor = GatewayMonitor(settings, settings.gateways[0], Post(settings), log)
        monitor.start()
        wait_until(lambda: monitor.waiting == ["the channel list"], "the first poll of the log")
        monitor.stop()
        assert monitor.store.snapshot.log is not None
        assert monitor.store.snapshot.log.up


def test_the_log_is_read_for_the_channels_that_are_listed(
    poller: GatewayPoller, sqlite_log: WrittenLog, board: StateStore
) -> None:
    sqlite_log.write("loja", age_seconds=7200)
    log_poller = _log_poller(sqlite_log, board)
    log_poller.poll_once()
    assert _ages(board) == {}, "nobody is listed yet"
    poller.poll_once()
    log_poller.poll_once()
    ages = _ages(board)
    assert ages is not None
    assert ages.keys() == {"loja"}
    assert 7200 <= ages["loja"] < 7300


_DROP = "ALTER TABLE webhook_raw_logs RENAME TO elsewhere"
_BRING_BACK = "ALTER TABLE elsewhere RENAME TO webhook_raw_logs"


def test_no_age_counts_until_all_that_is_new_has_been_read(
    board: StateStore, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = _log_poller(sqlite_log, board)
    board.update(gateway=GatewayState(up=True, channels=(Channel("loja", Status.CONNECTED),)))
    sqlite_log.write("loja", age_seconds=500)
    poller.poll_once()
    assert (_ages(board) or {}).keys() == {"loja"}
    sqlite_log.write_many(["loja"] * 3)
    monkeypatch.setattr(log_tailer, "_CATCH_UP_SECONDS", 0)
    poller._hurry.clear()

    poller.poll_once()

    assert _ages(board) is None
    assert poller._hurry.is_set(), "the rest is read at once"
    monkeypatch.undo()
    poller.poll_once()
    assert (_ages(board) or {})["loja"] < 60


def test_one_line_when_the_log_fails_and_one_when_it_works_again(
    poller: GatewayPoller,
    sqlite_log: WrittenLog,
    board: StateStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    sqlite_log.write("loja", age_seconds=60)
    poller.poll_once()
    log_poller = _log_poller(sqlite_log, board)
    log_poller.poll_once()
    assert (_ages(board) or {}).keys() == {"loja"}
    sqlite_log.run(_DROP)
    for _ in range(4):
        log_poller.poll_once()
        assert _ages(board) is None
    sqlite_log.run(_BRING_BACK)
    for _ in range(4):
        log_poller.poll_once()
        assert (_ages(board) or {}).keys() == {"loja"}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "message log cannot be read: no such table" in caplog.messages[0]
    assert caplog.messages[1].startswith("message log can be read again, after ")
    assert not any("\n" in message for message in caplog.messages)


def test_a_log_that_cannot_be_reached_is_told_without_its_password(
    board: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing listens at port 1.
    url = sa.make_url("mysql+pymysql://reader:not-a-real-password@127.0.0.1:1/pixel_hub")
    poller = LogPoller(LogMessages(MessageLog(url), _LOOKBACK), board, 1000, lambda _: None)
    poller.poll_once()
    assert _ages(board) is None
    (message,) = caplog.messages
    assert message.startswith("message log cannot be read: ")
    assert "not-a-real-password" not in message


def test_each_poll_of_the_log_is_measured_good_or_bad(
    sqlite_log: WrittenLog, board: StateStore, clock: HandMovedClock
) -> None:
    seconds: list[float] = []
    observe: Callable[[float], None] = seconds.append
    messages = LogMessages(MessageLog(sqlite_log.reader), _LOOKBACK)
    poller = LogPoller(messages, board, 1000, observe, clock=clock)
    poller.poll_once()
    sqlite_log.run(_DROP)
    poller.poll_once()
    assert len(seconds) == 2
    assert all(0 < took < 1 for took in seconds)
