"""Takes the channels that are to be asked from the queue, and sees each probe through."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from reconnect_hook.alerts import Alert, AlertStatus, Reason, Target
from reconnect_hook.event_log import EventLog
from reconnect_hook.metrics import OfGateway
from reconnect_hook.outcomes import Job
from reconnect_hook.probes.examination import (
    Examination,
    Finding,
    PostponedError,
    ProbeMeans,
    UnableError,
)
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.repairs.crew import TROUBLE_SECONDS, Crew
from reconnect_hook.repairs.means import Interrupted
from reconnect_hook.state.database import StateError
from reconnect_hook.state.intake import Intake
from reconnect_hook.state.jobs import LEASE_SECONDS, Jobs
from reconnect_hook.state.probes import ECHO_GAP_SECONDS, ProbeOutcome
from whatsapp.channels import Channel
from whatsapp.gateways.gateway import GatewayError
from whatsapp.message_log import MessageLogError
from whatsapp.probe_settings import ProbeKind

_log = logging.getLogger("reconnect_hook")

_T = TypeVar("_T")
_RELEASE_SECONDS = 2.0  # for a state to take back what is under way
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
        lists: ChannelLists,
        means: ProbeMeans,
        intake: Intake,
        wake: Callable[[], None],
        events: EventLog,
        metrics: OfGateway,
        *,
        count: int,
    ) -> None:
        self._jobs = jobs
        self._lists = lists
        self._stopping = threading.Event()
        self._means = replace(means, wait=self._wait)
        self._intake = intake
        self._wake_repairs = wake
        self._events = events
        self._metrics = metrics
        self._crew = Crew(count, jobs.claim, self._see_through, self._stopping)
        self._keeper = threading.Thread(target=self._keep, name="probe-leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._crew.start()
        self._keeper.start()

    def wake(self) -> None:
        """Say that there is something in the queue."""
        self._crew.wake()

    def stop(self, seconds: float) -> None:
        """End: what is under way and cannot end in ``seconds`` goes back into the queue."""
        self._stopping.set()
        self._crew.join(seconds)
        releasing = threading.Thread(target=self._release, name="release-probes", daemon=True)
        releasing.start()
        releasing.join(_RELEASE_SECONDS)

    def _release(self) -> None:
        try:
            self._jobs.release()
        except StateError as error:
            _log.warning("state: %s; probes under way go on in %.0f s", error, LEASE_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Interrupted

    def _keep(self) -> None:
        pruned_at = float("-inf")
        while not self._stopping.wait(LEASE_SECONDS / 3):
            try:
                self._jobs.renew()
                if time.monotonic() - pruned_at > _PRUNE_SECONDS:
                    self._means.book.forget_old()
                    pruned_at = time.monotonic()
            except StateError as error:
                _log.warning("state: %s", error)
            except Exception:  # noqa: BLE001
                _log.exception("a fault of the hook itself")

    def _see_through(self, job: Job) -> None:
        try:
            self._ask(job)
        except Interrupted:
            raise
        except PostponedError:
            # Spread over the time that all who wait will need.
            waiting = self._insist(self._means.book.waiting)
            seconds = ECHO_GAP_SECONDS * (1 + _chance.random() * waiting)
            self._insist(lambda: self._jobs.put_back(job, seconds))
        except UnableError:
            # The alert comes again while nothing is heard.
            self._insist(lambda: self._means.book.give_up(job.key, job.channel))
            self._insist(lambda: self._jobs.drop(job))
        except MessageLogError:
            self._insist(lambda: self._jobs.put_back(job, _LOG_AGAIN_SECONDS))
        except Exception:  # noqa: BLE001
            # Unforeseen, and nothing was recorded: the lease would be renewed for ever.
            _log.exception("a probe could not be ended, and is tried again")
            self._insist(lambda: self._jobs.put_back(job, _LOG_AGAIN_SECONDS))

    def _ask(self, job: Job) -> None:
        """Ask a channel, unless there is no need or it must not be."""
        means = self._means
        try:
            listed = self._lists.of_this_round(time.monotonic() - job.waited)
        except GatewayError:
            self._insist(lambda: self._jobs.look_later(job))
            return
        channel = listed.get(job.key)
        by_hand = job.reason is Reason.ASKED
        if channel is None or not channel.connected:
            self._insist(lambda: self._jobs.drop(job))
            return
        kind = means.kind_of(channel)
        if kind is ProbeKind.OFF or (not by_hand and self._was_heard(channel, job.waited)):
            self._insist(lambda: self._jobs.drop(job))
            return
        wait = self._insist(
            lambda: means.book.begin(job.key, channel.id, None if by_hand else job.id)
        )
        if wait > 0:
            self._insist(lambda: self._jobs.put_back(job, wait))
            return
        self._conclude(job, channel, *self._examined(channel, listed, kind))

    def _was_heard(self, channel: Channel, waited: float) -> bool:
        """Whether the suspicion is old news; raises MessageLogError while the log is down."""
        ear = self._means.ear
        lately = min(waited + _ALERT_SECONDS, self._means.settings.after_minutes * 60)
        if ear is None or channel.key not in ear.listen(lately).ages:
            return False
        self._insist(lambda: self._means.book.resume([channel.key]))
        return True

    def _examined(
        self, channel: Channel, listed: Mapping[str, Channel], kind: ProbeKind
    ) -> tuple[Finding, float]:
        started = time.monotonic()
        finding = Examination(self._means, channel, listed).run(kind)
        return finding, time.monotonic() - started

    def _conclude(self, job: Job, channel: Channel, finding: Finding, seconds: float) -> None:
        """Log, record and count what was found, and have the dead repaired."""
        if finding.outcome is not ProbeOutcome.PASSED:
            self._events.write(
                channel=channel.id,
                probe=finding.kind,
                outcome=finding.outcome,
                seconds=f"{seconds:.1f}",
                detail=finding.detail or None,
            )
        self._insist(
            lambda: self._means.book.end(job.key, channel.id, finding.kind, finding.outcome)
        )
        self._metrics.count_probe(channel.id, finding.kind, finding.outcome, seconds)
        reason = Reason.PROBE_FAILED if finding.kind is ProbeKind.QUERY else Reason.ECHO_LOST
        alerts = [Alert(AlertStatus.FIRING, Target(one.id, reason)) for one in finding.dead]
        if alerts:
            # What only asked the channel becomes its repair.
            self._insist(lambda: self._intake.accept(alerts))
            self._wake_repairs()
        if any(one.key == job.key for one in finding.dead):
            self._jobs.let_go(job)
        else:
            self._insist(lambda: self._jobs.drop(job))

    def _insist(self, change: Callable[[], _T]) -> _T:
        while True:
            try:
                return change()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                self._wait(TROUBLE_SECONDS)
