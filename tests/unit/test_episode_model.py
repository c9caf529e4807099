"""Random lives of a channel against a small model of its episode: alerts, crashes, clocks, answers.

The model knows one channel, and what was promised of it: one repair at a time, pauses that grow,
alerts that are kept, leases that end. The hook's state is real, on SQLite; the clock is the test's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.backoff import OLD_NEWS_SECONDS, Backoff
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.queue import LEASE_SECONDS, LOOK_AGAIN_SECONDS, Jobs
from reconnect_hook.repository import ChannelRepository
from tests.support.examples import examples
from tests.support.states import StateClock, firing, resolved, sqlite_url

_COOLDOWN = 300.0
_ENDS = [
    Outcome.RECONNECTED,
    Outcome.RECOVERED,
    Outcome.REQUESTED,
    Outcome.QR_REQUIRED,
    Outcome.FAILED,
    Outcome.STILL_DISCONNECTED,
]
_FAILING = {Outcome.FAILED, Outcome.STILL_DISCONNECTED}
_WELL = {Outcome.RECONNECTED, Outcome.RECOVERED}


class Episode(RuleBasedStateMachine):
    """Two hooks and one channel; what the model expects stands in the attributes."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = StateClock()
        self.database = open_state(sqlite_url(Path(self.folder.name)), clock=self.clock)
        self.memory = ChannelRepository(self.database, "wpp")
        pauses = Backoff(_COOLDOWN)
        self.intake = AlertWriter(self.database, "wpp", pauses)
        self.hooks = [Jobs(self.database, "wpp", pauses) for _ in range(2)]
        # The model.
        self.due: float | None = None  # of the repair that waits or is under way
        self.look: float | None = None  # when somebody is to look, before that
        self.claimed: tuple[int, Job, float] | None = None  # hook, what it got, its lease's end
        self.attempts = 0
        self.failures = 0
        self.qr = False
        self.called_at: float | None = None
        self.seen_at: float | None = None  # found well by a look
        self.reason: RepairCause | None = None  # of the last repair
        self.waits_for: RepairCause | None = None  # of the one in the queue

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    # What the model says.

    def _pause_end(self, attempts: int) -> float:
        now = self.clock.seconds
        if self.called_at is None or self.called_at > now:
            return now
        pause = max(_COOLDOWN, min(_COOLDOWN * 2.0 ** max(attempts - 1, 0), 3600.0))
        return max(now, self.called_at + pause)

    def _old_news_until(self, reason: RepairCause) -> float:
        now = self.clock.seconds
        if reason is not RepairCause.DISCONNECTED or self._episode():
            return now
        if self.seen_at is None or self.seen_at > now:
            return now
        return max(now, self.seen_at + OLD_NEWS_SECONDS)

    def _episode(self) -> bool:
        return self.attempts > 0 or self.failures > 0 or self.qr

    @staticmethod
    def _worse(new: RepairCause, old: RepairCause | None) -> bool:
        return new is RepairCause.DISCONNECTED and old in {
            RepairCause.SILENT,
            RepairCause.NEVER_HEARD,
        }

    def _next(self) -> float | None:
        """Return when the row in the queue is due; None where there is none."""
        return self.due if self.look is None else self.look

    def _holds(self, *, look_only: bool) -> bool:
        """Whether a hook that lives has claimed a look, or a repair."""
        claimed = self.claimed
        return claimed is not None and claimed[0] >= 0 and claimed[1].look_only is look_only

    # What happens.

    @rule(
        reason=st.sampled_from([RepairCause.DISCONNECTED, RepairCause.SILENT]),
        times=st.integers(1, 3),
    )
    def alert(self, reason: RepairCause, times: int) -> None:
        now = self.clock.seconds
        for _ in range(times):
            (verdict,) = self.intake.accept([firing("loja", reason)])
            looking = self.look is not None
            if self.due is not None and not looking:
                held = self.claimed is not None
                if not held and self.due > now and self._worse(reason, self.waits_for):
                    self.waits_for = reason
                    self.due = min(self.due, self._pause_end(1))
                expected = "coalesced" if held or self.due <= now else "cooldown"
            else:
                worse = self._worse(reason, self.reason)
                due = self._pause_end(1 if worse else self.attempts)
                old_until = self._old_news_until(reason)
                is_old = old_until > due
                due = max(due, old_until)
                expected = "accepted" if due <= now else "cooldown"
                if expected == "accepted":
                    self.due, self.look, self.waits_for = now, None, reason
                    self.claimed = None  # whoever was just looking has lost it
                elif self.due is None:
                    self.due, self.waits_for = due, reason
                    self.look = due if is_old and self.look is None else self.look
            assert verdict == expected

    @rule()
    def resolve(self) -> None:
        now = self.clock.seconds
        known = self.memory.queue().channels != ()
        (verdict,) = self.intake.accept([resolved("loja")])
        assert verdict == ("accepted" if known else "ignored")
        if not known:
            return
        waits = self.due is not None and self.due > now and self.claimed is None
        if self.look is None and (waits or (self.due is None and self._episode())):
            self.look = now

    @rule(hook=st.integers(0, 1))
    def claim(self, hook: int) -> None:
        now = self.clock.seconds
        job = self.hooks[hook].claim()
        when = self._next()
        free = self.claimed is None or (self.claimed[0] != hook and self.claimed[2] <= now)
        if when is None or when > now or not free:
            assert job is None
            return
        assert job is not None
        assert (job.look_only, job.attempt, job.failures) == (
            self.look is not None,
            self.attempts + 1,
            self.failures,
        )
        if not job.look_only:
            assert job.reason is self.waits_for
        self.claimed = (hook, job, now + LEASE_SECONDS)

    @precondition(lambda self: self._holds(look_only=False))
    @rule(outcome=st.sampled_from(_ENDS))
    def end(self, outcome: Outcome) -> None:
        assert self.claimed
        hook, job, _ = self.claimed
        action = Action.NONE if outcome is Outcome.RECOVERED else Action.GET_QR
        assert self.hooks[hook].finish(job, Result("loja", outcome, action))
        self._ended(outcome, action, job.reason)

    def _ended(self, outcome: Outcome, action: Action, reason: RepairCause) -> None:
        now = self.clock.seconds
        self.claimed = self.due = self.look = self.waits_for = None
        self.attempts += 1
        self.reason = reason
        if action is not Action.NONE or outcome in _FAILING:
            self.called_at = now
        elif outcome is Outcome.RECOVERED:
            self.seen_at = now
        if outcome in _WELL:
            self.attempts = self.failures = 0
            self.qr = False
        elif outcome is Outcome.QR_REQUIRED:
            self.qr = True
        elif outcome in _FAILING:
            self.failures += 1
            pause = _COOLDOWN * 2 ** (self.attempts - 1)
            if pause < 900:
                self.due, self.waits_for = now + pause, reason

    @precondition(lambda self: self._holds(look_only=True))
    @rule(found=st.sampled_from(["well", "nothing", "no answer"]))
    def looked(self, found: str) -> None:
        assert self.claimed
        hook, job, _ = self.claimed
        jobs = self.hooks[hook]
        if found == "well" and not self._episode():
            jobs.old_news([(job, Result("loja", Outcome.RECOVERED))])
            self.claimed = self.due = self.look = self.waits_for = None
            self.seen_at = self.clock.seconds
        elif found == "well":
            assert jobs.finish(job, Result("loja", Outcome.RECOVERED))
            self._ended(Outcome.RECOVERED, Action.NONE, job.reason)
        elif found == "nothing":
            jobs.nothing_found(job)
            self.claimed = self.look = None
        else:
            jobs.put_back(job)
            self.claimed = None
            self.look = self.clock.seconds + LOOK_AGAIN_SECONDS

    @precondition(lambda self: self.claimed)
    @rule()
    def crash(self) -> None:
        """Kill the holder: it comes back as somebody else, and its lease runs out."""
        assert self.claimed
        hook = self.claimed[0]
        self.hooks[hook] = Jobs(self.database, "wpp", Backoff(_COOLDOWN))
        self.claimed = (-1, *self.claimed[1:])

    @precondition(lambda self: self.claimed and self.claimed[0] >= 0)
    @rule()
    def heartbeat(self) -> None:
        assert self.claimed
        hook, job, _ = self.claimed
        self.hooks[hook].renew()
        self.claimed = (hook, job, self.clock.seconds + LEASE_SECONDS)

    @rule(
        seconds=st.sampled_from([1.0, 9.0, 11.0, 29.0, 31.0, 299.0, 301.0, 601.0, 1201.0, 3601.0])
    )
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @precondition(lambda self: self.claimed is None and self._next() is not None)
    @rule(offset=st.sampled_from([-1.0, 1.0]), hook=st.integers(0, 1))
    def wait_for_what_is_due(self, offset: float, hook: int) -> None:
        """Let time pass to just before or after the moment, and have it claimed."""
        when = self._next()
        assert when is not None
        self.clock.seconds = max(self.clock.seconds, when + offset)
        self.claim(hook)

    @precondition(lambda self: self.due is None and self.called_at is not None)
    @rule(offset=st.sampled_from([-1.0, 1.0]))
    def wait_for_the_pause(self, offset: float) -> None:
        """Let time pass to just before or after the end of the pause, and have an alert come."""
        end = self._pause_end(self.attempts)
        self.clock.seconds = max(self.clock.seconds, end + offset)
        self.alert(RepairCause.DISCONNECTED, 1)

    @precondition(lambda self: self.claimed is None and self.look is None)
    @rule(
        reason=st.sampled_from([RepairCause.DISCONNECTED, RepairCause.SILENT]),
        outcome=st.sampled_from([*_ENDS, *_FAILING]),
        late=st.sampled_from([0.0, 1.0]),
    )
    def whole_repair(self, reason: RepairCause, outcome: Outcome, late: float) -> None:
        """Let an alert come, wait until its repair is due, try just before, and see it through."""
        self.alert(reason, 1)
        when = self._next()
        assert when is not None
        if when - 1 > self.clock.seconds:
            self.clock.seconds = when - 1
            self.claim(0)
        self.clock.seconds = max(self.clock.seconds, when + late)
        self.claim(1)
        self.end(outcome)
        self.alert(reason, 1)
        self.claim(0)

    @precondition(lambda self: self.claimed is None and self.due is None and self.look is None)
    @rule()
    def clock_put_back(self) -> None:
        self.clock.seconds -= 1e7

    @precondition(lambda self: self.claimed and self.claimed[0] == -1)
    @rule()
    def wait_for_the_lease(self) -> None:
        assert self.claimed
        self.clock.seconds = max(self.clock.seconds, self.claimed[2] + 1)

    # What always holds.

    @invariant()
    def the_queue_is_the_models(self) -> None:
        if not hasattr(self, "database"):
            return
        queue = self.memory.queue()
        waiting = self.due is not None or self.look is not None
        assert queue.waiting + queue.in_flight == int(waiting), "one repair, and none is lost"
        assert queue.in_flight == int(self.claimed is not None)

    @invariant()
    def people_are_told_the_models_truth(self) -> None:
        if not hasattr(self, "database"):
            return
        for record in self.memory.queue().channels:
            assert (record.consecutive_failures, record.qr_required) == (self.failures, self.qr)


TestEpisode: Any = Episode.TestCase
TestEpisode.settings = settings(
    max_examples=examples(100),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
