"""The threads that take repairs from the queue and see them through."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from reconnect_hook.database import StateError
from reconnect_hook.event_log import EventLog
from reconnect_hook.jobs import LEASE_SECONDS, Job, Jobs
from reconnect_hook.memory import Memory
from reconnect_hook.metrics import Metrics
from reconnect_hook.outcomes import Action, Outcome, Result
from reconnect_hook.repair import Interrupted, Means, look, repair
from whatsapp.gateway import GatewayError

_log = logging.getLogger("reconnect_hook")

_T = TypeVar("_T")
_IDLE_SECONDS = 1.0  # until the queue is looked at without being told: other hooks fill it too
_TROUBLE_SECONDS = 2.0  # until a state that failed is tried again
_PRUNE_SECONDS = 3600.0


class Workers:
    """Repairs channels, ``count`` at a time, until it is stopped."""

    def __init__(
        self,
        jobs: Jobs,
        memory: Memory,
        means: Means,
        events: EventLog,
        metrics: Metrics,
        *,
        count: int,
    ) -> None:
        self._jobs = jobs
        self._memory = memory
        self._events = events
        self._metrics = metrics
        self._stopping = threading.Event()
        self._means = replace(means, wait=self._wait)
        self._work = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, name=f"repair-{number}", daemon=True)
            for number in range(count)
        ]
        self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        for thread in [*self._threads, self._keeper]:
            thread.start()

    def wake(self) -> None:
        """Say that there is something in the queue."""
        self._work.release()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` goes back into the queue."""
        self._stopping.set()
        for _ in self._threads:
            self._work.release()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        try:
            self._jobs.release()
        except StateError as error:
            _log.warning("state: %s; repairs under way go on in %.0f s", error, LEASE_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Interrupted

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                job = self._jobs.claim()
            except StateError as error:
                _log.warning("state: %s", error)
                self._stopping.wait(_TROUBLE_SECONDS)
                continue
            except Exception:  # noqa: BLE001
                # Unforeseen, such as what drivers raise besides their own errors; but a thread that
                # dies would leave a hook that takes alerts and repairs nothing.
                _log.exception("the queue met a fault of the hook itself")
                self._stopping.wait(_TROUBLE_SECONDS)
                continue
            if job is None:
                self._work.acquire(timeout=_IDLE_SECONDS)
                continue
            try:
                self._look(job) if job.look_only else self._repair(job)
            except Interrupted:
                return

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
        except Exception:  # noqa: BLE001
            _log.exception("a look met a fault of the hook itself")
            self._insist(lambda: self._jobs.look_later(job))
            return
        if result is None:
            self._insist(lambda: self._jobs.drop(job))
        else:
            self._conclude(job, result, time.monotonic() - started)

    def _conclude(self, job: Job, result: Result, seconds: float) -> None:
        """Log, record and count an outcome.

        The line comes first: a hook that dies here leaves one line too many rather than none.
        """
        self._events.write(
            channel=result.channel,
            reason=job.reason,
            action=result.action,
            outcome=result.outcome,
            attempt=job.attempt,
            seconds=f"{seconds:.1f}",
            detail=result.detail or None,
        )
        if result.action is Action.RESTART:
            self._events.write(
                channel=result.channel,
                warning="RECONNECT_ALLOW_RESTART made a new session: the old pairing is lost",
            )
        if not self._insist(lambda: self._jobs.finish(job, result)):
            _log.warning("another hook took over a repair that took too long to record")
            return
        self._metrics.count_repair(job, result, seconds)
        if result.outcome in {Outcome.FAILED, Outcome.STILL_DISCONNECTED}:
            _log.warning("channel %r: %s %s", result.channel, result.outcome, result.detail)

    def _insist(self, change: Callable[[], _T]) -> _T:
        while True:
            try:
                return change()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                self._wait(_TROUBLE_SECONDS)

    def _keep(self) -> None:
        """Keep hold of what is under way, and the history from growing without end."""
        pruned_at = float("-inf")
        while not self._stopping.wait(LEASE_SECONDS / 3):
            try:
                self._jobs.renew()
                if time.monotonic() - pruned_at > _PRUNE_SECONDS:
                    self._memory.prune()
                    pruned_at = time.monotonic()
            except StateError as error:
                _log.warning("state: %s; leases were not renewed", error)
