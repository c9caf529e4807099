"""One repair, against a simulated gateway and on a clock moved by hand."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from reconnect_hook.alerts import RepairCause
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.context import Interrupted, RepairContext
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.queue import Jobs
from reconnect_hook.repair import look, repair
from reconnect_hook.repository import ChannelRepository
from reconnect_hook.supervisor import GatewayController, make_service, open_store
from tests.support.clock import HandMovedClock
from tests.support.message_logs import WrittenLog
from tests.support.states import firing, resolved
from tests.support.waiting import wait_until
from zapwatch.config import Settings, parse
from zapwatch.db import StateError
from zapwatch.gateways.base import ChannelList, GatewayError
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import Direction, Head, MessageLog, Row

_SECRET = "0123456789abcdef-not-a-real-secret"
_VERIFY = 60.0
_LOOKBACK = 86_400.0
_SECONDS = 60.0


class World:
    """A gateway with its message log, and what repairs it."""

    def __init__(self, simulator: Simulator, clock: HandMovedClock, log: WrittenLog) -> None:
        self.simulator = simulator
        self.clock = clock
        self.log = log
        self.waited: list[float] = []
        self.restarts: list[str] = []
        self.meanwhile: dict[int, Callable[[], object]] = {}
        """What happens during the waiting with this number, counted from 1."""
        client = WrapperGateway(simulator.url, _SECRET, list_timeout=30, qr_timeout=30)
        self.means = RepairContext(
            client=client,
            lists=ChannelListCache(client, clock),
            messages=LogMessages(MessageLog(log.reader), _LOOKBACK),
            silence_threshold=lambda _: 4 * 3600.0,
            verify_seconds=_VERIFY,
            allow_restart=False,
            wait=self.wait,
            begin_restart=self._begin_restart,
        )

    def _begin_restart(self, _job: Job, channel: str) -> bool:
        self.restarts.append(channel)
        return True

    def wait(self, seconds: float) -> None:
        self.waited.append(round(seconds, 3))
        self.clock.forward(seconds)
        self.meanwhile.pop(len(self.waited), lambda: None)()

    def repair(
        self,
        channel: str = "loja",
        reason: RepairCause = RepairCause.DISCONNECTED,
        *,
        waited: float = 0.0,
        failures: int = 0,
        attempt: int = 1,
        status: str | None = None,
        restarting: bool = False,
        **means: Any,
    ) -> Result:
        job = Job(
            1,
            channel,
            channel.replace(" ", "").lower(),
            reason,
            look_only=False,
            waited=waited,
            attempt=attempt,
            failures=failures,
            status=status,
            restarting=restarting,
        )
        return repair(replace(self.means, **means), job)

    def outcome(self, *arguments: Any, **more: Any) -> tuple[str, Outcome, Action]:
        """Repair, and return what the log says of it."""
        result = self.repair(*arguments, **more)
        return result.channel, result.outcome, result.action

    def calls(self) -> list[str]:
        """Return what the gateway was asked for, lists apart."""
        return [c["operation"] for c in self.simulator.requests() if c["operation"] != "list"]


@pytest.fixture
def world(sqlite_log: WrittenLog) -> Iterator[World]:
    clock = HandMovedClock()
    with SimulatorServer(_SECRET, clock=clock) as server:
        made = World(Simulator(server.url), clock, sqlite_log)
        made.simulator.put_channel("loja")
        made.simulator.put_channel("Pixel12 Digital")
        yield made
        made.means.client.close()


# A disconnected channel.


def test_a_channel_that_is_connected_again_is_left_alone(world: World) -> None:
    assert world.outcome() == ("loja", Outcome.RECOVERED, Action.NONE)
    assert world.calls() == []


def test_a_disconnected_channel_is_asked_and_watched_until_it_is_back(world: World) -> None:
    world.simulator.put_channel("loja", reconnect_seconds=11)
    world.simulator.drop("loja")
    assert world.outcome() == ("loja", Outcome.RECONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"]
    assert sum(world.waited) == 11


def test_the_gateways_own_spelling_is_called(world: World) -> None:
    world.simulator.drop("Pixel12 Digital")
    result = world.outcome("pixel12digital")
    assert result == ("Pixel12 Digital", Outcome.RECONNECTED, Action.GET_QR)
    (call,) = world.simulator.requests("qr")
    assert call["path"] == "/api/channels/Pixel12%20Digital/qr"


def test_a_channel_that_does_not_come_back_is_still_disconnected(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    assert world.outcome() == ("loja", Outcome.STILL_DISCONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"]
    assert _VERIFY <= sum(world.waited) <= _VERIFY + 2


def test_a_channel_that_the_gateway_does_not_list_is_never_called(world: World) -> None:
    result = world.repair("stranger")
    assert (result.channel, result.outcome) == ("stranger", Outcome.UNKNOWN_CHANNEL)
    assert not result.listed
    assert world.calls() == []


@pytest.mark.parametrize("form", ["base64", "data_url", "http_url"])
def test_a_qr_code_waits_for_a_person_and_stays_secret(world: World, form: Any) -> None:
    world.simulator.put_channel("loja", qr_form=form)
    world.simulator.unpair("loja")
    result = world.outcome()
    assert result == ("loja", Outcome.QR_REQUIRED, Action.GET_QR)
    assert world.calls() == ["qr"]
    assert world.waited == []


def test_a_qr_code_that_only_the_list_knows_of_counts_as_well(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.meanwhile[3] = lambda: world.simulator.put_channel("loja", status="qr_required")
    assert world.repair().outcome is Outcome.QR_REQUIRED
    assert len(world.waited) == 3


@pytest.mark.parametrize("http", [200, 500])
def test_a_session_that_is_not_started_is_started_and_asked_again(world: World, http: Any) -> None:
    world.simulator.put_channel("loja", session="not_started", not_started_http=http)
    world.simulator.drop("loja")
    assert world.outcome() == ("loja", Outcome.RECONNECTED, Action.GET_QR)
    assert world.calls() == ["qr", "start_session", "qr"]
    assert world.waited[0] == 2


def test_a_session_may_need_a_person_once_it_is_started(world: World) -> None:
    world.simulator.put_channel("loja", session="not_started", after_start="unpaired")
    world.simulator.drop("loja")
    assert world.repair().outcome is Outcome.QR_REQUIRED


def test_a_session_is_started_once(world: World) -> None:
    world.simulator.put_channel("loja", session="not_started", start_seconds=1000)
    world.simulator.drop("loja")
    result = world.repair()
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.GET_QR)
    assert "session not started" in result.detail
    assert world.calls() == ["qr", "start_session", "qr"]


def test_a_session_that_cannot_be_started_has_failed(world: World) -> None:
    world.simulator.put_channel("loja", session="not_started")
    world.simulator.drop("loja")
    world.simulator.fault("start_session", "http_500_json")
    result = world.repair()
    assert result.outcome is Outcome.FAILED
    assert result.detail.startswith("start_session: http: HTTP 500: Internal server error")
    assert world.calls() == ["qr", "start_session"]


def test_a_browser_that_starts_is_asked_again(world: World) -> None:
    world.simulator.put_channel("loja", initializing_answers=3, reconnect_seconds=15)
    world.simulator.drop("loja")
    assert world.outcome() == ("loja", Outcome.RECONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"] * 4
    assert world.waited == [5, 5, 5]


def test_a_browser_that_never_starts_is_not_asked_for_ever(world: World) -> None:
    world.simulator.put_channel("loja", initializing_answers=1000, session="dead")
    world.simulator.drop("loja")
    assert world.outcome() == ("loja", Outcome.STILL_DISCONNECTED, Action.GET_QR)
    assert len(world.calls()) == 13, "for a minute, each 5 seconds"
    assert sum(world.waited) == 60 + _VERIFY


def test_a_list_that_fails_meanwhile_is_asked_again(world: World) -> None:
    world.simulator.put_channel("loja", reconnect_seconds=10)
    world.simulator.drop("loja")
    world.meanwhile[1] = lambda: world.simulator.fault("list", "html_504", times=2)
    assert world.outcome() == ("loja", Outcome.RECONNECTED, Action.GET_QR)


def test_a_list_that_fails_to_the_end_leaves_nothing_proven(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.meanwhile[1] = lambda: world.simulator.fault("list", "reset")
    result = world.repair()
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.GET_QR)
    assert result.detail.startswith("list: connection: ")


def test_a_channel_that_leaves_meanwhile_is_not_back(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.meanwhile[1] = lambda: world.simulator.remove("loja")
    assert world.repair().outcome is Outcome.STILL_DISCONNECTED


def test_without_a_list_nothing_is_called(world: World) -> None:
    world.simulator.drop("loja")
    world.simulator.fault("list", "unauthorized")
    result = world.repair()
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.NONE)
    assert not result.listed
    assert result.detail.startswith("list: unauthorized: HTTP 401")
    assert world.calls() == []


def test_a_channel_that_an_operator_names_is_called_though_it_is_connected(world: World) -> None:
    assert world.repair(reason=RepairCause.MANUAL).outcome is Outcome.RECONNECTED
    assert world.calls() == ["qr"]


def test_the_end_of_the_program_interrupts_it(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")

    def end() -> None:
        raise Interrupted

    world.meanwhile[2] = end
    with pytest.raises(Interrupted):
        world.repair()


# A silent channel.

_SILENCE = [RepairCause.SILENT, RepairCause.NEVER_HEARD]


@pytest.mark.parametrize("reason", _SILENCE)
def test_a_silent_channel_is_back_when_a_message_comes(world: World, reason: RepairCause) -> None:
    world.log.write("loja", age_seconds=5 * 3600)
    world.simulator.zombie("loja")
    world.meanwhile[4] = lambda: world.log.write("LOJA")
    assert world.outcome(reason=reason) == ("loja", Outcome.RECONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"]
    assert world.waited == [2] * 4


@pytest.mark.parametrize("reason", _SILENCE)
@pytest.mark.parametrize("answer", ["connected", "http_500"])
def test_without_a_message_it_was_only_requested(
    world: World, reason: RepairCause, answer: Any
) -> None:
    world.simulator.put_channel("loja", zombie=True, zombie_answer=answer)
    for number in (1, 5, 20):
        world.meanwhile[number] = lambda: world.log.write("Pixel12 Digital", words="hello loja")
    assert world.outcome(reason=reason) == ("loja", Outcome.REQUESTED, Action.GET_QR)
    assert sum(world.waited) == _VERIFY


def test_a_silent_channel_may_turn_out_to_need_a_person(world: World) -> None:
    world.simulator.put_channel("loja", zombie=True, zombie_answer="qr")
    assert world.repair(reason=RepairCause.SILENT).outcome is Outcome.QR_REQUIRED


def test_a_silent_channel_may_turn_out_to_be_disconnected(world: World) -> None:
    world.simulator.zombie("loja")
    world.meanwhile[1] = lambda: world.simulator.drop("loja")
    assert world.repair(reason=RepairCause.SILENT).outcome is Outcome.STILL_DISCONNECTED


def test_a_silent_channel_that_has_dropped_since_is_watched_by_the_list(world: World) -> None:
    world.simulator.drop("loja")
    assert world.repair(reason=RepairCause.SILENT).outcome is Outcome.RECONNECTED
    assert world.waited == [1, 2]


@pytest.mark.parametrize(
    ("age", "waited", "outcome"),
    [
        (20, 0, Outcome.RECOVERED),
        (600, 0, Outcome.REQUESTED),
        (600, 700, Outcome.RECOVERED),
        # However long it waited: what is older than the threshold is silence.
        (5 * 3600, 9 * 3600, Outcome.REQUESTED),
    ],
)
def test_a_message_since_the_alert_makes_it_old_news(
    world: World, age: int, waited: float, outcome: Outcome
) -> None:
    world.simulator.zombie("loja")
    world.log.write("loja", age_seconds=age)
    assert world.repair(reason=RepairCause.SILENT, waited=waited).outcome is outcome
    assert world.calls() == ([] if outcome is Outcome.RECOVERED else ["qr"])


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "none"])
def test_without_a_log_there_is_no_proof(world: World, broken: bool) -> None:
    world.simulator.zombie("loja")
    world.log.write("loja")
    world.log.run("DROP TABLE webhook_raw_logs")
    messages = world.means.messages if broken else None
    assert world.repair(reason=RepairCause.SILENT, messages=messages).outcome is Outcome.REQUESTED


class Canned:
    """A log whose clock and times have whole seconds, as databases have them."""

    def __init__(self, now: float, *times: float | None) -> None:
        self._now = now
        self._rows = [
            Row(number, at, "loja", Direction.IN) for number, at in enumerate(times, start=1)
        ]

    def head(self, _known: int) -> Head:
        return Head(self._now, len(self._rows), None)

    def rows_before(self, row_id: int, limit: int) -> list[Row]:
        return [row for row in self._rows[::-1] if row.id < row_id][:limit]


@pytest.mark.parametrize(
    ("times", "heard"),
    [((), False), ((100,), False), ((102,), True), ((102, None), True), ((None,), False)],
)
def test_the_log_is_read_back_as_far_as_it_was_asked(
    times: tuple[float | None, ...], heard: bool
) -> None:
    log: Any = Canned(105, *times)
    messages = LogMessages(log, _LOOKBACK)
    assert messages.recent(4).ages.keys() == ({"loja"} if heard else set())


def test_a_message_in_the_very_second_of_the_call_is_a_proof(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked at 100.8 s, answered by a message at 100.9 s, looked at 105.1 s later.
    world.simulator.zombie("loja")
    asked: list[float] = []

    def heard(_self: object, _key: str, seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) > 2

    monkeypatch.setattr(RepairContext, "heard_within", heard)
    assert world.repair(reason=RepairCause.SILENT).outcome is Outcome.RECONNECTED
    assert [round(seconds) for seconds in asked] == [30, 1, 3], "times have whole seconds"


# The last step.


@pytest.mark.parametrize(("allowed", "failures"), [(False, 0), (False, 9), (True, 0), (True, 1)])
def test_a_session_is_not_thrown_away_unasked(world: World, allowed: bool, failures: int) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    result = world.outcome(failures=failures, allow_restart=allowed)
    assert result == ("loja", Outcome.STILL_DISCONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"]


def test_where_it_is_allowed_the_third_failure_makes_a_new_session(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    result = world.outcome(failures=2, allow_restart=True)
    assert result == ("loja", Outcome.QR_REQUIRED, Action.RESTART)
    assert world.calls() == ["qr", "delete", "create", "qr"]
    assert world.waited[-1] == 2


@pytest.mark.parametrize("reason", [RepairCause.SILENT, RepairCause.DISCONNECTED])
def test_a_session_that_works_or_refuses_is_not_thrown_away(
    world: World, reason: RepairCause
) -> None:
    if reason is RepairCause.SILENT:
        world.simulator.zombie("loja")
    else:
        world.simulator.drop("loja")
        world.simulator.fault("qr", "html_502")
    world.repair(reason=reason, failures=9, allow_restart=True)
    assert world.calls() == ["qr"]


def test_a_session_that_cannot_be_thrown_away_has_failed(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.simulator.fault("delete", "http_500_json")
    result = world.repair(failures=2, allow_restart=True)
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.GET_QR)
    assert result.detail.startswith("delete: http: HTTP 500")
    assert world.simulator.channel("loja") is not None
    assert world.calls() == ["qr", "delete"]


def test_a_new_session_is_asked_for_until_there_is_one(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.simulator.fault("create", "html_502", times=2)
    result = world.outcome(failures=2, allow_restart=True)
    assert result == ("loja", Outcome.QR_REQUIRED, Action.RESTART)
    assert world.calls() == ["qr", "delete", "create", "create", "create", "qr"]


def test_a_new_session_that_cannot_be_made_has_failed(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.simulator.fault("create", "html_502")
    result = world.repair(failures=2, allow_restart=True)
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.RESTART)
    assert result.detail.startswith("create: html: HTTP 502")
    assert len(world.calls()) < 10


@pytest.mark.parametrize("fault", ["reset", "html_504"])
def test_a_deletion_that_works_although_it_fails_is_made_good(world: World, fault: Any) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    world.simulator.fault("delete", fault, effect=True)
    result = world.outcome(failures=2, allow_restart=True)
    assert result == ("loja", Outcome.QR_REQUIRED, Action.RESTART)
    assert world.restarts == ["loja"]
    assert world.calls() == ["qr", "delete", "create", "qr"]


def test_a_deletion_that_works_later_is_made_good_by_the_next_repair(world: World) -> None:
    world.simulator.put_channel("Pixel12 Digital", session="dead", status="disconnected")
    world.simulator.fault("delete", "html_504")
    result = world.repair("Pixel12 Digital", failures=2, allow_restart=True)
    assert (result.outcome, result.action) == (Outcome.FAILED, Action.RESTART)
    assert result.restart_pending
    assert world.calls() == ["qr", "delete"]
    world.simulator.remove("Pixel12 Digital")
    world.clock.forward(300)
    result = world.repair("Pixel12 Digital", restarting=True)
    assert result.channel == "Pixel12 Digital"
    assert (result.outcome, result.restart_pending) == (Outcome.QR_REQUIRED, False)
    assert world.calls() == ["qr", "delete", "create", "qr"]


def test_a_look_makes_the_session_that_a_restart_left_out(world: World) -> None:
    world.simulator.remove("loja")
    result = _look(world, "loja", restarting=True)
    assert result is not None
    assert (result.outcome, result.action) == (Outcome.QR_REQUIRED, Action.RESTART)
    assert world.calls() == ["create", "qr"]


def test_a_creation_that_worked_although_it_failed_is_not_repeated(world: World) -> None:
    world.simulator.remove("loja")
    world.simulator.fault("create", "reset", effect=True)
    assert world.repair(restarting=True).outcome is Outcome.QR_REQUIRED
    assert world.calls() == ["create", "qr"]


def test_no_session_is_thrown_away_that_could_not_be_noted(world: World) -> None:
    world.simulator.put_channel("loja", session="dead", status="disconnected")
    result = world.outcome(failures=2, allow_restart=True, begin_restart=lambda *_: False)
    assert result == ("loja", Outcome.STILL_DISCONNECTED, Action.GET_QR)
    assert world.calls() == ["qr"]


# What was the gateway's fault, and what the session's.


@pytest.mark.parametrize(
    ("operation", "fault", "whole"),
    [
        ("list", "http_500_json", True),
        ("list", "empty_list", True),
        ("qr", "html_504", True),
        ("qr", "reset", True),
        ("qr", "unauthorized", True),
        ("qr", "http_500_json", False),
        ("qr", "success_false_text", False),
        ("qr", "not_found", False),
    ],
)
def test_the_gateway_is_not_blamed_for_one_session(
    world: World, operation: str, fault: Any, whole: bool
) -> None:
    world.simulator.drop("loja")
    world.simulator.fault(operation, fault)
    result = world.repair()
    assert result.outcome is Outcome.FAILED
    assert result.gateway_failed is whole
    assert result.status == (None if operation == "list" else "disconnected")


def test_a_scanned_session_needs_no_message_to_have_recovered(world: World) -> None:
    world.simulator.put_channel("loja", zombie=True)
    assert world.repair(reason=RepairCause.SILENT, attempt=2, status="qr_required").outcome is (
        Outcome.RECOVERED
    )
    assert world.repair(reason=RepairCause.SILENT, attempt=1, status="qr_required").outcome is (
        Outcome.REQUESTED
    )


# A look, and the list that many share.


def _look(world: World, channel: str, *, restarting: bool = False) -> Result | None:
    job = Job(
        1,
        channel,
        channel,
        RepairCause.SILENT,
        look_only=True,
        waited=0,
        attempt=1,
        failures=0,
        restarting=restarting,
    )
    return look(world.means, job)


def test_a_look_only_looks(world: World) -> None:
    found = _look(world, "loja")
    assert found is not None
    assert (found.channel, found.outcome) == ("loja", Outcome.RECOVERED)
    world.simulator.drop("loja")
    assert _look(world, "loja") is None
    unknown = _look(world, "stranger")
    assert unknown is not None
    assert (unknown.outcome, unknown.listed) == (Outcome.UNKNOWN_CHANNEL, False)
    world.simulator.fault("list", "reset")
    with pytest.raises(GatewayError):
        _look(world, "loja")
    assert world.calls() == []


def test_a_list_is_shared_by_all_who_ask_for_none_that_is_newer(world: World) -> None:
    lists, clock = world.means.lists, world.clock
    begun = clock.monotonic()
    assert lists.since(begun).keys() == {"loja", "pixel12digital"}
    clock.forward(10)
    world.simulator.remove("loja")
    assert lists.since(begun).keys() == {"loja", "pixel12digital"}
    assert len(world.simulator.requests("list")) == 1
    assert lists.since(clock.monotonic()).keys() == {"pixel12digital"}


def test_one_list_serves_a_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lists, clock = world.means.lists, world.clock
    listed = world.means.client.list_channels

    def slow() -> ChannelList:
        clock.forward(60)
        return listed()

    monkeypatch.setattr(world.means.client, "list_channels", slow)
    lists.fresh(clock.monotonic() - 1000)
    for _ in range(5):
        clock.forward(10)
        lists.fresh(clock.monotonic() - 1000)
    assert len(world.simulator.requests("list")) == 1, "as long as it took to come"
    lists.fresh(clock.monotonic() - 20)
    assert len(world.simulator.requests("list")) == 2, "a list from before says nothing"
    clock.forward(70)
    lists.fresh(clock.monotonic() - 1000)
    assert len(world.simulator.requests("list")) == 3


def test_who_watches_waits_for_the_next_list_and_shares_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, clock = world.means.lists, world.clock
    listed = world.means.client.list_channels

    def slow() -> ChannelList:
        clock.forward(20)
        return listed()

    monkeypatch.setattr(world.means.client, "list_channels", slow)
    lists.since(clock.monotonic())
    moments = [clock.monotonic() for _ in range(3)]
    for moment in moments:
        lists.next(moment, world.wait)
    assert world.waited == [20], "it pauses for as long as the last one took"
    assert len(world.simulator.requests("list")) == 2


def test_who_watches_finds_the_list_that_another_asked_for_meanwhile(world: World) -> None:
    lists, clock = world.means.lists, world.clock
    lists.since(clock.monotonic())

    def wait(seconds: float) -> None:
        clock.forward(seconds)
        lists.since(clock.monotonic())

    lists.next(clock.monotonic(), wait)
    assert len(world.simulator.requests("list")) == 2


def test_a_failed_list_is_shared_as_well(world: World) -> None:
    begun = world.clock.monotonic()
    world.simulator.fault("list", "html_504", times=1)
    for _ in range(3):
        with pytest.raises(GatewayError):
            world.means.lists.since(begun)
    assert len(world.simulator.requests("list")) == 1
    assert world.means.lists.since(world.clock.monotonic())


# The threads that see repairs through.


class Hook:
    """A hook's parts, put together as the program does it, with its workers started."""

    def __init__(self, settings: Settings) -> None:
        [gateway] = settings.gateways
        self.metrics = HookMetrics()
        self._store = open_store(settings)
        self.service: GatewayController = make_service(settings, gateway, self._store, self.metrics)
        self._state_url = settings.hook_state_url
        self._log = settings.hook_log_file
        self.service.workers.start()

    def close(self) -> None:
        self.service.workers.stop(_SECONDS)
        self.service.client.close()
        self._store.database.close()

    @property
    def memory(self) -> ChannelRepository:
        return self.service.memory

    @contextmanager
    def state(self) -> Iterator[sa.Connection]:
        """Begin a transaction on the state."""
        engine = sa.create_engine(self._state_url)
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def repair(self, channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> None:
        """Have a channel repaired, and wait until it was counted."""
        before = self._counted()
        self.service.intake.accept([firing(channel, reason)])
        self.service.workers.wake()
        wait_until(lambda: self._counted() > before, _SECONDS, "the repair to end")

    def _counted(self) -> float:
        families = self.metrics.registry.collect()
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "whatsapp_reconnect_attempts_total"
        )

    def attempts(self, **labels: str) -> float | None:
        return self.value("whatsapp_reconnect_attempts_total", gateway="wpp", **labels)


def _settings(url: str, directory: Path, **more: str) -> Settings:
    return parse(
        {
            "WPP_GATEWAY_BASE_URL": url,
            "WPP_GATEWAY_SECRET": _SECRET,
            "WPP_GATEWAY_TIMEOUT": "30",
            "WPP_GATEWAY_QR_TIMEOUT": "0.5",
            "MESSAGE_LOG_URL": "none",
            "HOOK_STATE_URL": f"sqlite:///{directory}/state.sqlite3",
            "HOOK_LOG_FILE": str(directory / "log"),
            "RECONNECT_COOLDOWN_SECONDS": "0",
            "RECONNECT_VERIFY_SECONDS": "0",
            **more,
        }
    )


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with SimulatorServer(_SECRET) as server:
        made = Simulator(server.url)
        made.put_channel("loja")
        yield made


@pytest.fixture
def start(simulator: Simulator, tmp_path: Path) -> Iterator[Callable[..., Hook]]:
    """Start hooks, with settings by name."""
    started: list[Hook] = []

    def start(**more: str) -> Hook:
        started.append(Hook(_settings(simulator.url, tmp_path, **more)))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def hook(start: Callable[..., Hook]) -> Hook:
    return start()


_QR_FAULTS = {
    "hang": "timeout",
    "slow": "timeout",
    "drip": "timeout",
    "reset": "connection",
    "truncated": "connection",
    "redirect": "http",
    "html_502": "html",
    "html_504": "html",
    "html_200": "html",
    "empty_body": "invalid",
    "not_json": "invalid",
    "invalid_utf8": "invalid",
    "unauthorized": "unauthorized",
    "not_found": "http",
    "http_500_json": "http",
    "success_false_text": "invalid",
    "success_false_object": "invalid",
    "success_false_bare": "invalid",
    "wrong_shape_list": "invalid",
    "wrong_shape_number": "invalid",
    "wrong_shape_string": "invalid",
    "wrong_shape_null": "invalid",
}


@pytest.mark.parametrize("fault", _QR_FAULTS)
def test_each_failure_of_the_call_is_one_line_and_counted(
    simulator: Simulator, hook: Hook, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    simulator.drop("loja")
    simulator.fault("qr", fault, seconds=30 if fault == "slow" else None)
    hook.repair()
    simulator.clear_faults()
    reason = _QR_FAULTS[fault]
    (line,) = hook.lines()
    for part in (
        " [healthcheck-sessions] channel=loja reason=disconnected action=getQr",
        " outcome=failed attempt=1 seconds=",
        f'detail="qr: {reason}: ',
        simulator.requests("qr")[0]["request_id"],
    ):
        assert part in line
    (warning,) = caplog.messages
    assert warning.startswith("channel 'loja': failed qr: ")
    assert _SECRET not in line + warning
    errors = {"gateway": "wpp", "operation": "qr"}
    name = "whatsapp_gateway_request_errors_total"
    counted = {r for r in _QR_FAULTS.values() if hook.value(name, **errors, reason=r)}
    assert counted == {reason}
    assert hook.value(name, **errors, reason=reason) == 1
    assert hook.attempts(channel="loja", reason="disconnected", outcome="failed") == 1
    failures = "whatsapp_reconnect_consecutive_failures"
    assert hook.value(failures, gateway="wpp", channel="loja") == 1
    assert hook.value("whatsapp_reconnect_duration_seconds_count", outcome="failed") == 1


def test_a_failed_channel_is_repaired_by_the_next_alert(simulator: Simulator, hook: Hook) -> None:
    simulator.put_channel("loja", reconnect_seconds=0)
    simulator.drop("loja")
    simulator.fault("qr", "reset", times=2)
    for _ in range(3):
        hook.repair()
    assert [line.rpartition(" attempt=")[2][:1] for line in hook.lines()] == ["1", "2", "3"]
    assert hook.attempts(channel="loja", reason="disconnected", outcome="failed") == 2
    assert hook.attempts(channel="loja", reason="disconnected", outcome="reconnected") == 1
    failures = "whatsapp_reconnect_consecutive_failures"
    assert hook.value(failures, gateway="wpp", channel="loja") == 0


def test_a_restart_is_announced_with_what_it_costs(
    simulator: Simulator, start: Callable[..., Hook]
) -> None:
    simulator.put_channel("loja", session="dead", status="disconnected")
    hook = start(RECONNECT_ALLOW_RESTART="yes")
    for _ in range(3):
        hook.repair()
    hook.service.workers.stop(_SECONDS)
    *_, warning, third = hook.lines()
    assert "action=restart outcome=qr_required attempt=3" in third
    assert "channel=loja warning=" in warning
    assert "the old pairing is lost" in warning
    assert "somebody has to scan" in warning
    assert len(simulator.requests("delete")) == 1
    assert hook.value("whatsapp_reconnect_qr_required", gateway="wpp", channel="loja") == 1


def test_a_scanned_code_is_noticed_when_the_alert_resolves(
    simulator: Simulator, hook: Hook
) -> None:
    simulator.unpair("loja")
    hook.repair()
    waits = {"gateway": "wpp", "channel": "loja"}
    assert hook.value("whatsapp_reconnect_qr_required", **waits) == 1
    simulator.scan("loja")
    hook.service.intake.accept([resolved()])
    hook.service.workers.wake()
    wait_until(
        lambda: hook.value("whatsapp_reconnect_qr_required", **waits) == 0, _SECONDS, "the look"
    )
    assert len(simulator.requests("qr")) == 1


def test_a_fault_of_the_hook_itself_ends_one_repair_and_no_more(
    simulator: Simulator,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator.put_channel("loja", reconnect_seconds=0)
    simulator.drop("loja")
    with monkeypatch.context() as patch:
        patch.setattr("reconnect_hook.repair.ask", lambda *_, **__: 1 / 0)
        hook.repair()
    assert "outcome=failed attempt=1" in hook.lines()[0]
    assert "fault of the hook" in hook.lines()[0]
    assert caplog.records[0].exc_info
    hook.repair()
    assert "outcome=reconnected" in hook.lines()[1]


def test_no_fault_ends_a_worker(
    simulator: Simulator,
    start: Callable[..., Hook],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("reconnect_hook.worker_pool._TROUBLE_SECONDS", 0.01)
    simulator.unpair("loja")
    hook = start(RECONNECT_WORKERS="1")
    claim = Jobs.claim
    faults: list[Exception] = [struct.error("unpack"), StateError("locked")]

    def faulty(jobs: Jobs) -> Job | None:
        if faults:
            raise faults.pop()
        return claim(jobs)

    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "claim", faulty)
        hook.repair()
    assert "state: locked" in caplog.messages
    assert "the queue met a fault of the hook itself" in caplog.messages

    looked = threading.Event()

    def broken(*_: object) -> None:
        looked.set()
        raise struct.error

    with monkeypatch.context() as patch:
        patch.setattr("reconnect_hook.repair_worker.look", broken)
        hook.service.intake.accept([resolved()])
        hook.service.workers.wake()
        assert looked.wait(_SECONDS)
        wait_until(lambda: hook.memory.queue().waiting == 1, _SECONDS, "the look to be put off")
    hook.repair()


def test_a_repair_that_another_hook_took_over_is_counted_there(
    simulator: Simulator, hook: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.put_channel("loja", reconnect_seconds=0)
    simulator.drop("loja")
    simulator.fault("qr", "hang", times=1, effect=True)
    hook.service.intake.accept([firing()])
    hook.service.workers.wake()
    wait_until(lambda: simulator.requests("qr"), _SECONDS, "the call")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/state.sqlite3")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE repairs SET holder = 'another'"))
    engine.dispose()
    wait_until(lambda: "took over" in caplog.text, _SECONDS, "the loss to be noticed")
    assert hook._counted() == 0
    assert hook.memory.queue().in_flight == 1


def test_repairs_go_on_while_the_log_file_cannot_be_written(
    simulator: Simulator, hook: Hook, tmp_path: Path
) -> None:
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    simulator.put_channel("loja", session="dead")
    simulator.drop("loja")
    for _ in range(6):
        hook.repair()
    ended = {"channel": "loja", "reason": "disconnected", "outcome": "still_disconnected"}
    assert hook.attempts(**ended) == 6


def _end_pauses(hook: Hook) -> None:
    """Let the time pass until what waits is due."""
    with hook.state() as connection:
        for column in ("due_at", "repair_at"):
            statement = f"UPDATE repairs SET {column} = 1 WHERE {column} IS NOT NULL"
            connection.execute(sa.text(statement))


def test_alerts_that_are_old_news_write_one_line(
    simulator: Simulator, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.repair()
    (line,) = hook.lines()
    assert "action=none outcome=recovered" in line
    for _ in range(3):
        with monkeypatch.context() as hurried:
            hurried.setattr("reconnect_hook.dedup.OLD_NEWS_SECONDS", 3600.0)
            assert hook.service.intake.accept([firing()]) == ["cooldown"]
        _end_pauses(hook)
        wait_until(lambda: hook.memory.queue().waiting == 0, _SECONDS, "the look to be forgotten")
    assert hook.lines() == [line]
    assert simulator.requests("qr") == []


def test_an_alert_that_comes_after_the_repair_that_helped_writes_no_second_line(
    simulator: Simulator, start: Callable[..., Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.repair_worker.ROUND_SECONDS", 0.2)
    simulator.put_channel("loja", reconnect_seconds=0)
    simulator.drop("loja")
    hook = start(RECONNECT_COOLDOWN_SECONDS="300")
    hook.repair()
    (line,) = hook.lines()
    assert "action=getQr outcome=reconnected" in line
    assert hook.service.intake.accept([firing()]) == ["cooldown"]
    wait_until(lambda: hook.memory.queue().waiting == 0, _SECONDS, "the alert to be looked after")
    hook.service.workers.stop(_SECONDS)
    assert hook.lines() == [line]
    assert len(simulator.requests("qr")) == 1


def test_what_looks_like_old_news_and_is_not_is_repaired(
    simulator: Simulator, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconnect_hook.dedup.OLD_NEWS_SECONDS", 3600.0)
    simulator.put_channel("loja", reconnect_seconds=0)
    hook.repair()
    simulator.drop("loja")
    assert hook.service.intake.accept([firing()]) == ["cooldown"]
    _end_pauses(hook)
    wait_until(lambda: len(hook.lines()) == 2, _SECONDS, "the repair")
    assert "action=getQr outcome=reconnected" in hook.lines()[1]


def test_no_more_calls_are_in_flight_than_workers(
    simulator: Simulator, start: Callable[..., Hook]
) -> None:
    channels = [f"channel {number}" for number in range(5)]
    for channel in channels:
        simulator.put_channel(channel)
        simulator.drop(channel)
    simulator.fault("qr", "hang")
    hook = start(RECONNECT_WORKERS="2", WPP_GATEWAY_QR_TIMEOUT="60")
    hook.service.intake.accept([firing(channel) for channel in channels])
    wait_until(lambda: len(simulator.requests("qr")) == 2, _SECONDS, "two calls")
    assert (hook.memory.queue().in_flight, hook.memory.queue().waiting) == (2, 3)
    simulator.fault("qr", "success_false_bare")
    simulator.clear_faults()
    wait_until(lambda: len(hook.lines()) == 5, _SECONDS, "all five")
    assert len(simulator.requests("qr")) == 5
    assert len(simulator.requests("list")) <= 5 + 5


def test_a_repair_that_takes_longer_than_a_lease_is_not_taken_over(
    simulator: Simulator, start: Callable[..., Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 4.0
    monkeypatch.setattr("reconnect_hook.queue.LEASE_SECONDS", seconds)
    # Renewed far more often than it must be, so that a slow machine is in time.
    monkeypatch.setattr("reconnect_hook.repair_worker.LEASE_SECONDS", seconds / 10)
    simulator.drop("loja")
    simulator.fault("qr", "hang")
    hooks = [start(WPP_GATEWAY_QR_TIMEOUT="60") for _ in "ab"]
    hooks[0].service.intake.accept([firing()])
    wait_until(lambda: simulator.requests("qr"), _SECONDS, "the call")
    first = _lease_until(hooks[0])
    wait_until(lambda: _lease_until(hooks[0]) > first + seconds, _SECONDS, "the lease to go on")
    simulator.clear_faults()
    wait_until(lambda: hooks[0].memory.queue().in_flight == 0, _SECONDS, "the end")
    for hook in hooks:
        hook.service.workers.stop(_SECONDS)
    assert len(simulator.requests("qr")) == 1


def _lease_until(hook: Hook) -> float:
    with hook.state() as connection:
        return float(connection.scalar(sa.text("SELECT lease_until FROM repairs")))


def test_stopping_gives_back_what_is_under_way(
    simulator: Simulator, start: Callable[..., Hook]
) -> None:
    simulator.drop("loja")
    simulator.fault("qr", "hang", times=1)
    hook = start(WPP_GATEWAY_QR_TIMEOUT="60")
    hook.service.intake.accept([firing()])
    wait_until(lambda: simulator.requests("qr"), _SECONDS, "the call")
    started = time.monotonic()
    hook.service.workers.stop(0.1)
    assert time.monotonic() - started < 10
    queue = hook.memory.queue()
    assert (queue.waiting, queue.in_flight) == (1, 0)
    assert hook.lines() == []
    simulator.clear_faults()
