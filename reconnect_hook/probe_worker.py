"""Takes the channels that are to be asked from the queue, and sees each probe through."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target
from reconnect_hook.audit_log import EventLog
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.context import Interrupted, PostponedError, ProbeContext, UnableError
from reconnect_hook.metrics import OfGateway
from reconnect_hook.models import Job
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS, ProbeOutcome
from reconnect_hook.queue import LEASE_SECONDS, Jobs
from reconnect_hook.worker_pool import WorkerPool
from zapwatch.channels import Channel
from zapwatch.config.gateway import ProbeKind
from zapwatch.gateways.base import GatewayError
from zapwatch.messages.webhook_log import MessageLogError

_log = logging.getLogger("reconnect_hook")

_ALERT_SECONDS = 30.0  # that a suspicion is on its way before the hook gets it
_LOG_AGAIN_SECONDS = 60.0  # until a log that could not be read is tried again
_PRUNE_SECONDS = 3600.0
# Its own, since whoever else in this process draws numbers may count on what comes next.
_chance = random.Random()  # noqa: S311 - it only spreads


class Prober:
    """Asks one gateway's channels, ``count`` at a time, until it is stopped.

    Whoever proves to be dead is repaired by ``intake``, as if an alert had said so; ``wake`` tells
    the repairs that there is something in the queue.
    """

    def __init__(
        self,
        jobs: Jobs,
        lists: ChannelListCache,
        means: ProbeContext,
        intake: AlertWriter,
        wake: Callable[[], None],
        events: EventLog,
        metrics: OfGateway,
        *,
        count: int,
    ) -> None:
        self._jobs = jobs
        self._lists = lists
        self._crew = WorkerPool(count, jobs.claim, self._see_through, jobs.release)
        self._means = replace(means, wait=self._crew.wait)
        self._intake = intake
        self._wake_repairs = wake
        self._events = events
        self._metrics = metrics
        self._pruned_at = float("-inf")

    def start(self) -> None:
        """Begin."""
        self._crew.start()
        self._crew.repeat("probe-leases", LEASE_SECONDS / 3, self._keep)

    def wake(self) -> None:
        """Say that there is something in the queue."""
        self._crew.wake()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` goes back into the queue."""
        self._crew.stop(seconds)

    def _keep(self) -> None:
        """Keep hold of what is under way, and the book from growing without end."""
        self._jobs.renew()
        if time.monotonic() - self._pruned_at > _PRUNE_SECONDS:
            self._means.book.forget_old()
            self._pruned_at = time.monotonic()

    def _see_through(self, job: Job) -> None:
        try:
            self._ask(job)
        except Interrupted:
            raise
        except PostponedError:
            # Spread over the time that all who wait will need.
            waiting = self._crew.retry_until_stored(self._means.book.waiting)
            seconds = ECHO_GAP_SECONDS * (1 + _chance.random() * waiting)
            self._crew.retry_until_stored(lambda: self._jobs.put_back(job, seconds))
        except UnableError:
            # The alert comes again while nothing is heard.
            self._crew.retry_until_stored(lambda: self._means.book.give_up(job.key, job.channel))
            self._crew.retry_until_stored(lambda: self._jobs.drop(job))
        except MessageLogError:
            self._crew.retry_until_stored(lambda: self._jobs.put_back(job, _LOG_AGAIN_SECONDS))
        except Exception:  # noqa: BLE001
            # Unforeseen, and nothing was recorded: the lease would be renewed for ever.
            _log.exception("a probe could not be ended, and is tried again")
            self._crew.retry_until_stored(lambda: self._jobs.put_back(job, _LOG_AGAIN_SECONDS))

    def _ask(self, job: Job) -> None:
        """Ask a channel, unless there is no need or it must not be."""
        means = self._means
        try:
            listed = self._lists.fresh(time.monotonic() - job.waited)
        except GatewayError:
            self._crew.retry_until_stored(lambda: self._jobs.look_later(job))
            return
        channel = listed.get(job.key)
        by_hand = job.reason is RepairCause.ASKED
        if channel is None or not channel.connected:
            self._crew.retry_until_stored(lambda: self._jobs.drop(job))
            return
        kind = means.kind_of(channel)
        if kind is ProbeKind.OFF or (not by_hand and self._was_heard(channel, job.waited)):
            self._crew.retry_until_stored(lambda: self._jobs.drop(job))
            return
        wait = self._crew.retry_until_stored(
            lambda: means.book.begin(job.key, channel.id, job.id, by_hand=by_hand)
        )
        if wait > 0:
            self._crew.retry_until_stored(lambda: self._jobs.put_back(job, wait))
            return
        self._conclude(job, channel, *self._examined(channel, listed, kind))

    def _was_heard(self, channel: Channel, waited: float) -> bool:
        """Whether the suspicion is old news; raises MessageLogError while the log is down."""
        messages = self._means.messages
        lately = min(waited + _ALERT_SECONDS, self._means.settings.after_minutes * 60)
        if messages is None or channel.key not in messages.recent(lately).complete().ages:
            return False
        self._crew.retry_until_stored(lambda: self._means.book.resume([channel.key]))
        return True

    def _examined(
        self, channel: Channel, listed: Mapping[str, Channel], kind: ProbeKind
    ) -> tuple[Finding, float]:
        started = time.monotonic()
        finding = ProbeRun(self._means, channel, listed).run(kind)
        return finding, time.monotonic() - started

    def _conclude(self, job: Job, channel: Channel, finding: Finding, seconds: float) -> None:
        """Log, record and count what was found, and have the dead repaired."""
        self._crew.ensure_lease()  # else whoever has it now tells what it finds
        if finding.outcome is not ProbeOutcome.PASSED:
            self._events.write(
                channel=channel.id,
                probe=finding.kind,
                outcome=finding.outcome,
                seconds=f"{seconds:.1f}",
                detail=finding.detail or None,
            )
        reason = (
            RepairCause.PROBE_FAILED if finding.kind is ProbeKind.QUERY else RepairCause.ECHO_LOST
        )
        alerts = [Alert(AlertStatus.FIRING, Target(one.id, reason)) for one in finding.dead]
        if alerts:
            # What only asked the channel becomes its repair. It comes first: a hook that dies here
            # finds out once more, from what is noted of the echoes, rather than repair nobody.
            self._crew.retry_until_stored(lambda: self._intake.accept(alerts))
        self._crew.retry_until_stored(
            lambda: self._means.book.end(
                job.key, channel.id, finding.kind, finding.outcome, finding.halted
            )
        )
        self._metrics.count_probe(channel.id, finding.kind, finding.outcome, seconds)
        if alerts:
            self._wake_repairs()
        if any(one.key == job.key for one in finding.dead):
            self._jobs.let_go(job)
        else:
            self._crew.retry_until_stored(lambda: self._jobs.drop(job))
