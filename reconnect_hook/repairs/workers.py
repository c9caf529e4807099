"""The threads that take repairs from the queue and see them through."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from reconnect_hook.event_log import EventLog
from reconnect_hook.metrics import OfGateway
from reconnect_hook.outcomes import FAILURES, Job, Outcome, Result
from reconnect_hook.repairs.crew import IDLE_SECONDS, Crew
from reconnect_hook.repairs.means import Interrupted, Means
from reconnect_hook.repairs.repair import look, repair
from reconnect_hook.repairs.rounds import Rounds
from reconnect_hook.state.backlog import Backlog
from reconnect_hook.state.jobs import LEASE_SECONDS, Jobs
from reconnect_hook.state.memory import Memory
from whatsapp.gateways.gateway import GatewayError

_log = logging.getLogger("reconnect_hook")

_PRUNE_SECONDS = 3600.0


class Workers:
    """Repairs one gateway's channels, ``count`` at a time, until it is stopped."""

    def __init__(
        self,
        jobs: Jobs,
        backlog: Backlog,
        memory: Memory,
        means: Means,
        events: EventLog,
        metrics: OfGateway,
        *,
        count: int,
    ) -> None:
        self.count = count
        self._jobs = jobs
        self._memory = memory
        self._events = events
        self._metrics = metrics
        self._crew = Crew(count, self._claim, self._see_through, jobs.release)
        self._means = replace(means, wait=self._crew.wait, begin_restart=self._begin_restart)
        self._rounds = Rounds(backlog, jobs, means.lists, self._conclude_at_once)
        self._pruned_at = float("-inf")

    def start(self) -> None:
        """Begin."""
        self._crew.start()
        self._crew.repeat("leases", LEASE_SECONDS / 3, self._keep)
        self._crew.repeat("rounds", IDLE_SECONDS, self._look_round)

    def wake(self) -> None:
        """Say that there is something in the queue."""
        self._crew.wake()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` goes back into the queue."""
        self._crew.stop(seconds)

    def _claim(self) -> Job | None:
        return self._jobs.claim()

    def _see_through(self, job: Job) -> None:
        try:
            self._look(job) if job.look_only else self._repair(job)
        except Interrupted:
            raise
        except Exception:  # noqa: BLE001
            # Unforeseen, and nothing was recorded: the lease would be renewed for ever.
            _log.exception("a repair could not be ended, and is tried again")
            self._crew.insist(lambda: self._jobs.put_back(job))

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
            self._crew.insist(lambda: self._jobs.look_later(job))
            return
        if result is None:
            self._crew.insist(lambda: self._jobs.nothing_found(job))
        elif _is_old_news(job, result):
            self._crew.insist(lambda: self._jobs.old_news([(job, result)]))
        else:
            self._conclude(job, result, time.monotonic() - started)

    def _begin_restart(self, job: Job, channel: str) -> bool:
        if not self._crew.insist(lambda: self._jobs.begin_restart(job, channel)):
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
        self._crew.check_still_ours()  # else whoever has it now tells how it ends
        self._write(job, result, seconds)
        if not self._crew.insist(lambda: self._jobs.finish(job, result)):
            _log.warning("another hook took over a repair that took too long to record")
            return
        self._metrics.count_repair(job, result, seconds)
        if result.outcome in FAILURES:
            _log.warning("channel %r: %s %s", result.channel, result.outcome, result.detail)

    def _conclude_at_once(self, ended: Sequence[tuple[Job, Result]]) -> None:
        old = [one for one in ended if _is_old_news(*one)]
        if old:
            self._crew.insist(lambda: self._jobs.old_news(old))
        news = [one for one in ended if not _is_old_news(*one)]
        for job, result in news:
            self._write(job, result, 0.0)
        recorded = self._crew.insist(lambda: self._jobs.finish_all(news)) if news else []
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
