"""The hook's loop: polls what is due, reads the lists, evaluates open rows and passes on calls.

The gateway's leader runs it. Waiting work is a row; a thread exists only for a call in flight.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import sqlalchemy as sa

from reconnect_hook.decision import MakeCall
from reconnect_hook.message_audit import LONGEST_WAIT_SECONDS, MessageAuditor
from reconnect_hook.message_replay import CLAIM_SECONDS, MessageReplayer
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import (
    FAILURES,
    LONGEST_DUE_SECONDS,
    ROUND_SECONDS,
    GatewayRow,
)
from reconnect_hook.probe import SECOND_QUERY_SECONDS
from reconnect_hook.probe_limits import prune_echoes
from reconnect_hook.recorder import RETRY_SECONDS, Ready, Recorder, RowChanges
from reconnect_hook.repository import (
    Lead,
    LostLeadError,
    Polled,
    begin_look,
    poll,
    prune_audits,
    prune_records,
    prune_rows,
    recheck_drops,
)
from reconnect_hook.scan_links import prune_links
from reconnect_hook.workers import Called, Listed, ProbeAnswer, Workers
from zapwatch.clock import SETTLED_SECONDS, Clock
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import GatewayError
from zapwatch.server import start_thread

_log = logging.getLogger("reconnect_hook")

LIST_PAUSE_SECONDS = 1.0
"""Shortest pause between two lists; slower lists are read less often."""

_COUNTED_PAUSE_SECONDS = 5.0  # the same with a request budget, which a start must not use up
_IDLE_SECONDS = 2.0  # between two polls without a lead here
_POLL_SECONDS = 1.0  # with a lead
_BURST_SECONDS = 0.05  # the shortest, also in an alert storm
_STATE_SECONDS = 2.0  # for returning the leads at the end
_PRUNE_SECONDS = 3600.0
_PRUNE_AGAIN_SECONDS = 60.0  # after a statement that failed
_LONGEST_HORIZON = 3600.0  # most seconds of messages that a look reads
_QUERY_FORGOTTEN = 600.0  # seconds after which a failed query no longer counts


def _is_due(moment: float | None, at: float, longest_wait: float = LONGEST_DUE_SECONDS) -> bool:
    """Whether a time has come, or is so late that the clock must have been set back."""
    return moment is not None and not at < moment <= at + longest_wait


@dataclass(frozen=True, slots=True)
class Beside:
    """Audits and deliveries, which run beside the loop in any hook."""

    auditor: MessageAuditor
    replayer: MessageReplayer

    def begin(self, polled: Polled) -> None:
        """Start due audits and deliveries."""
        if _is_due(polled.audit_at, polled.at, LONGEST_WAIT_SECONDS):
            self.auditor.begin()
        if _is_due(polled.replay_at, polled.at, CLAIM_SECONDS):
            self.replayer.begin()


class GatewayReconciler:
    """Repairs and probes one gateway's channels while this hook leads it; not thread-safe."""

    def __init__(
        self,
        name: str,
        lead: Lead,
        recorder: Recorder,
        workers: Workers,
        metrics: HookMetrics,
        *,
        clock: Clock,
        beside: Beside | None,
        is_counted: bool = False,
    ) -> None:
        """``is_counted``: the gateway has a request budget, so its list is read less often."""
        self.name = name
        self.failed_list: GatewayError | None = None
        """Why the last list failed, None if it did not."""
        self.listed: Listed | None = None
        """The last list that did not fail."""
        self.leads = False
        """Whether this hook last knew itself to be the leader."""
        self.warns = True
        """Whether failed repairs are logged to stderr too."""
        self._lead = lead
        self._recorder = recorder
        self._workers = workers
        self._metrics = metrics
        self._clock = clock
        self._beside = beside
        self._stopping = False
        self._is_counted = is_counted
        self._list_seconds = 0.0
        # Times are of the monotonic clock.
        self._answered_at = -inf
        self._lead_not_before = -inf
        self._forget()

    def _forget(self) -> None:
        """Reset the state of the lead, and drop work in flight."""
        self.leads = False
        self._workers.begin_lead()
        self._recorder.forget()
        self.given: Listed | None = None
        """The list of use_list(), until it is evaluated."""
        self._answers: list[Called | ProbeAnswer] = []
        self._unread: Listed | None = None
        self._looking = False
        self._asked_at = -inf
        self._rests_until = -inf
        self._gateway = GatewayRow()
        self._due_at = inf

    # Called by the scheduler.

    @property
    def is_idle(self) -> bool:
        """Whether all calls have ended and are recorded."""
        return not (self._workers.calls or self._answers)

    def use_list(self, listed: Listed) -> None:
        """Use a list for the first look; it was read after its look number had begun."""
        self._workers.channels = listed.channels
        self.given = listed

    def forget_channels(self, names: Iterable[str]) -> None:
        """Remove the channels' metrics."""
        for name in names:
            self._metrics.remove({"gateway": self.name, "channel": name})

    def stop(self) -> None:
        """Start no further work, and cancel probes, audits and deliveries."""
        self._stopping = True
        self._workers.stop()
        if self._beside is not None:
            self._beside.auditor.stop()
            self._beside.replayer.stop()

    def give_back(self) -> None:
        """Release the lead; raises StateError."""
        if self.leads:
            self._lead.give_back()
            self._forget()

    def step(self, polled: Polled | None) -> float:
        """Do the due work; return the seconds until the next step, unless mail arrives earlier.

        Raises StateError; the next step then repeats the same work.
        """
        if polled is not None:
            is_due = _is_due(polled.look_at, polled.at)
            self._due_at = self._soonest([polled.at if is_due else polled.look_at], polled.at)
            if self._beside is not None:
                self._beside.begin(polled)
        if not self.leads and not self._take_lead(polled):
            return inf
        try:
            self._handle_mail()
            if self._clock.monotonic() >= self._lead.renew_at:
                self._lead.renew()
            if self._next_look() <= self._clock.monotonic():
                self._begin_look()
            elif self._has_nothing_to_do():
                self.give_back()
        except LostLeadError:
            if self._lead.renew_at < inf:  # else another one has taken it first
                _log.warning("another hook leads gateway %s now", self.name)
            self._forget()
        if not self.leads:
            return inf
        return max(0.0, min(self._lead.renew_at, self._next_look()) - self._clock.monotonic())

    def _soonest(self, moments: Iterable[float | None], at: float) -> float:
        """Return the first of these times of the database's clock, which shows ``at``; or inf."""
        seconds = min((one - at for one in moments if one is not None), default=inf)
        return self._clock.monotonic() + seconds

    def _take_lead(self, polled: Polled | None) -> bool:
        moment = self._clock.monotonic()
        if polled is None or self._stopping or moment < self._lead_not_before:
            return False
        if moment < self._due_at and not self.given:
            return False
        gateway = polled.gateway
        if gateway.is_led(polled.at) or gateway.rests(polled.at):
            return False
        self._lead.take(gateway)
        self.leads = True
        return True

    def _has_nothing_to_do(self) -> bool:
        workers = self._workers
        if self._looking or workers.calls or workers.probes:
            return False
        return self._due_at == inf or self._clock.monotonic() < self._rests_until

    @property
    def _list_pause(self) -> float:
        """The pause between two lists in seconds."""
        shortest = _COUNTED_PAUSE_SECONDS if self._is_counted else LIST_PAUSE_SECONDS
        return max(shortest, self._list_seconds)

    def _next_look(self) -> float:
        """Return the earliest time of the next look, infinite during one and without open rows."""
        if self._looking or self._stopping:
            return inf
        if self.given:
            return self._rests_until
        pause = self._list_pause
        if self._workers.calls and self._gateway.is_tripped:
            pause = max(pause, ROUND_SECONDS)  # nothing else is called before the trial has ended
        return max(self._due_at, self._answered_at + pause, self._rests_until)

    # A look.

    def _begin_look(self) -> None:
        """Commit the look's number before reading the list."""
        if self.given:
            self._judge(self.given)
            self.given = None
            return
        begin = partial(begin_look, name=self.name, silences=self._workers.reads_messages)
        begun = self._lead.write(begin, begins_look=True)
        if begun is not None:
            look, silent = begun
            horizon = None if silent is None else min(silent + ROUND_SECONDS + 1, _LONGEST_HORIZON)
            self._looking = self._workers.start_list(look, horizon)
        if not self._looking:
            self._answered_at = self._clock.monotonic() + RETRY_SECONDS

    def _handle_mail(self) -> None:
        """Handle mail; unstored answers remain for the next step."""
        has_lapsed = self._lead.has_lapsed
        for one in self._workers.take_mail():
            if isinstance(one, Listed):
                self._unread = one
            else:
                self._answers.append(one)
        if self._answers:
            self._record(self._answers)
            self._answers = []
        if self._unread is not None:
            if has_lapsed:
                self._looking = False  # what the list shows may be long over
            else:
                self._judge(self._unread)
            self._unread = None

    def _judge(self, listed: Listed) -> None:
        self._asked_at = listed.asked_at
        self._list_seconds = listed.answered_at - listed.asked_at
        if listed.error is None:
            self._judge_all(listed)
        else:
            self._write(partial(self._recorder.note_failed_list, listed.error))
        self.failed_list = listed.error
        self._looking, self._answered_at = False, self._clock.monotonic()

    def _judge_all(self, listed: Listed) -> None:
        """Evaluate all open rows in chunks, so that alerts are stored in between."""
        self.listed = listed
        self._recorder.ready = []
        self._due_at = inf
        keys: Sequence[str] | None = None
        while keys is None or keys:
            judge = partial(self._recorder.judge, listed, keys)
            keys = self._write(judge).remaining

    def _record(self, answers: list[Called | ProbeAnswer]) -> None:
        longest = 3 * self._list_pause + 1
        if self._clock.monotonic() - self._asked_at > longest:
            self._recorder.ready = []
        self._write(partial(self._recorder.record, answers))

    def _write(self, work: Callable[[sa.Connection, GatewayRow, float], RowChanges]) -> RowChanges:
        """Commit changes, count finished repairs and probes, and start claimed work."""
        changes = self._lead.write(work)
        self._recorder.committed(changes)
        at, self._gateway = changes.at, changes.gateway
        if changes.gateway != changes.before:
            self._note_circuit(changes.before, changes.gateway, at)
        due = [row.next_at for row in changes.rows.values()]
        due += [raised.next_at for raised in changes.raises]
        self._due_at = min(self._due_at, self._soonest(due, at))
        for entry in changes.entries:
            self._metrics.count_repair(self.name, entry)
            if entry.outcome in FAILURES and self.warns:
                _log.warning("channel %r: %s %s", entry.channel, entry.outcome, entry.detail)
        self.forget_channels(changes.rows[key].channel for key in changes.deleted)
        for channel, finding, seconds in changes.probes:
            self._metrics.count_probe(self.name, channel, finding, seconds)
        for key in changes.cancelled:
            self._workers.cancel_probe(key)
        for one in changes.claimed:
            self._start(one, at)
        return changes

    def _note_circuit(self, before: GatewayRow, after: GatewayRow, at: float) -> None:
        rest = (after.rests_until or at) - at if after.rests(at) else 0.0
        self._rests_until = self._clock.monotonic() + rest
        if rest:
            # Another hook, which may reach the gateway, gets the lead first.
            self._lead_not_before = self._rests_until + RETRY_SECONDS
            _log.warning(
                "gateway %s has failed %d times in a row: its circuit is open for %.0f s",
                self.name,
                after.failures,
                rest,
            )
        elif before.is_tripped and not after.is_tripped:
            _log.warning("gateway %s answers again", self.name)

    def _start(self, one: Ready, at: float) -> None:
        key, decision = one.row.key, one.decision
        if isinstance(decision, MakeCall):
            self._workers.start_call(key, one.channel, decision)
            return
        failed_ago = at - (one.row.query_failed_at or 0.0)
        failed = SECOND_QUERY_SECONDS <= failed_ago <= _QUERY_FORGOTTEN
        self._workers.start_probe(key, one.channel, proof=decision.proof, query_failed=failed)


class Scheduler:
    """Runs the steps of all reconcilers in one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock
        self._lock = threading.Lock()
        self._reconcilers: dict[str, GatewayReconciler] = {}
        self._ending: dict[GatewayReconciler, float] = {}
        self._ended = threading.Condition(self._lock)
        self._wanted = threading.Event()
        self.notify = self._wanted.set
        """Step soon: mail has arrived."""
        self._stopped = False
        self._alerted = True
        self._polled_at = -inf
        self._prune_at = SETTLED_SECONDS
        self._thread: threading.Thread | None = None

    def add(self, reconcilers: Iterable[GatewayReconciler]) -> None:
        """Add reconcilers of gateways whose rows exist; see add_gateways()."""
        with self._lock:
            self._reconcilers |= {one.name: one for one in reconcilers}
        self.wake()

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread("reconciler", self._run)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Poll soon: a row was raised."""
        self._alerted = True
        self._wanted.set()

    def remove(self, reconcilers: Collection[GatewayReconciler], seconds: float) -> None:
        """Remove reconcilers; after ``seconds`` for calls in flight, the lead is released."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            for one in reconcilers:
                one.stop()
                self._ending[one] = until
                if self._reconcilers.get(one.name) is one:
                    del self._reconcilers[one.name]
            self._wanted.set()
            # Neither a hanging database nor a thread that has died must block the end.
            self._ended.wait_for(
                lambda: not self.is_alive or self._ending.keys().isdisjoint(reconcilers),
                seconds + _STATE_SECONDS,
            )

    def stop(self, seconds: float) -> None:
        """Stop the thread; calls in flight have ``seconds`` to end."""
        self.remove(list(self._reconcilers.values()), seconds)
        self._stopped = True
        self._wanted.set()
        if self._thread is not None:
            # Its connection would stay open if the database were closed before the step's end.
            self._thread.join(_STATE_SECONDS)

    def _run(self) -> None:
        while not self._stopped:
            try:
                pause = self.run_once()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                pause = RETRY_SECONDS
            except Exception:  # noqa: BLE001
                # Unexpected, but without this thread the hook would repair nothing.
                _log.exception("reconciler: internal error")
                pause = RETRY_SECONDS
            self._wanted.wait(pause)
            self._wanted.clear()

    def run_once(self) -> float:
        """Step all reconcilers; return the seconds until the next step.

        Then raises the first exception that one of them has met.
        """
        with self._lock:
            reconcilers = list(self._reconcilers.values())
            ending = list(self._ending)
        polled: Mapping[str, Polled] = {}
        if self._next_poll(reconcilers) <= 0:
            self._alerted, self._polled_at = False, self._clock.monotonic()
            polled = poll(self._database)
        errors: list[Exception] = []
        pauses: list[float] = []
        for one in reconcilers:
            try:
                pauses.append(one.step(polled.get(one.name)))
            except Exception as error:  # noqa: BLE001 - the other gateways go on
                errors.append(error)
        for one in ending:
            self._end(one)
            pauses.append(_BURST_SECONDS)
        self._prune_if_due(reconcilers)
        if errors:
            raise errors[0]
        return max(0.0, min([*pauses, self._next_poll(reconcilers)]))

    def _next_poll(self, reconcilers: Collection[GatewayReconciler]) -> float:
        leads = any(one.leads for one in reconcilers)
        pause = _BURST_SECONDS if self._alerted else _POLL_SECONDS if leads else _IDLE_SECONDS
        return self._polled_at + pause - self._clock.monotonic()

    def _end(self, one: GatewayReconciler) -> None:
        """Record the answers of calls in flight, then release the lead."""
        until = self._ending[one]
        try:
            if one.leads:
                one.step(None)
            if one.is_idle or self._clock.monotonic() >= until:
                one.give_back()
                self._forget(one)
        except Exception as error:  # noqa: BLE001 - it must end
            if self._clock.monotonic() >= until:
                _log.warning("state: %s; work in progress continues in 10 s", error)
                self._forget(one)

    def _forget(self, one: GatewayReconciler) -> None:
        with self._lock:
            self._ending.pop(one, None)
            self._ended.notify_all()

    def _prune_if_due(self, reconcilers: Collection[GatewayReconciler]) -> None:
        if self._clock.monotonic() < self._prune_at:
            return
        self._prune_at = self._clock.monotonic() + _PRUNE_AGAIN_SECONDS
        if prune_records(self._database) or prune_echoes(self._database):
            self._prune_at = -inf  # the next step deletes the next chunk
            return
        prune_links(self._database)
        for one in reconcilers:
            recheck_drops(self._database, one.name)
            if one.listed is not None:
                ago = self._clock.monotonic() - one.listed.asked_at
                of = (self._database, one.name, one.listed.channels, ago)
                one.forget_channels(prune_rows(*of))
                prune_audits(*of)
        self._prune_at = self._clock.monotonic() + _PRUNE_SECONDS
