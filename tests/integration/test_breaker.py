"""The circuit breaker of a gateway, and what one list tells: worlds of two hooks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from reconnect_hook.models import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    THRESHOLD,
    WINDOW_SECONDS,
    GatewayRow,
    RepairCause,
)
from reconnect_hook.reconciler import GatewayReconciler
from reconnect_hook.recorder import Recorder
from reconnect_hook.repository import read_gateway
from tests.support.states import firing
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.db import CollisionError
from zapwatch.gateways.base import ChannelList, GatewayError, GatewayErrorKind, Operation

_TIMEOUT, _HTTP = GatewayErrorKind.TIMEOUT, GatewayErrorKind.HTTP
_MANY = [f"channel {number:02d}" for number in range(30)]
_AT = 1_700_000_000.0
_RESTS = [15, 30, 60, 120, 240, 300, 300]
Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    def world(options: Options | None = None, *, hooks: int = 2) -> World:
        made = World(tmp_path, options, hooks=hooks)
        made.gateway.on_call = lambda _call, name: made.put(name)
        request.addfinalizer(made.close)
        return made

    return world


def _drop(world: World, *channels: str) -> None:
    for name in channels:
        world.put(name, Status.DISCONNECTED)
        world.alert(name)


def _state(world: World) -> GatewayRow:
    with world.hook.database.read() as connection:
        return read_gateway(connection, GATEWAY)


def _open(world: World) -> None:
    """Let so many calls fail that the gateway is left alone."""
    world.gateway.call_error = _TIMEOUT
    _drop(world, *_MANY)
    world.run(150, until=lambda: _state(world).is_tripped)
    assert len(world.gateway.calls) >= THRESHOLD


def test_so_many_failures_in_a_row_open_it() -> None:
    state = GatewayRow()
    for number in range(1, THRESHOLD + 1):
        state = state.after_failure(_AT + number)
        assert state.failures == number
        assert state.is_tripped == state.rests(_AT + number) == (number == THRESHOLD)
    assert state.rests_until == _AT + THRESHOLD + FIRST_REST_SECONDS
    late = state.after_failure(_AT + THRESHOLD + 1)
    assert late == state, "calls that were under way do not lengthen the rest"
    assert state.after_list(_AT + THRESHOLD + 1) == state, "nor does a list end it"
    answered = state.after_answer(_AT + 20)
    assert (answered.failures, answered.rests_until, answered.back_at) == (0, None, _AT + 20)


def test_an_answer_in_between_or_much_time_begins_the_count_anew() -> None:
    state = GatewayRow(failures=THRESHOLD - 1, failed_at=_AT)
    assert state.after_answer(_AT + 1) == replace(state, failures=0)
    assert state.after_failure(_AT + WINDOW_SECONDS + 1).failures == 1
    assert state.after_failure(_AT - 1).failures == 1, "a clock that was put back"
    assert state.after_failure(_AT + WINDOW_SECONDS).failures == THRESHOLD


def test_the_pauses_of_the_gateway_grow(make: Make) -> None:
    state, at = GatewayRow(failures=THRESHOLD - 1, failed_at=_AT), _AT
    for rest in _RESTS:
        state = state.after_failure(at)
        assert state.rests_until == at + rest
        assert state.rests(at + rest - 1)
        at += rest + 1
        assert not state.rests(at)
    world = make(hooks=1)
    world.gateway.list_error = _TIMEOUT
    _drop(world, "loja")
    world.run(60, until=lambda: _state(world).is_tripped)
    lists = world.gateway.lists
    world.run(sum(_RESTS[:4]) + 60)
    assert 4 <= world.gateway.lists - lists <= 5, "one trial after each rest"


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_clock_that_jumps_does_not_shut_the_gateway_off(make: Make, jump: float) -> None:
    world = make()
    _open(world)
    world.gateway.call_error = None
    world.clock.jumped += jump
    world.run(40)
    assert world.gateway.statuses["channel 29"] is Status.CONNECTED


def test_a_gateway_that_fails_is_left_alone_by_all_and_then_tried_once(make: Make) -> None:
    def rests_until() -> float | None:
        return world.hook.history.present().gateway_rests_until

    world = make()
    assert rests_until() is None
    _open(world)
    assert rests_until() == pytest.approx(world.clock.time() + FIRST_REST_SECONDS, abs=2)
    world.clock.jumped -= 2 * LONGEST_REST_SECONDS
    assert rests_until() is None, "of a clock that has been put back since"
    world.clock.jumped = 0
    world.run(2)
    calls, lists = len(world.gateway.calls), world.gateway.lists
    world.run(FIRST_REST_SECONDS - 3)
    assert (len(world.gateway.calls), world.gateway.lists) == (calls, lists)
    world.gateway.call_error = None
    world.gateway.list_error = _TIMEOUT
    world.run(8, until=lambda: world.gateway.lists > lists)
    world.run(FIRST_REST_SECONDS)
    assert (len(world.gateway.calls), world.gateway.lists) == (calls, lists + 1), "a trial"
    world.gateway.list_error = None
    world.run(60)
    assert set(world.gateway.statuses.values()) == {Status.CONNECTED}


@pytest.mark.parametrize("seconds", [0.2, 60.0])
def test_lists_that_are_answered_do_not_end_the_pauses_of_calls_that_fail(
    make: Make, seconds: float
) -> None:
    world = make(Options(call_takes=seconds), hooks=1)
    _open(world)
    world.most_in_flight = 0
    for _ in range(12):
        world.run(300)
        for name in _MANY:
            world.alert(name)
    calls = [len(world.gateway.calls_of(name)) for name in _MANY]
    assert max(calls) <= 4, "in an hour, by pauses of 5, 10, 20 and 40 minutes"
    assert world.most_in_flight == 1, "trials"
    lists = world.gateway.lists
    assert lists <= 250, "every 30 s beside a trial, not every second"
    world.gateway.call_error = None
    world.options = replace(world.options, call_takes=0.2)
    world.run(LONGEST_REST_SECONDS + 20 + seconds)
    assert {str(world.outcomes(name)[-1]) for name in _MANY} == {"reconnected"}
    assert world.gateway.lists > lists


def _kill(world: World, *channels: str) -> None:
    """Let the calls for these channels time out, and drop them."""

    def call(_call: str, name: str) -> None:
        if name in channels:
            raise GatewayError(Operation.RECONNECT, _TIMEOUT, "made up")
        world.put(name)

    world.gateway.on_call = call
    _drop(world, *channels)


@pytest.mark.parametrize(("count", "rounds"), [(THRESHOLD + 1, 6), (len(_MANY), 0)])
def test_sessions_that_fail_are_not_tried_before_another_one(
    make: Make, count: int, rounds: int
) -> None:
    world = make(Options(workers=8), hooks=1)
    dead = _MANY[:count]
    _kill(world, *dead)
    world.run(2)
    for _ in range(rounds):
        world.run(300)
        for name in dead:
            world.alert(name)
    assert _state(world).is_tripped
    _drop(world, "loja")
    world.run(4 * FIRST_REST_SECONDS)
    assert world.outcomes() == ["reconnected"]


def test_channels_that_drop_again_and_again_let_each_other_have_a_turn(make: Make) -> None:
    world = make(Options(workers=1, call_takes=30.0), hooks=1)
    world.gateway.on_call = lambda _call, name: world.put(name)
    for _ in range(60):
        for name in _MANY[:15]:
            if world.gateway.statuses.get(name) is not Status.DISCONNECTED:
                _drop(world, name)
                world.run(1)
        world.run(15)
    calls = [len(world.gateway.calls_of(name)) for name in _MANY[:15]]
    assert min(calls) >= 2, calls


def test_sessions_that_fail_have_growing_pauses_beside_one_that_is_answered(make: Make) -> None:
    world = make(hooks=1)
    dead = _MANY[:20]
    _kill(world, *dead)
    for _ in range(20):
        _drop(world, "loja", *dead)
        world.run(900)
    assert set(world.outcomes()) == {"reconnected"}
    at = [at for _, name, at in world.gateway.calls if name == dead[0]]
    assert at[-1] - at[-2] > 2700, at


def test_a_list_after_one_that_failed_closes_the_circuit(make: Make) -> None:
    world = make(hooks=1)
    world.gateway.list_error = _TIMEOUT
    _kill(world, *_MANY[:3])
    _drop(world, *_MANY[3:])
    world.run(1200)
    assert _state(world).failures > 2 * THRESHOLD
    world.gateway.list_error = None
    world.run(LONGEST_REST_SECONDS + 20)
    assert {str(world.outcomes(name)[-1]) for name in _MANY[3:]} == {"reconnected"}


def test_whether_the_last_list_failed_is_known_to_all_hooks(make: Make) -> None:
    world = make()
    world.gateway.list_error = _TIMEOUT
    _drop(world, "loja")
    world.run(60, until=lambda: _state(world).is_tripped)
    world.gateway.list_error, lists = None, world.gateway.lists
    world.gateway.on_call = lambda _call, _channel: None
    world.run(FIRST_REST_SECONDS + 1, until=lambda: world.gateway.lists > lists)
    world.run(0.2)
    (second,) = (one for one in world.hooks if one.reconciler.leads)
    (first,) = (one for one in world.hooks if one is not second)
    assert first.reconciler.failed_list is not None
    assert second.reconciler.failed_list is None
    assert _state(world).failures == 0, "closed by the first list after those that failed"
    first.stalled_until = world.clock.monotonic() + 3600
    _open(world)
    first.stalled_until, second.stalled_until = 0.0, first.stalled_until
    world.most_in_flight = world.in_flight
    world.run(60, until=lambda: first.reconciler.leads and first.reconciler.failed_list is None)
    assert _state(world).is_tripped
    world.run(60)
    assert world.most_in_flight <= 1, "trials"


def _open_beside(world: World) -> None:
    """Open the circuit while a call is under way, which lasts longer than the others."""
    _drop(world, "slow")
    world.run(1)
    world.options = replace(world.options, call_takes=0.2)
    world.gateway.call_error = _TIMEOUT
    _drop(world, *_MANY[:THRESHOLD])
    world.run(5, until=lambda: _state(world).is_tripped)
    world.gateway.call_error = None


def test_the_answer_to_a_call_from_before_ends_the_rest(make: Make) -> None:
    world = make(Options(workers=8, call_takes=5.0), hooks=1)
    _open_beside(world)
    world.run(FIRST_REST_SECONDS / 2)
    assert world.outcomes("slow") == ["reconnected"]
    assert {str(world.outcomes(name)[-1]) for name in _MANY[:THRESHOLD]} == {"reconnected"}


def test_a_clock_that_is_put_back_in_a_rest_makes_no_loop(make: Make) -> None:
    world = make(Options(workers=8, call_takes=30.0), hooks=1)
    _open_beside(world)
    world.clock.jumped -= 100
    _drop(world, "loja")
    world.run(FIRST_REST_SECONDS)
    commits = world._commits
    world.run(5)
    assert world._commits - commits < 20


def test_no_probe_begins_in_a_rest(make: Make) -> None:
    probe = replace(Options().probe, kind=ProbeKind.QUERY)
    world = make(Options(can_query=True, probe=probe), hooks=1)

    def call(call: str, _name: str) -> None:
        if call == "reconnect":
            raise GatewayError(Operation.RECONNECT, _TIMEOUT, "made up")
        world.clock.wait(threading.Event(), 0.3)

    world.gateway.on_call = call
    for name in _MANY[THRESHOLD:]:
        world.put(name)
        world.alert(name, RepairCause.SUSPECT)
    _drop(world, *_MANY[:THRESHOLD])
    world.run(5, until=lambda: _state(world).is_tripped)
    calls = len(world.gateway.calls)
    world.run(FIRST_REST_SECONDS - 3)
    assert len(world.gateway.calls) == calls
    world.run(10)
    assert len(world.gateway.calls) > calls


def test_calls_that_fail_after_repairs_without_effect_open_it(make: Make) -> None:
    world = make(Options(workers=8), hooks=1)
    world.gateway.on_call = lambda _call, _channel: None
    _drop(world, *_MANY)
    world.run(200)
    assert [world.outcomes(name) for name in _MANY] == [["still_disconnected"]] * len(_MANY)
    world.gateway.call_error = _TIMEOUT
    world.run(600, until=lambda: _state(world).is_tripped)
    assert _state(world).is_tripped


def test_a_trial_whose_holder_died_is_made_by_another(make: Make) -> None:
    world = make()
    _drop(world, "first")
    world.run(0.2)
    (first,) = (hook for hook in world.hooks if hook.reconciler.leads)
    _open(world)
    world.gateway.call_error = None
    world.run(60, until=lambda: any(hook.reconciler.leads for hook in world.hooks))
    (leader,) = (hook for hook in world.hooks if hook.reconciler.leads)
    assert leader is not first, "another one may have a way to the gateway"
    leader.die()
    world.hooks.remove(leader)
    world.run(40)
    assert set(world.gateway.statuses.values()) == {Status.CONNECTED}


@pytest.mark.parametrize(("error", "seconds"), [(_HTTP, 3600), (_TIMEOUT, 0)])
def test_a_session_that_fails_alone_does_not_stop_the_others(
    make: Make, error: GatewayErrorKind, seconds: float
) -> None:
    world = make(Options(cooldown=10.0), hooks=1)
    world.gateway.call_error = error
    _drop(world, "loja")
    for _ in range(2 * THRESHOLD):
        world.run(60)
        world.alert()
        world.skip(seconds)
    assert not _state(world).is_tripped
    assert world.outcomes() == ["failed"] * len(world.ended())
    assert len(world.ended()) > THRESHOLD
    world.gateway.call_error = None
    _drop(world, "other")
    world.run(10)
    assert world.outcomes("other") == ["reconnected"]


def test_a_fault_of_the_hook_says_nothing_of_the_gateway(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(hooks=1)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.gateway, "reconnect", fail)
    _drop(world, *_MANY)
    world.run(30)
    assert [world.outcomes(name) for name in _MANY] == [["failed"]] * len(_MANY)
    assert _state(world).failures == 0


def test_a_list_that_fails_ends_nothing_and_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = make(hooks=1)
    world.gateway.list_error = _TIMEOUT
    _drop(world, *_MANY)
    world.run(60, until=lambda: _state(world).is_tripped)
    assert world.gateway.lists == THRESHOLD
    assert world.outcomes(_MANY[0]) == []
    assert len(world.lines()) == 1, "one line for the gateway"
    world.gateway.list_error = None
    store = Recorder._store

    def collide(*_values: object) -> None:
        monkeypatch.setattr(Recorder, "_store", store)
        raise CollisionError("made up")

    monkeypatch.setattr(Recorder, "_store", collide)
    world.run(60)
    assert {str(world.outcomes(name)) for name in _MANY} == {"['reconnected']"}
    assert caplog.text.count("answers again") == 1, "though it was stored again"


def test_the_first_list_that_fails_has_a_line_also_after_a_call_that_failed(make: Make) -> None:
    world = make(hooks=1)
    _kill(world, "loja")
    world.run(5)
    world.gateway.list_error = _TIMEOUT
    world.run(100)
    assert ["action=list" in line for line in world.lines()] == [False, True]


def test_a_new_series_of_failing_lists_has_a_line_also_if_another_hook_ended_the_last(
    make: Make,
) -> None:
    world = make()
    world.gateway.list_error = _TIMEOUT
    _drop(world, "loja")
    world.run(5)
    (first,) = (one for one in world.hooks if one.reconciler.failed_list is not None)
    (second,) = (one for one in world.hooks if one is not first)
    first.stalled_until = world.clock.monotonic() + 60
    world.gateway.list_error = None
    world.run(60)
    assert world.outcomes() == ["reconnected"]
    second.stalled_until = world.clock.monotonic() + 3600
    world.skip(600)
    world.gateway.list_error = _TIMEOUT
    _drop(world, "loja")
    world.run(60)
    assert ["action=list" in line for line in world.lines()] == [True, False, True]


def _fail(world: World, attempts: int = 1) -> None:
    """Let repairs of a channel fail, so that the next one waits."""
    world.gateway.call_error = _HTTP
    _drop(world, "loja")
    for attempt in range(1, attempts + 1):
        world.run(10, until=lambda n=attempt: len(world.ended()) == n)  # type: ignore[misc]
        if attempt < attempts:
            world.skip(300 * 2.0 ** (attempt - 1))
            world.alert()
    world.alert()
    world.gateway.call_error = None


def test_a_fault_at_one_gateway_stops_no_other(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = make(hooks=1), itertools.count()
    other = SimpleNamespace(name="other", leads=False, listed=None, step=lambda _: next(steps))
    world.hook.scheduler.add([cast("GatewayReconciler", other)])
    monkeypatch.setattr(world.hook.reconciler, "step", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        world.hook.scheduler.run_once()
    assert next(steps) == 1


def test_a_channel_that_came_back_by_itself_is_seen_within_a_round(make: Make) -> None:
    world = make()
    world.run(600)
    assert world.gateway.lists == 0, "nothing waits"
    _fail(world)
    world.run(60)
    assert world.outcomes() == ["failed"]
    world.put()
    world.run(33)
    assert world.outcomes() == ["failed", "recovered"]
    assert len(world.gateway.calls) == 1


def test_a_channel_that_was_taken_out_is_forgotten_within_a_round(make: Make) -> None:
    world = make()
    _fail(world)
    registry = world.hook.metrics.registry
    assert b'channel="loja"' in generate_latest(registry)
    for name, seconds in (("loja", 10), ("closed", 10), ("held", None)):
        world.hook.actions.pause(name, seconds)
    del world.gateway.statuses["loja"]
    world.run(33)
    assert world.outcomes() == ["failed", "unknown_channel"]
    assert world.row() is None
    assert b'channel="loja"' not in generate_latest(registry)
    world.alert("held")
    world.run(5)
    assert world.outcomes("held") == ["unknown_channel"]
    world.skip(3600)
    world.run(5)
    assert (world.row("closed"), world.row("held") is not None) == (None, True)


def test_a_hook_that_has_not_listed_for_long_forgets_no_new_channel(make: Make) -> None:
    world = make()
    world.put("old", Status.DISCONNECTED)
    world.repair("old")
    world.hooks[0].stalled_until = world.clock.monotonic() + 4000
    world.run(10, until=lambda: world.hooks[1].reconciler.leads)
    world.put("new", Status.DISCONNECTED)
    world.hooks[1].auditor.repository.want_now("new")
    world.alert("new", to=1)
    world.run(50)
    world.hooks[1].die()
    world.hook.stalled_until = 0.0
    world.skip(3600)
    world.run(5)
    assert world.outcomes("new") == ["reconnected"]
    assert world.row("new") is not None
    assert world.hook.auditor.repository.last().keys() == {"new"}


def test_a_list_of_an_earlier_lead_is_not_the_present_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(Options(list_takes=300.0))
    answers = [[Channel("loja", Status.CONNECTED, "2")], [Channel("loja", Status.UNKNOWN, "1")]]
    monkeypatch.setattr(world.gateway, "list_channels", lambda: ChannelList.of(answers.pop(0)))
    world.alert()
    world.run(1)
    first, second = world.hooks if world.hook.reconciler.leads else world.hooks[::-1]
    first.stalled_until = world.clock.monotonic() + 60
    world.run(30)
    assert second.reconciler.leads
    second.die()
    world.hooks.remove(second)
    world.options = replace(world.options, list_takes=0.1)
    world.run(600)
    assert answers == []
    assert first.workers.channel_of("loja").status is Status.CONNECTED
    assert first.workers.numbers == {"loja": "2"}


def test_a_gateway_that_came_back_ends_the_pauses(make: Make) -> None:
    world = make()
    world.put("well", Status.DISCONNECTED)
    world.alert("well")
    world.run(5)
    _open(world)
    _drop(world, "well")
    failed = [name for name in _MANY if world.outcomes(name)]
    assert len(failed) >= THRESHOLD
    world.gateway.call_error = None
    world.run(FIRST_REST_SECONDS + 20)
    assert {str(world.outcomes(name)[-1]) for name in _MANY} == {"reconnected"}
    assert world.gateway.calls_of("well") == ["reconnect"], "who was repaired keeps its cooldown"


def test_a_clock_that_was_put_back_does_not_end_the_pauses(make: Make) -> None:
    world = make()
    world.clock.jumped = 1e6
    _open(world)
    world.gateway.call_error = None
    world.run(40)
    world.clock.jumped = 0
    world.gateway.call_error = _HTTP
    _drop(world, "loja")
    world.run(290)
    assert world.gateway.calls_of("loja") == ["reconnect"]


def test_another_status_ends_a_long_pause_but_not_the_cooldown(make: Make) -> None:
    world = make()
    _fail(world, attempts=4)
    calls = len(world.gateway.calls)
    world.put(status=Status.QR_REQUIRED)
    world.run(250)
    assert len(world.gateway.calls) == calls
    world.run(90)
    assert len(world.gateway.calls) == calls + 1


def test_one_list_judges_many_rows_some_at_a_time(make: Make) -> None:
    """So that an alert, which waits for the database, waits for some rows and not for all."""
    world = make(hooks=1)
    names = [f"channel {number:04d}" for number in range(1200)]
    for name in names:
        world.put(name)
    world.hook.writer.accept([firing(name) for name in names])
    ended: list[int] = []

    @sa.event.listens_for(world.hook.database._engine, "commit")
    def committed(connection: sa.Connection) -> None:
        ended.append(connection.scalar(sa.text("SELECT COUNT(*) FROM repair_log")) or 0)

    world.run(30)
    assert ended[-1] == 1200
    assert max(after - before for before, after in itertools.pairwise(ended)) <= 500
    assert world.gateway.lists == 1
    assert len(world.lines()) == 1200


def test_of_a_long_queue_those_that_came_back_are_ended_by_one_list(make: Make) -> None:
    world = make(Options(call_takes=5.0), hooks=1)
    world.gateway.on_call = lambda _call, _name: None
    names = [f"channel {number:03d}" for number in range(250)]
    _drop(world, *names, "down")
    world.alert("stranger")
    world.put("silent")
    world.alert("silent", RepairCause.SILENT)
    for name in names:
        world.put(name)
    world.run(2, until=lambda: bool(world.outcomes(names[-1])))
    assert world.gateway.lists == 1
    assert {str(world.outcomes(name)) for name in names} == {"['recovered']"}
    assert world.outcomes("stranger") == ["unknown_channel"]
    assert (world.outcomes("down"), world.outcomes("silent")) == ([], [])
    # Alerts that are older than that list are ended by one more, and write no line.
    lines = len(world.lines())
    for name in names:
        world.alert(name)
    world.run(14)
    present = world.hook.history.present()
    assert present.waiting.keys() == {"down", "silent"}
    assert len(world.lines()) <= lines + 1
