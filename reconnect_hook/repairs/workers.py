"""The threads that take repairs from the queue and see them through."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from reconnect_hook.event_log import EventLog
from reconnect_hook.metrics import Metrics
from reconnect_hook.outcomes import FAILURES, Job, Outcome, Result
from reconnect_hook.repairs.means import Interrupted, Means
from reconnect_hook.repairs.repair import look, repair
from reconnect_hook.repairs.rounds import Rounds
from reconnect_hook.state.backlog import Backlog
from reconnect_hook.state.database import StateError
from reconnect_hook.state.jobs import LEASE_SECONDS, Jobs
from reconnect_hook.state.memory import Memory
from whatsapp.gateways.gateway import GatewayError

_log = logging.getLogger("reconnect_hook")

_T = TypeVar("_T")
_IDLE_SECONDS = 1.0  # until the queue is looked at without being told: other hooks fill it too
_TROUBLE_SECONDS = 2.0  # until a state that failed is tried again
_RELEASE_SECONDS = 2.0  # for a state to take back what is under way
_PRUNE_SECONDS = 3600.0


class Workers:
    """Repairs channels, ``count`` at a time, until it is stopped."""

    def __init__(
        self,
        jobs: Jobs,
        backlog: Backlog,
        memory: Memory,
        means: Means,
        events: EventLog,
        metrics: Metrics,
        *,
        count: int,
    ) -> None:
        self.count = count
        self._jobs = jobs
        self._memory = memory
        self._events = events
        self._metrics = metrics
        self._stopping = threading.Event()
        self._means = replace(means, wait=self._wait, begin_restart=self._begin_restart)
        self._rounds = Rounds(backlog, jobs, means.lists, self._conclude_at_once)
        self._calls = 0
        self._called = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"repair-{number}", daemon=True)
            for number in range(count)
        ]
        self._pruned_at = float("-inf")
        self._keepers = [
            threading.Thread(
                target=self._repeat,
                args=(LEASE_SECONDS / 3, self._keep),
                name="leases",
                daemon=True,
            ),
            threading.Thread(
                target=self._repeat,
                args=(_IDLE_SECONDS, self._look_round),
                name="rounds",
                daemon=True,
            ),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in [*self._threads, *self._keepers]:
            thread.start()

    def wake(self) -> None:
        """Say that there is something in the queue."""
        with self._called:
            self._calls += 1
            self._called.notify()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` goes back into the queue."""
        self._stopping.set()
        with self._called:
            self._called.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        # In a thread of its own, since a database that does not answer must not hold up the end.
        releasing = threading.Thread(target=self._release, name="release", daemon=True)
        releasing.start()
        releasing.join(_RELEASE_SECONDS)

    def _release(self) -> None:
        try:
            self._jobs.release()
        except StateError as error:
            _log.warning("state: %s; repairs under way go on in %.0f s", error, LEASE_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Interrupted

    def _run(self) -> None:
        while not self._stopping.is_set():
            calls = self._calls
            try:
                job = self._jobs.claim()
                if job is None:
                    self._wait_for_call(calls)
                else:
                    self._see_through(job)
            except Interrupted:
                return
            except StateError as error:
                _log.warning("state: %s", error)
                self._stopping.wait(_TROUBLE_SECONDS)
            except Exception:  # noqa: BLE001
                # Unforeseen, such as what drivers raise besides their own errors; but a thread that
                # dies would leave a hook that takes alerts and repairs nothing.
                _log.exception("the queue met a fault of the hook itself")
                self._stopping.wait(_TROUBLE_SECONDS)

    def _wait_for_call(self, calls: int) -> None:
        """Wait for a call that came after the number ``calls``, or for a while."""
        with self._called:
            if self._calls == calls and not self._stopping.is_set():
                self._called.wait(_IDLE_SECONDS)

    def _see_through(self, job: Job) -> None:
        try:
            self._look(job) if job.look_only else self._repair(job)
        except Interrupted:
            raise
        except Exception:  # noqa: BLE001
            # Unforeseen, and nothing was recorded: the lease would be renewed for ever.
            _log.exception("a repair could not be ended, and is tried again")
            self._insist(lambda: self._jobs.put_back(job))

    def _repair(self, job: Job) -> None:
        started = time.monotonic()
        try:
            result = repair(self._means, job)
        except Interrupted:
            raise
        except Exception:  # noqa: BLE001
            # Unforeseen, but even then what was accepted ends in an outcome.
            _log.exception("a repair met a fault of the hook itself")
            result = Result(job.channel, Outcome.FAILED, detail="fault of the hook", listed=False)
        self._conclude(job, result, time.monotonic() - started)

    def _look(self, job: Job) -> None:
        started = time.monotonic()
        try:
            result = look(self._means, job)
        except GatewayError:
            self._insist(lambda: self._jobs.look_later(job))
            return
        if result is None:
            self._insist(lambda: self._jobs.nothing_found(job))
        elif _is_old_news(job, result):
            self._insist(lambda: self._jobs.old_news([(job, result)]))
        else:
            self._conclude(job, result, time.monotonic() - started)

    def _begin_restart(self, job: Job, channel: str) -> bool:
        if not self._insist(lambda: self._jobs.begin_restart(job, channel)):
            return False
        self._events.write(
            channel=channel,
            warning="RECONNECT_ALLOW_RESTART throws the session away: the old pairing is lost, "
            "and somebody has to scan a new QR code",
        )
        return True

    def _conclude(self, job: Job, result: Result, seconds: float) -> None:
        """Log, record and count an outcome.

        The line comes first: a hook that dies here leaves one line too many rather than none.
        """
        self._write(job, result, seconds)
        if not self._insist(lambda: self._jobs.finish(job, result)):
            _log.warning("another hook took over a repair that took too long to record")
            return
        self._metrics.count_repair(job, result, seconds)
        if result.outcome in FAILURES:
            _log.warning("channel %r: %s %s", result.channel, result.outcome, result.detail)

    def _conclude_at_once(self, ended: Sequence[tuple[Job, Result]]) -> None:
        old = [one for one in ended if _is_old_news(*one)]
        if old:
            self._insist(lambda: self._jobs.old_news(old))
        news = [one for one in ended if not _is_old_news(*one)]
        for job, result in news:
            self._write(job, result, 0.0)
        recorded = self._insist(lambda: self._jobs.finish_all(news)) if news else []
        for (job, result), done in zip(news, recorded, strict=True):
            if done:
                self._metrics.count_repair(job, result, 0.0)

    def _write(self, job: Job, result: Result, seconds: float) -> None:
        self._events.write(
            channel=result.channel,
            reason=job.reason,
            action=result.action,
            outcome=result.outcome,
            attempt=job.attempt,
            seconds=f"{seconds:.1f}",
            detail=result.detail or None,
        )

    def _insist(self, change: Callable[[], _T]) -> _T:
        while True:
            try:
                return change()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                self._wait(_TROUBLE_SECONDS)

    def _repeat(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something again and again, whatever comes of it."""
        while not self._stopping.wait(seconds):
            try:
                work()
            except Interrupted:
                return
            except StateError as error:
                _log.warning("state: %s", error)
            except Exception:  # noqa: BLE001
                _log.exception("a fault of the hook itself")

    def _keep(self) -> None:
        """Keep hold of what is under way, and the history from growing without end."""
        self._jobs.renew()
        if time.monotonic() - self._pruned_at > _PRUNE_SECONDS:
            self._memory.prune()
            self._pruned_at = time.monotonic()

    def _look_round(self) -> None:
        if self._rounds.go():
            self.wake()


def _is_old_news(job: Job, result: Result) -> bool:
    """Whether no episode was open: the alert is older than what ended it, which has its line."""
    return job.look_only and result.outcome is Outcome.RECOVERED and job.attempt == 1
