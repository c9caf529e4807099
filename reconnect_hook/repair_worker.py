"""The threads that take repairs from the queue and see them through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from reconnect_hook.alerts import RepairCause
from reconnect_hook.audit_log import EventLog
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.context import Interrupted, RepairContext
from reconnect_hook.metrics import OfGateway
from reconnect_hook.models import FAILURES, Job, Outcome, Result
from reconnect_hook.queue import LEASE_SECONDS, Backlog, DeferredJob, Jobs
from reconnect_hook.repair import look, repair
from reconnect_hook.repository import ChannelRepository
from reconnect_hook.worker_pool import IDLE_SECONDS, WorkerPool
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import GatewayError

ROUND_SECONDS = 30.0
"""How often the gateway is asked while a repair waits for the end of its pause."""

LONG_QUEUE = 20
"""Of so many repairs, those whose channel came back by itself are ended in one go."""

_AT_ONCE = 100  # ended in one transaction, so that nobody waits long for it

Conclude = Callable[[Sequence[tuple[Job, Result]]], None]
"""Logs, records and counts how repairs ended."""


class Reconciler:
    """One look at the list for all; none where there is nothing to look for."""

    def __init__(
        self, backlog: Backlog, jobs: Jobs, lists: ChannelListCache, conclude: Conclude
    ) -> None:
        self._backlog = backlog
        self._jobs = jobs
        self._lists = lists
        self._clock = lists.clock
        self._conclude = conclude
        self._next_sweep = float("-inf")
        self._next_round = float("-inf")

    def go(self) -> bool:
        """Look, if it is time to; whether a pause was ended. Raises StateError."""
        try:
            if self._clock.monotonic() >= self._next_sweep:
                self._sweep()
            if self._clock.monotonic() >= self._next_round:
                return self._end_pauses()
        except GatewayError:
            pass  # the repairs themselves will meet it, and tell
        return False

    def _sweep(self) -> None:
        """End what a long queue holds of channels that have come back by themselves."""
        due = self._backlog.due()
        if len(due) < LONG_QUEUE:
            return
        began = self._clock.monotonic()
        listed = self._lists.since(began)
        # A list that takes long is asked less often.
        self._next_sweep = self._clock.monotonic() + self._lists.seconds
        back = [repair_id for repair_id, key in due if key in listed and listed[key].connected]
        for begin in range(0, len(back), _AT_ONCE):
            jobs = self._jobs.claim_these(back[begin : begin + _AT_ONCE])
            self._conclude([(job, _recovered(listed[job.key])) for job in jobs])

    def _end_pauses(self) -> bool:
        """End the pauses that have become pointless: the gateway or the status changed."""
        self._next_round = self._clock.monotonic() + ROUND_SECONDS
        paused = self._backlog.paused()
        if not paused:
            return False
        try:
            listed = self._lists.since(self._clock.monotonic())
        finally:
            self._next_round = self._clock.monotonic() + max(ROUND_SECONDS, 2 * self._lists.seconds)
        return self._hasten(paused, listed)

    def _hasten(self, paused: Sequence[DeferredJob], listed: Mapping[str, Channel]) -> bool:
        well, pointless, changed = [], [], []
        for one in paused:
            channel = listed.get(one.key)
            if channel is not None and _is_well(one, channel):
                well.append(one)
            elif channel is None or (one.failing and one.status is None):
                pointless.append(one)  # it is gone, or its gateway answers again
            elif one.status != channel.status:
                changed.append(one)
        if well:
            self._backlog.look_at(well)
        if pointless or changed:
            self._backlog.skip_backoff(pointless, changed)
        return bool(well or pointless or changed)


def _is_well(paused: DeferredJob, channel: Channel) -> bool:
    """Whether there is nothing left to repair."""
    came_back = paused.status not in {None, Status.CONNECTED}
    return channel.connected and (paused.reason is RepairCause.DISCONNECTED or came_back)


def _recovered(channel: Channel) -> Result:
    return Result(channel.id, Outcome.RECOVERED, status=channel.status, gateway_failed=False)


_log = logging.getLogger("reconnect_hook")

_PRUNE_SECONDS = 3600.0


class Workers:
    """Repairs one gateway's channels, ``count`` at a time, until it is stopped."""

    def __init__(
        self,
        jobs: Jobs,
        backlog: Backlog,
        memory: ChannelRepository,
        means: RepairContext,
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
        self._crew = WorkerPool(count, self._claim, self._see_through, jobs.release)
        self._means = replace(means, wait=self._crew.wait, begin_restart=self._begin_restart)
        self._rounds = Reconciler(backlog, jobs, means.lists, self._conclude_at_once)
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
            self._crew.retry_until_stored(lambda: self._jobs.put_back(job))

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
            self._crew.retry_until_stored(lambda: self._jobs.look_later(job))
            return
        if result is None:
            self._crew.retry_until_stored(lambda: self._jobs.nothing_found(job))
        elif _is_old_news(job, result):
            self._crew.retry_until_stored(lambda: self._jobs.old_news([(job, result)]))
        else:
            self._conclude(job, result, time.monotonic() - started)

    def _begin_restart(self, job: Job, channel: str) -> bool:
        if not self._crew.retry_until_stored(lambda: self._jobs.begin_restart(job, channel)):
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
        self._crew.ensure_lease()  # else whoever has it now tells how it ends
        self._write(job, result, seconds)
        if not self._crew.retry_until_stored(lambda: self._jobs.finish(job, result)):
            _log.warning("another hook took over a repair that took too long to record")
            return
        self._metrics.count_repair(job, result, seconds)
        if result.outcome in FAILURES:
            _log.warning("channel %r: %s %s", result.channel, result.outcome, result.detail)

    def _conclude_at_once(self, ended: Sequence[tuple[Job, Result]]) -> None:
        old = [one for one in ended if _is_old_news(*one)]
        if old:
            self._crew.retry_until_stored(lambda: self._jobs.old_news(old))
        news = [one for one in ended if not _is_old_news(*one)]
        for job, result in news:
            self._write(job, result, 0.0)
        recorded = (
            self._crew.retry_until_stored(lambda: self._jobs.finish_all(news)) if news else []
        )
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
