"""Repairs from the alert to the log line, at a simulated gateway, on a clock that a test moves."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from reconnect_hook import recorder
from reconnect_hook.models import Phase, RepairCause
from reconnect_hook.reconciler import Scheduler
from reconnect_hook.schema import open_state
from tests.support.simulated_world import SimulatedWorld
from tests.support.states import state_url
from tests.support.world import Options, World
from zapwatch.channels import Status
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import QrKind

_AT_ONCE = Options(cooldown=0, verify=20)
_SILENCE = [RepairCause.SILENT, RepairCause.NEVER_HEARD]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SimulatedWorld]:
    made = SimulatedWorld(tmp_path, _AT_ONCE)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., World]:
    """Make worlds with a gateway in memory, by options."""

    def make(hooks: int = 1, **options: Any) -> World:
        made = World(tmp_path, Options(**options), hooks=hooks)
        request.addfinalizer(made.close)
        return made

    return make


class TestADisconnectedChannel:
    @pytest.mark.parametrize(
        ("settings", "calls", "outcome", "seconds"),
        [
            ({"reconnect_seconds": 11}, "qr", "reconnected", 14),
            ({"session": "dead"}, "qr", "still_disconnected", 22),
            ({"session": "unpaired"}, "qr", "qr_required", 1),
            ({"session": "not_started"}, "qr start_session qr", "reconnected", 6),
            (
                {"session": "not_started", "after_start": "unpaired"},
                *("qr start_session qr", "qr_required", 4),
            ),
            (
                {"session": "not_started", "start_seconds": 1000},
                *("qr start_session qr", "failed", 4),
            ),
            ({"initializing_answers": 3, "reconnect_seconds": 15}, "qr", "reconnected", 18),
            (
                {"initializing_answers": 1000, "session": "dead"},
                *(" ".join(["qr"] * 11), "still_disconnected", 83),
            ),
        ],
    )
    def test_it_is_asked_and_watched(
        self, world: SimulatedWorld, settings: Any, calls: str, outcome: str, seconds: float
    ) -> None:
        world.simulator.put_channel("loja", **settings)
        world.simulator.drop("loja")
        began = world.clock.monotonic()
        ended = world.repair()
        assert (ended.outcome, ended.action) == (outcome, "getQr")
        assert world.calls() == calls.split()
        assert world.clock.monotonic() - began <= seconds + 1
        if outcome == "failed":
            assert "session not started" in ended.detail

    def test_the_gateways_own_spelling_is_called(self, world: SimulatedWorld) -> None:
        world.simulator.put_channel("Pixel12 Digital")
        world.simulator.drop("Pixel12 Digital")
        assert world.alert("pixel12digital") == "accepted"
        world.run(60)
        assert world.outcomes("Pixel12 Digital") == ["reconnected"]
        assert world.row("pixel12digital") is None
        (call,) = world.simulator.requests("qr")
        assert call["path"] == "/api/channels/Pixel12%20Digital/qr"

    def test_a_list_from_before_the_call_proves_nothing_of_it(
        self, make: Callable[..., World]
    ) -> None:
        world = make(list_takes=5.0, call_takes=3.0)
        for name in ("loja", "obra"):
            world.put(name)
        world.later(6, lambda: world.alert("obra"))
        assert world.repair(cause=RepairCause.MANUAL).outcome == "reconnected"
        # One finds it, one is under way when the call ends, for obra, and one comes after it.
        assert world.gateway.lists == 3

    def test_a_session_that_cannot_be_started_has_failed(self, world: SimulatedWorld) -> None:
        world.simulator.put_channel("loja", session="not_started")
        world.simulator.drop("loja")
        world.simulator.fault("start_session", "success_false_text")
        ended = world.repair()
        assert ended.outcome == "failed"
        assert ended.detail.startswith("start_session: invalid: the gateway answered success=false")
        assert world.calls() == ["qr", "start_session"]


class TestAListThatFails:
    def test_nothing_is_called_without_one(self, world: SimulatedWorld) -> None:
        world.simulator.drop("loja")
        world.simulator.fault("list", "unauthorized")
        world.alert()
        world.run(30)
        assert world.calls() == []
        assert world.ended() == []
        (line,) = world.lines()
        assert 'action=list outcome=failed detail="list: unauthorized: HTTP 401' in line

    @pytest.mark.parametrize(
        ("session", "outcome"), [("paired", "reconnected"), ("dead", "still_disconnected")]
    )
    def test_it_proves_nothing_of_a_call(
        self, world: SimulatedWorld, session: Any, outcome: str
    ) -> None:
        world.simulator.put_channel("loja", session=session, status="disconnected")
        world.simulator.drop("loja")
        world.later(1, lambda: world.simulator.fault("list", "html_504"))
        world.alert()
        world.run(100)
        assert world.ended() == [], "nothing ends by a list that failed"
        world.simulator.clear_faults()
        world.run(100)
        assert world.outcomes() == [outcome]
        assert world.calls() == ["qr"]


class TestASilentChannel:
    @pytest.mark.parametrize("cause", _SILENCE)
    def test_it_is_back_when_a_message_comes(
        self, world: SimulatedWorld, cause: RepairCause
    ) -> None:
        world.simulator.zombie("loja")
        world.message()
        world.clock.seconds += 5 * 3600
        world.later(8, world.message)
        ended = world.repair(cause=cause)
        assert (ended.outcome, ended.action) == ("reconnected", "getQr")
        assert world.calls() == ["qr"]
        assert ended.finished_at - ended.accepted_at < 11

    @pytest.mark.parametrize("cause", _SILENCE)
    def test_without_a_message_it_was_only_requested(
        self, world: SimulatedWorld, cause: RepairCause
    ) -> None:
        world.simulator.zombie("loja")
        world.later(5, lambda: world.message("obra"))
        ended = world.repair(cause=cause)
        assert (ended.outcome, ended.action) == ("requested", "getQr")
        assert 20 <= ended.finished_at - ended.accepted_at <= 23

    def test_an_alert_amid_a_look_that_reads_no_messages_waits_for_one_that_does(
        self, make: Callable[..., World]
    ) -> None:
        world = make(list_takes=1.0)
        world.put()
        world.put("obra", Status.DISCONNECTED)
        world.message()
        world.alert("obra")
        world.later(0.5, lambda: world.alert(cause=RepairCause.SILENT))
        world.run(10)
        assert (world.outcomes(), world.gateway.calls_of("loja")) == (["recovered"], [])

    def test_it_may_turn_out_to_be_disconnected(self, world: SimulatedWorld) -> None:
        world.simulator.zombie("loja")
        world.later(5, lambda: world.simulator.drop("loja"))
        assert world.repair(cause=RepairCause.SILENT).outcome == "still_disconnected"

    @pytest.mark.parametrize("has_messages", [True, False], ids=["broken", "none"])
    def test_without_a_log_there_is_no_proof(
        self, make: Callable[..., World], *, has_messages: bool
    ) -> None:
        world = make(has_messages=has_messages)
        world.put()
        world.message()
        world.messages.is_down = True
        assert world.repair(cause=RepairCause.SILENT).outcome == "requested"

    def test_a_scanned_session_needs_no_message_to_have_recovered(
        self, world: SimulatedWorld
    ) -> None:
        world.simulator.put_channel("loja", zombie=True, zombie_answer="qr")
        assert world.repair(cause=RepairCause.SILENT).outcome == "qr_required"
        world.simulator.put_channel("loja", zombie=True, zombie_answer="connected")
        assert world.repair(cause=RepairCause.SILENT).outcome == "recovered"
        assert world.repair(cause=RepairCause.SILENT).outcome == "requested", "another episode"


_RESTARTS = replace(_AT_ONCE, allow_restart=True, verify=2.0)


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[SimulatedWorld]:
    """Make one whose channel only a new session brings back, which two repairs have not."""
    world = SimulatedWorld(tmp_path, _RESTARTS)
    world.simulator.put_channel("Pixel12 Digital", session="dead", status="disconnected")
    for _ in range(2):
        world.repair("Pixel12 Digital")
    assert world.outcomes("Pixel12 Digital") == ["still_disconnected"] * 2
    world.simulator.put_channel("Pixel12 Digital")
    yield world
    world.close()


class TestARestart:
    def test_a_session_is_not_thrown_away_unasked(self, tmp_path: Path) -> None:
        world = SimulatedWorld(tmp_path, replace(_RESTARTS, allow_restart=False))
        world.simulator.put_channel("loja", session="dead", status="disconnected")
        for _ in range(3):
            world.repair()
        assert world.outcomes() == ["still_disconnected"] * 3
        assert world.calls() == ["qr"] * 3
        world.close()

    def test_where_it_is_allowed_the_third_failure_makes_a_new_session(
        self, dead: SimulatedWorld
    ) -> None:
        ended = dead.repair("Pixel12 Digital")
        assert (ended.outcome, ended.action) == ("qr_required", "restart")
        assert dead.calls()[2:] == ["qr", "delete", "create", "qr"]
        *_, warning, third = dead.lines()
        assert "action=restart outcome=qr_required attempt=3" in third
        assert 'channel="Pixel12 Digital" warning=' in warning
        assert "the old pairing is lost" in warning
        assert "a person has to scan" in warning
        waits = {"gateway": "wpp", "channel": "Pixel12 Digital"}
        assert dead.value("whatsapp_reconnect_qr_required", **waits) == 1

    @pytest.mark.parametrize("fault", ["reset", "html_504"])
    def test_a_deletion_that_works_although_it_fails_is_made_good(
        self, dead: SimulatedWorld, fault: Any
    ) -> None:
        dead.simulator.fault("delete", fault, effect=True)
        ended = dead.repair("Pixel12 Digital")
        assert (ended.channel, ended.outcome, ended.action) == (
            "Pixel12 Digital",
            "qr_required",
            "restart",
        )
        assert dead.calls()[2:] == ["qr", "delete", "create", "qr"]

    @pytest.mark.parametrize("is_over", [False, True])
    def test_a_deletion_that_works_later_is_made_good_by_the_next_repair(
        self, dead: SimulatedWorld, *, is_over: bool
    ) -> None:
        dead.simulator.fault("delete", "html_504")
        ended = dead.repair("Pixel12 Digital")
        assert (ended.outcome, ended.action) == ("failed", "restart")
        assert dead.calls()[2:] == ["qr", "delete"]
        dead.simulator.remove("Pixel12 Digital")
        tell = dead.resolve if is_over else dead.alert
        assert tell("Pixel12 Digital") == "accepted"
        dead.run(20)
        assert dead.outcomes("Pixel12 Digital")[3:] == ["qr_required"]
        assert dead.calls()[4:] == ["create", "qr"]

    @pytest.mark.parametrize(
        ("fault", "more", "outcome", "calls"),
        [
            ("html_502", {"times": 2}, "qr_required", ["create"] * 3 + ["qr"]),
            ("html_502", {}, "failed", ["create"] * 6),
            ("reset", {"effect": True}, "qr_required", ["create", "qr"]),
        ],
        ids=["repeated", "given up", "it worked"],
    )
    def test_a_new_session_is_asked_for_until_there_is_one(
        self, dead: SimulatedWorld, fault: Any, more: Any, outcome: str, calls: list[str]
    ) -> None:
        dead.simulator.fault("create", fault, **more)
        ended = dead.repair("Pixel12 Digital")
        assert (ended.outcome, ended.action) == (outcome, "restart")
        assert dead.calls()[2:] == ["qr", "delete", *calls]
        assert ended.detail.startswith("create: html: HTTP 502") is (outcome == "failed")

    def test_a_hook_that_dies_between_the_two_is_followed_by_one_that_makes_it(
        self, dead: SimulatedWorld
    ) -> None:
        dead.alert("Pixel12 Digital")
        dead.run(60, until=lambda: "delete" in dead.calls())
        dead.restart()
        assert dead.calls()[2:] == ["qr", "delete"]
        dead.run(60)
        assert dead.calls()[2:] == ["qr", "delete", "create", "qr"]
        assert dead.outcomes("Pixel12 Digital")[-1] == "qr_required"

    def test_no_session_is_thrown_away_that_could_not_be_noted(
        self, dead: SimulatedWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(changes: Any) -> list[object]:
            if changes.restarts:
                raise OSError
            return []

        monkeypatch.setattr("reconnect_hook.recorder._lines", fail)
        dead.alert("Pixel12 Digital")
        with suppress(OSError):
            dead.run(60)
        assert dead.calls()[2:] == ["qr"]


class TestWhoseFaultItIs:
    @pytest.mark.parametrize(
        ("operation", "fault", "whole"),
        [
            ("list", "http_500_json", True),
            ("qr", "html_504", True),
            ("qr", "unauthorized", True),
            ("qr", "http_500_json", False),
            ("qr", "success_false_text", False),
        ],
    )
    def test_the_gateway_is_not_blamed_for_one_session(
        self, world: SimulatedWorld, operation: str, fault: Any, *, whole: bool
    ) -> None:
        names = [f"c{number}" for number in range(6)]
        for name in names:
            world.simulator.put_channel(name)
            world.simulator.drop(name)
        world.simulator.fault(operation, fault)
        for name in names:
            world.alert(name)
        world.run(14)
        world.simulator.clear_faults()
        world.simulator.drop("loja")
        world.alert()
        world.run(2)
        asked = {one["channel"] for one in world.simulator.requests("qr")}
        assert ("loja" in asked) is not whole, "a gateway that fails is left alone"

    def test_a_fault_of_the_hook_itself_ends_one_repair_and_no_more(
        self, make: Callable[..., World], caplog: pytest.LogCaptureFixture
    ) -> None:
        world = make(cooldown=0)
        world.put(status=Status.DISCONNECTED)
        world.gateway.on_call = _raise
        ended = world.repair()
        assert (ended.outcome, ended.detail) == ("failed", "internal error")
        assert caplog.records[0].exc_info
        world.gateway.on_call = lambda *_: world.put()
        assert world.repair().outcome == "reconnected"

    @pytest.mark.parametrize(
        ("part", "outcomes"),
        [("decide", ["reconnected"]), ("after_call", ["failed", "recovered"])],
    )
    def test_a_fault_at_one_channel_stops_no_other(
        self,
        make: Callable[..., World],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        part: str,
        outcomes: list[str],
    ) -> None:
        world = make()
        for name in ("loja", "obra"):
            world.put(name, Status.DISCONNECTED)
        world.gateway.on_call = lambda _, name: world.put(name)

        with monkeypatch.context() as patch:
            work = getattr(recorder, part)
            patch.setattr(recorder, part, _faulty_for("loja", work))
            world.alert("loja")
            world.alert("obra")
            world.run(50)
        assert world.outcomes("obra") == ["reconnected"]
        assert "channel 'loja': internal error" in caplog.messages
        world.run(15)
        assert world.outcomes("loja") == outcomes, "a minute later"

    def test_a_fault_of_the_list_is_a_list_that_failed(
        self, make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make()
        world.put(status=Status.DISCONNECTED)
        world.gateway.on_call = lambda _, name: world.put(name)

        with monkeypatch.context() as patch:
            patch.setattr(world.gateway, "list_channels", _raise)
            world.alert()
            world.run(3)
        assert "internal error" in world.lines()[0]
        world.run(60)
        assert world.outcomes() == ["reconnected"]


def _raise(*_: object) -> None:
    raise ZeroDivisionError


def _faulty_for(key: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(row: Any, *arguments: Any) -> Any:
        if row.key == key:
            raise ZeroDivisionError
        return work(row, *arguments)

    return faulty


# One of each kind: which fault is of which kind, contract/suite.py says, and test_gateway.py.
_QR_FAULTS = {
    "hang": "timeout",
    "drip": "timeout",
    "reset": "connection",
    "redirect": "http",
    "html_502": "html",
    "invalid_utf8": "invalid",
    "unauthorized": "unauthorized",
}


class TestWhatIsWritten:
    def test_each_failure_of_the_call_is_one_line_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = SimulatedWorld(tmp_path, _AT_ONCE, timeout=1.0)
        name = "whatsapp_gateway_request_errors_total"
        errors = {"gateway": "wpp", "operation": "qr"}
        expected: dict[str, int] = {}
        for count, (fault, reason) in enumerate(_QR_FAULTS.items(), 1):
            world.simulator.drop("loja")
            world.simulator.fault("qr", fault)
            world.repair()
            world.simulator.clear_faults()
            world.skip(301)  # the gateway's rest
            *_, line = world.lines()
            for part in (
                " [healthcheck-sessions] channel=loja reason=disconnected action=getQr",
                f" outcome=failed attempt={count} seconds=",
                f'detail="qr: {reason}: ',
                world.simulator.requests("qr")[-1]["request_id"],
            ):
                assert part in line, fault
            assert len(world.lines()) == count
            expected[reason] = expected.get(reason, 0) + 1
            assert world.value(name, **errors, reason=reason) == expected[reason], fault
            failed = {"channel": "loja", "reason": "disconnected", "outcome": "failed"}
            total = world.value("whatsapp_reconnect_attempts_total", gateway="wpp", **failed)
            assert total == count
            failures = "whatsapp_reconnect_consecutive_failures"
            assert world.value(failures, gateway="wpp", channel="loja") == count
        durations = "whatsapp_reconnect_duration_seconds_count"
        assert world.value(durations, outcome="failed") == len(_QR_FAULTS)
        assert any(message.startswith("channel 'loja': failed qr: ") for message in caplog.messages)
        assert world.secret not in "".join([*world.lines(), *caplog.messages])
        assert world.repair().outcome == "reconnected"
        assert world.value(failures, gateway="wpp", channel="loja") == 0
        world.close()


class TestOldNews:
    def test_an_alert_that_comes_after_the_repair_that_helped_writes_no_second_line(
        self, make: Callable[..., World]
    ) -> None:
        world = make()
        world.put(status=Status.DISCONNECTED)
        world.gateway.on_call = lambda _, name: world.put(name)
        world.repair()
        (line,) = world.lines()
        assert "action=getQr outcome=reconnected" in line
        assert world.alert() == "cooldown"
        world.run(40)
        row = world.row()
        assert row is not None
        assert not row.is_open
        assert world.lines() == [line]
        assert world.gateway.calls_of("loja") == ["reconnect"]


class TestAnAlertThatIsLost:
    """Alertmanager sends no resolved alert that it holds back or has forgotten."""

    @staticmethod
    def dropped(make: Callable[..., World], answer: QrKind = QrKind.QR) -> World:
        """Return a world whose channel has dropped, and whose repair did not bring it back."""
        world = make()
        world.gateway.answer = answer
        world.put("loja", Status.DISCONNECTED)
        world.repair()
        return world

    @pytest.mark.parametrize("answer", [QrKind.QR, QrKind.ACCEPTED])
    def test_a_channel_that_is_back_is_found_within_an_hour(
        self, make: Callable[..., World], answer: QrKind
    ) -> None:
        world = self.dropped(make, answer)
        world.run(1500)
        calls, lists = len(world.gateway.calls), world.gateway.lists
        world.skip(3600)
        world.run(10)
        assert len(world.gateway.calls) == calls, "a silenced alert silences the repairs, too"
        assert world.gateway.lists <= lists + 1
        world.put("loja")
        world.skip(3600)
        world.run(10)
        assert world.outcomes()[-1] == "recovered"
        labels = {"gateway": "wpp", "channel": "loja"}
        assert not world.value("whatsapp_reconnect_qr_required", **labels)
        assert not world.value("whatsapp_reconnect_consecutive_failures", **labels)
        assert len(world.gateway.calls) == calls

    def test_a_statement_that_fails_before_delays_that_by_a_minute(
        self, make: Callable[..., World]
    ) -> None:
        world = self.dropped(make)
        world.put("loja")
        with world.hook.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE missed_message RENAME TO locked")
        world.skip(3600)
        world.run(10)
        with world.hook.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE locked RENAME TO missed_message")
        world.run(70)
        assert world.outcomes()[-1] == "recovered"

    def test_of_a_paused_channel_that_is_gone_the_log_has_no_line_each_hour(
        self, make: Callable[..., World]
    ) -> None:
        world = self.dropped(make)
        world.hook.actions.pause("loja", None)
        del world.gateway.statuses["loja"]
        for _ in range(3):
            world.skip(3600)
            world.run(10)
        assert world.outcomes() == ["qr_required"]
        row = world.row()
        assert row is not None
        assert (row.is_open, row.attempts) == (False, 1)

    def test_the_line_about_the_end_has_the_reason_of_the_drop(
        self, make: Callable[..., World]
    ) -> None:
        world = self.dropped(make)
        world.put("loja")
        world.message("loja")
        world.alert("loja", RepairCause.SUSPECT)
        world.run(100)
        world.skip(3600)
        world.run(10)
        assert "reason=disconnected action=none outcome=recovered" in world.lines()[-1]

    def test_that_a_silent_one_is_listed_as_connected_proves_nothing(
        self, make: Callable[..., World]
    ) -> None:
        world = make()
        world.gateway.answer = QrKind.QR
        world.put()
        assert world.repair(cause=RepairCause.SILENT).outcome == "qr_required"
        world.skip(3700)
        world.run(10)
        assert world.outcomes() == ["qr_required"]
        assert world.gateway.lists == 1


def test_a_start_at_a_gateway_with_a_request_budget_costs_few_lists(
    make: Callable[..., World],
) -> None:
    world = make(is_counted=True)
    world.put(status=Status.DISCONNECTED)
    world.gateway.on_call = lambda _, name: world.later(45.0, lambda: world.put(name))
    assert world.repair().outcome == "reconnected"
    assert world.gateway.lists <= 11


class TestManyChannels:
    def test_one_list_serves_a_round(self, make: Callable[..., World]) -> None:
        world = make(list_takes=2.0)
        names = [f"channel {number}" for number in range(50)]
        for name in names:
            world.put(name, Status.INITIALIZING)
            world.alert(name)
        world.run(100)
        assert world.gateway.calls == [], "they may come up by themselves"
        # One at once, and one each half minute.
        assert world.gateway.lists <= 5
        for name in names:
            world.put(name)
        lists = world.gateway.lists
        world.run(35)
        assert world.gateway.lists <= lists + 2
        assert all((row := world.row(name)) and not row.is_open for name in names)

    def test_a_slow_list_is_asked_for_less_often(self, make: Callable[..., World]) -> None:
        world = make(list_takes=20.0)
        world.put(status=Status.DISCONNECTED)
        world.repair()
        assert world.outcomes() == ["still_disconnected"]
        assert world.gateway.lists <= 4

    @pytest.mark.parametrize("hooks", [1, 2])
    def test_no_more_calls_are_in_flight_than_workers(
        self, make: Callable[..., World], hooks: int
    ) -> None:
        world = make(hooks, workers=2, call_takes=5.0)
        names = [f"channel {number}" for number in range(6)]
        for number, name in enumerate(names):
            world.put(name, Status.DISCONNECTED)
            world.alert(name, to=number % hooks)
        world.gateway.on_call = lambda _, name: world.put(name)
        world.run(40)
        assert world.most_in_flight == 2
        assert [world.outcomes(name) for name in names] == [["reconnected"]] * 6
        assert sorted(about for _, about, _ in world.gateway.calls) == names

    def test_a_pause_holds_for_a_channel_that_waits_for_a_worker(
        self, make: Callable[..., World]
    ) -> None:
        world = make(workers=1)
        other = {"loja": "obra", "obra": "loja"}
        for name in other:
            world.put(name, Status.DISCONNECTED)
            world.alert(name)
        world.gateway.on_call = lambda _, name: world.hook.actions.pause(other[name], None)
        world.run(100)
        assert len(world.gateway.calls) == 1


class TestTwoHooks:
    def test_a_repair_that_another_hook_took_over_is_counted_there(
        self, make: Callable[..., World], caplog: pytest.LogCaptureFixture
    ) -> None:
        world = make(2, call_takes=20.0)
        world.put(status=Status.DISCONNECTED)
        world.alert()
        world.run(5, until=lambda: world.in_flight > 0)
        first, second = world.hooks
        first.stalled_until = world.clock.monotonic() + 15
        world.gateway.on_call = lambda *_: world.put()
        world.run(60)
        assert "another hook leads gateway wpp now" in caplog.messages
        name = "whatsapp_reconnect_attempts_total"
        counted = [
            sum(
                sample.value
                for family in hook.metrics.registry.collect()
                for sample in family.samples
                if sample.name == name
            )
            for hook in (first, second)
        ]
        assert counted == [0, 1]
        assert len(world.ended()) == 1

    def test_an_answer_that_comes_after_its_lead_ends_no_call_of_the_next_one(
        self, make: Callable[..., World]
    ) -> None:
        world = make(2, call_takes=40.0)
        world.put(status=Status.DISCONNECTED)
        world.alert()
        world.run(5, until=lambda: world.in_flight > 0)
        first, second = world.hooks
        first.stalled_until = world.clock.monotonic() + 15
        world.run(17)
        second.stalled_until = inf
        world.run(30, until=lambda: len(world.gateway.calls) > 0)
        world.run(5)
        row = world.row()
        assert first.reconciler.leads
        assert world.in_flight == 2
        assert row is not None
        assert row.phase is Phase.CALLING


def test_no_fault_ends_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reconnect_hook.reconciler.RETRY_SECONDS", 0.01)
    faults: list[Exception] = [struct.error("unpack"), StateError("locked")]
    database = open_state(state_url(tmp_path))
    scheduler = Scheduler(database)
    polled = threading.Event()

    def faulty(_database: Database) -> dict[str, object]:
        scheduler.wake()
        if faults:
            raise faults.pop()
        polled.set()
        return {}

    monkeypatch.setattr("reconnect_hook.reconciler.poll", faulty)
    scheduler.start()
    assert polled.wait(60)
    assert scheduler.is_alive
    scheduler.stop(0)
    database.close()
    assert "state: locked; trying again" in caplog.messages
    assert "reconciler: internal error" in caplog.messages
