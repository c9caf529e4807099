"""Random lives of a channel against a small model of its episode, in a world of two hooks.

Alerts, people, crashes, stalls, clocks and a gateway that fails come in any order. The model knows
what was promised: delays that grow, one call more for each hook that dies, no drop that is
forgotten, no outcome that is not true.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconnect_hook.models import Outcome, Phase, RepairCause
from reconnect_hook.repository import read_gateway
from tests.support.examples import examples
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import Status
from zapwatch.gateways.base import GatewayErrorKind, QrKind

_COOLDOWN = 300.0
_OPTIONS = Options(cooldown=_COOLDOWN, verify=20.0, call_takes=1.5, list_takes=0.5)
_LATE = 5.0  # seconds that a list and a call may be old
_CAUSES = st.sampled_from([RepairCause.DISCONNECTED, RepairCause.SILENT])
_HOOKS = st.integers(0, 1)
_SECONDS = st.sampled_from([0.1, 0.6, 1.1, 3.0, 9.0, 31.0])


class Episode(RuleBasedStateMachine):
    """Two hooks and one channel; what the model knows stands in the attributes."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), _OPTIONS, hooks=2)
        self.world.gateway.on_call = self._called
        self.well_at = float("-inf")  # the last moment at which the gateway called it connected
        self.helps = True  # a call brings it back
        self.deaths = 0  # since the last call, of hooks and leads that had one in flight
        self.is_owed = False  # an alert told of a drop that has had no outcome since
        self.pressed = False  # a person has asked since the last call
        self.changed = False  # the status or the cause has
        self.failures = 0
        self.qr = False
        self.attempts = 0
        self.told = 0  # outcomes that the model has taken in
        self.call_ended = float("-inf")
        self.put(Status.DISCONNECTED)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    def _now(self) -> float:
        return self.world.clock.monotonic()

    def _is_up(self) -> bool:
        return self.world.gateway.statuses.get("loja") is Status.CONNECTED

    def _called(self, _call: str, _channel: str) -> None:
        """Check that it was time for a call, which ends now."""
        began = self._now() - _OPTIONS.call_takes - 0.1
        self._take_in(began)
        if not (self.pressed or self.deaths or self._came_back()):
            delay = max(_COOLDOWN, min(_COOLDOWN * 2.0 ** (self.attempts - 1), 3600.0))
            delay = _COOLDOWN if self.changed else delay
            assert began >= self.call_ended + delay, "too early"
        self.pressed = self.changed = False
        self.deaths = max(0, self.deaths - 1)
        if self.helps and self.world.gateway.answer is QrKind.ACCEPTED:
            self.put(Status.CONNECTED)

    def _take_in(self, until: float) -> None:
        """Let the model know the outcomes until a moment."""
        offset = self.world.clock.time() - self._now()
        for attempt in self.world.ended("loja")[self.told :]:
            if attempt.finished_at - offset > until:
                break
            self.told += 1
            assert attempt.number == self.attempts + 1
            self._ended(attempt.outcome, attempt.action, attempt.finished_at - offset)

    def _ended(self, outcome: Outcome, action: str, at: float) -> None:
        self.attempts += 1
        if outcome in {Outcome.RECOVERED, Outcome.RECONNECTED}:
            assert self.well_at >= at - _LATE or self._is_up(), "nobody has seen it well"
            self.attempts = self.failures = 0
            self.qr = False
        else:
            self.is_owed = False
            self.failures += outcome in {Outcome.FAILED, Outcome.STILL_DISCONNECTED}
        self.qr = self.qr or outcome is Outcome.QR_REQUIRED
        if action != "none" or outcome is Outcome.FAILED:
            self.call_ended = at

    def _came_back(self) -> bool:
        """Whether a gateway that had failed so often has answered since the last call."""
        with self.world.hook.database.read() as connection:
            back_at = read_gateway(connection, GATEWAY).back_at
            offset = self.world.clock.time() - self._now()
        return back_at is not None and back_at - offset >= self.call_ended

    def _lead_is_lost(self) -> None:
        """Allow for one call more if one is in flight."""
        row = self.world.row()
        self.deaths += row is not None and row.phase is Phase.CALLING

    # What happens.

    def put(self, status: Status) -> None:
        if self._is_up():
            self.well_at = self._now()
        if status is Status.CONNECTED:
            self.is_owed = False
        if self.world.gateway.statuses.get("loja") is not status:
            self.changed = True
        self.world.put("loja", status)

    @rule(status=st.sampled_from(list(Status)))
    def status_changes(self, status: Status) -> None:
        self.put(status)

    @rule(cause=_CAUSES, to=_HOOKS, times=st.integers(1, 3))
    def alert(self, cause: RepairCause, to: int, times: int) -> None:
        row = self.world.row()
        if row is not None and RepairCause.SILENT in {row.cause, row.last_cause}:
            self.changed = True
        for _ in range(times):
            counted = str(self.world.alert("loja", cause, to=to))
            assert counted in {"accepted", "coalesced", "cooldown"}
        self._take_in(self._now())
        self.is_owed = not self._is_up()

    @rule(cause=_CAUSES, helps=st.booleans(), to=_HOOKS)
    def a_whole_repair(self, cause: RepairCause, helps: bool, to: int) -> None:
        self.calls_are_answered(helps=helps, answer=QrKind.ACCEPTED)
        self.put(Status.CONNECTED if cause is RepairCause.SILENT else Status.DISCONNECTED)
        told = self.told
        self.alert(cause, to, 1)
        self.world.run(40, until=lambda: len(self.world.ended("loja")) > told)

    @rule(cause=_CAUSES, to=_HOOKS, status=st.sampled_from([*Status, None]))
    def the_delay_ends(self, cause: RepairCause, to: int, status: Status | None) -> None:
        """Let an alert come, and the time until shortly before and after the delay pass."""
        self.put(status or Status.DISCONNECTED)
        self.alert(cause, to, 1)
        delay = min(_COOLDOWN * 2.0 ** max(self.attempts - 1, 0), 3600.0)
        for seconds in (_COOLDOWN, delay):
            self.much_time_passes(max(0.0, self.call_ended + seconds - 5 - self._now()))
        self.world.run(10)

    @rule(to=_HOOKS)
    def resolve(self, to: int) -> None:
        row = self.world.row()
        counted = self.world.resolve(to=to)
        assert counted == ("accepted" if row is not None and row.listed else "ignored")

    @rule(seconds=_SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(seconds=st.sampled_from([60.0, 299.0, 601.0, 1201.0, 3601.0]))
    def much_time_passes(self, seconds: float) -> None:
        self._lead_is_lost()
        self.world.skip(seconds)
        self.world.run(3)

    @rule(helps=st.booleans(), answer=st.sampled_from([QrKind.ACCEPTED, QrKind.QR]))
    def calls_are_answered(self, helps: bool, answer: QrKind) -> None:
        self.helps = helps
        self.world.gateway.answer = answer
        self.world.gateway.call_error = None

    @rule(kind=st.sampled_from([None, GatewayErrorKind.HTTP, GatewayErrorKind.TIMEOUT]))
    def calls_fail(self, kind: GatewayErrorKind | None) -> None:
        self.world.gateway.call_error = kind

    @rule(fails=st.booleans())
    def lists_fail(self, fails: bool) -> None:
        self.world.gateway.list_error = GatewayErrorKind.TIMEOUT if fails else None

    @rule(hook=_HOOKS)
    def a_hook_dies(self, hook: int) -> None:
        self._lead_is_lost()
        self.world.restart(hook)

    @rule(hook=_HOOKS, seconds=st.sampled_from([4.0, 15.0, 40.0]))
    def a_hook_stalls(self, hook: int, seconds: float) -> None:
        self._lead_is_lost()
        self.world.hooks[hook].stalled_until = self._now() + seconds

    @rule(to=_HOOKS)
    def a_person_presses(self, to: int) -> None:
        row = self.world.row()
        assert self.world.hooks[to].actions.reconnect("loja")
        # What is under way is the repair.
        self.pressed = self.pressed or row is None or not row.in_work

    @rule()
    def the_clock_is_put_back(self) -> None:
        self._take_in(self._now())
        self._lead_is_lost()
        self.world.clock.jumped -= 1e7

    @precondition(lambda self: self.world.gateway.list_error is None)
    @rule(to=_HOOKS, seconds=st.sampled_from([0.0, 0.2, 0.4]))
    def it_drops_during_a_look(self, to: int, seconds: float) -> None:
        lists = self.world.gateway.lists
        self.world.run(3, until=lambda: self.world.gateway.lists > lists)
        self.world.run(seconds)
        self.put(Status.DISCONNECTED)
        self.alert(RepairCause.DISCONNECTED, to, 1)

    @rule(drops=st.booleans())
    def all_is_well_in_the_end(self, drops: bool) -> None:
        """What was accepted is dealt with by itself; then there is nothing left to do."""
        self.calls_are_answered(helps=True, answer=QrKind.ACCEPTED)
        self.lists_fail(fails=False)
        if drops:
            self.put(Status.DISCONNECTED)
            self.alert(RepairCause.DISCONNECTED, 0, 1)
        self.world.run(60)
        for _ in range(3):
            self.much_time_passes(3601.0)
            self.world.run(90)
        row = self.world.row()
        assert row is None or not row.is_open
        self._take_in(self._now())
        assert not self.is_owed, "down and forgotten"

    # What always holds.

    @invariant()
    def people_are_told_the_truth(self) -> None:
        if not hasattr(self, "world"):
            return
        self._take_in(self._now())
        row = self.world.row()
        if row is not None:
            told = (row.failures, row.qr_required, row.attempts)
            assert told == (self.failures, self.qr, self.attempts)
        assert len(self.world.lines()) >= self.told


TestEpisode: Any = Episode.TestCase
TestEpisode.settings = settings(
    max_examples=examples(8),
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
