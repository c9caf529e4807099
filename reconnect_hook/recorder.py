"""The leader's transactions: evaluate rows, record answers, claim work."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from reconnect_hook.alerts import AlertStatus, Target, admit
from reconnect_hook.decision import (
    CallAnswer,
    Close,
    Decision,
    End,
    Enter,
    InHand,
    MakeCall,
    Policy,
    Probe,
    Seen,
    Verify,
    Wait,
    after_call,
    close,
    conclude,
    decide,
    is_of_the_whole,
    phase_now,
    words,
)
from reconnect_hook.echo import (
    Interrupted,
    PostponedError,
    QueryFailedOnceError,
    UnableError,
)
from reconnect_hook.event_log import (
    UNABLE,
    AttemptKind,
    AttemptName,
    AttemptStep,
    AttemptSteps,
    EventLog,
    StepKind,
)
from reconnect_hook.message_audit import want_audits, wish_after
from reconnect_hook.models import (
    FOLLOWED,
    IN_HAND,
    LEASE_SECONDS,
    PROBE_CAUSES,
    RECOVERIES,
    ROUND_SECONDS,
    SILENCES,
    Action,
    AskedBy,
    ChannelRow,
    GatewayRow,
    Intent,
    Outcome,
    Phase,
    ProbeOutcome,
    RepairCause,
    Step,
)
from reconnect_hook.probe import Finding
from reconnect_hook.probe_limits import note_end
from reconnect_hook.repository import (
    Raise,
    StoredChanges,
    count_probes,
    read_open_keys,
    read_rows,
    store_changes,
)
from reconnect_hook.workers import Called, Listed, ProbeAnswer, UnreadableError, Workers
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways.base import GatewayError

_log = logging.getLogger("reconnect_hook")

RETRY_SECONDS = 2.0
"""Pause before a retry when no thread was available or the state failed."""

_RESTARTS = (
    "RECONNECT_ALLOW_RESTART throws the session away: the old pairing is lost, and a person has to "
    "scan a new QR code"
)
_JUDGED_AT_ONCE = 500  # rows a transaction, so that alerts are stored quickly
_FAULT_SECONDS = 60.0  # until a row with an internal error is evaluated again
_FLAPPING_SECONDS = 3600.0  # a channel that drops so soon after a call comes after the others
_LONGEST_POSTPONEMENT = 590.0  # below LONGEST_DUE_SECONDS, beyond which a deadline is over
# A separate generator: other users of ``random`` may depend on their own sequence.
_chance = random.Random()  # noqa: S311 - only spreads retries


@dataclass(frozen=True, slots=True)
class Ready:
    """A row that awaits a free worker for its call or probe."""

    row: ChannelRow
    decision: MakeCall | Probe
    channel: Channel


@dataclass(slots=True)
class RowChanges(StoredChanges):
    """The changes of one transaction, and the work that follows its commit."""

    claimed: list[Ready] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    """Keys of the ready rows that were claimed, or have changed since their evaluation."""
    probes: list[tuple[str, Finding, float]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Keys of the probes to cancel."""
    remaining: Sequence[str] = ()
    """After judge(): the keys of the rows that are still to be evaluated."""


class Recorder:
    """One gateway's transactions, as functions for Lead.write(); not thread-safe."""

    def __init__(
        self, name: str, policy: Policy, events: EventLog, workers: Workers, clock: Clock
    ) -> None:
        self._name = name
        self._policy = policy
        self._events = events
        self._workers = workers
        self._clock = clock
        self.ready: list[Ready] = []
        """The rows that await a worker, of the last look that is not too old."""
        self._began: dict[str, float] = {}
        self._probe_began: dict[str, float] = {}
        self._steps: dict[AttemptName, list[AttemptStep]] = {}

    def forget(self) -> None:
        """Reset the state of an ended lead."""
        self.ready = []
        self._began = {}
        self._steps = {}

    def committed(self, changes: RowChanges) -> None:
        """Apply a committed transaction's steps, claims and ends of repairs."""
        for entry in changes.entries:
            self._began.pop(entry.key, None)
        for one in changes.claimed:
            if isinstance(one.decision, Probe) and not one.decision.resumes:
                self._probe_began[one.row.key] = self._clock.monotonic()
        if changes.taken:
            self.ready = [one for one in self.ready if one.row.key not in changes.taken]
        changes.attempts.commit()

    def note_failed_list(
        self, error: GatewayError, connection: sa.Connection, gateway: GatewayRow, at: float
    ) -> RowChanges:
        """Record a failed list; it shows nothing about channels, so no row changes."""
        changes = self._begin_changes(connection, gateway, at)
        changes.gateway = replace(gateway.after_failure(at), list_failed=True)
        store_changes(self._name, changes)
        if not gateway.list_failed:
            self._events.write(action="list", outcome=Outcome.FAILED, detail=words(error))
        return changes

    def _begin_changes(
        self, connection: sa.Connection, gateway: GatewayRow, at: float
    ) -> RowChanges:
        return RowChanges(connection, at, AttemptSteps(at, self._steps), gateway, gateway)

    # A look.

    def judge(
        self,
        listed: Listed,
        keys: Sequence[str] | None,
        connection: sa.Connection,
        gateway: GatewayRow,
        at: float,
    ) -> RowChanges:
        """Evaluate a chunk of the open rows, and claim the next work after the last one.

        ``keys`` are those that remain of a look, None at its begin.
        """
        changes = self._begin_changes(connection, gateway, at)
        keys = read_open_keys(connection, self._name) if keys is None else keys
        chunk, changes.remaining = keys[:_JUDGED_AT_ONCE], keys[_JUDGED_AT_ONCE:]
        changes.rows = read_rows(connection, self._name, chunk, at, lock=True)
        changes.gateway = gateway.after_list(at)
        # Drop this transaction's own entries if it is being retried after a conflict.
        self.ready = [one for one in self.ready if one.row.key not in changes.rows]
        for key in chunk:
            row = changes.rows.get(key)
            if row is None or row.next_at is None or self._awaits_messages(row, listed):
                continue
            self._judge_row(changes, row, listed)
        if not changes.remaining:
            self.ready.sort(key=_rank)
            self._claim(changes)
        self._store(changes)
        return changes

    def _awaits_messages(self, row: ChannelRow, listed: Listed) -> bool:
        """Whether its silence was raised in a look that reads no messages; the next one does."""
        is_unread = listed.ages is None and self._workers.reads_messages
        return is_unread and row.raised_in >= listed.look and row.cause in SILENCES | PROBE_CAUSES

    def _lock(self, changes: RowChanges, keys: Collection[str]) -> list[ChannelRow]:
        """Return the rows with these keys, locked until the commit."""
        missing = set(keys) - changes.rows.keys()
        if missing:
            found = read_rows(changes.connection, self._name, missing, changes.at, lock=True)
            changes.rows |= found
        return [changes.rows[key] for key in keys if key in changes.rows]

    def _judge_row(self, changes: RowChanges, row: ChannelRow, listed: Listed) -> None:
        workers = self._workers
        is_mine = row.phase in IN_HAND and row.epoch == changes.gateway.epoch
        if is_mine and row.key not in workers.calls and row.key not in workers.probes:
            # Claimed by a transaction whose commit was not confirmed: no worker has started.
            row.epoch, row.next_at = 0, changes.at
            return
        channel = listed.channels.get(row.key)
        if channel is None and not (row.listed or row.is_paused(changes.at)):
            meant = listed.spellings.of(Channel(row.channel, Status.UNKNOWN))
            if meant is not None:
                self._readdress(changes, row, meant, listed.look)
                return
        try:
            self._note_listed(row, channel, changes.at)
            seen = Seen(listed.look, channel, (listed.ages or {}).get(row.key))
            if row.phase in FOLLOWED:
                status = channel.status if channel else "absent"
                changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.LISTED, status)
            decision = decide(row, seen, changes.gateway, self._policy, changes.at)
            if not isinstance(decision, InHand) and row.phase is Phase.PROBING:
                changes.cancelled.add(row.key)
            if isinstance(decision, MakeCall | Probe):
                about = channel or Channel(row.channel, Status.UNKNOWN)
                self.ready.append(Ready(row, decision, about))
                if row.next_at is not None:
                    row.next_at = min(row.next_at, changes.at)
            else:
                self._apply(changes, row, decision, listed.look)
        except Exception:  # noqa: BLE001
            _log.exception("channel %r: internal error", row.channel)
            changes.rows[row.key] = row = ChannelRow.load(row.stored)
            row.next_at = changes.at + _FAULT_SECONDS

    @staticmethod
    def _readdress(changes: RowChanges, row: ChannelRow, meant: Channel, look: int) -> None:
        """Move the intent of an alert that spells the channel's name in another way."""
        asked = (row.intent, row.cause, row.since, changes.at, look, row.asked_by)
        changes.raises.append(Raise(meant.key, meant.id, *asked))
        changes.deleted.add(row.key)

    @staticmethod
    def _note_listed(row: ChannelRow, channel: Channel | None, at: float) -> None:
        """Record the look's result for a channel, independent of the decision."""
        starting = channel is not None and channel.status is Status.INITIALIZING
        row.starting_since = (row.starting_since or at) if starting else None
        if channel is not None:
            row.channel, row.listed = channel.id, True

    def _apply(
        self, changes: RowChanges, row: ChannelRow, decision: Decision, look: int | None
    ) -> None:
        """Apply a decision other than a call or probe."""
        match decision:
            case InHand():
                self._wait(changes, row, Wait(changes.at + LEASE_SECONDS))
            case Wait():
                self._wait(changes, row, decision)
            case Verify():
                row.phase, row.epoch = Phase.VERIFYING, changes.gateway.epoch
                row.deadline = changes.at + self._policy.verify_seconds
                changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.VERIFYING)
            case End():
                self._end(changes, row, decision, look)
            case Close():
                close(row, look, changes.gateway, self._policy, changes.at, well=decision.well)
                if decision.well:
                    row.seen_at, row.last_status = changes.at, Status.CONNECTED
                if decision.heard:
                    row.suspended = False

    def _wait(self, changes: RowChanges, row: ChannelRow, wait: Wait) -> None:
        row.phase = phase_now(row, changes.gateway)
        if wait.until is None or row.next_at is None:
            return
        until = wait.until if wait.sleeps else min(wait.until, changes.at + ROUND_SECONDS)
        if row.next_at <= changes.at or row.next_at > until:
            row.next_at = max(until, changes.at)

    def _end(self, changes: RowChanges, row: ChannelRow, end: End, look: int | None) -> None:
        began, moment = self._began.get(row.key), self._clock.monotonic()
        seconds = 0.0 if began is None else moment - began
        entry = conclude(row, end, look, changes.gateway, self._policy, changes.at, seconds)
        changes.entries.append(entry)
        changes.attempts.end(AttemptKind.REPAIR, row.key, entry.outcome, entry.detail)
        # Only a session's first failing call counts: one that goes on failing opens no circuit.
        if end.of_the_whole and (row.failures - row.stuck == 1 or changes.gateway.is_tripped):
            changes.gateway = changes.gateway.after_failure(changes.at)
        stays = row.is_open or row.is_paused(changes.at)
        if end.outcome is Outcome.UNKNOWN_CHANNEL and not stays:
            changes.deleted.add(row.key)

    # Claims.

    def _claim(self, changes: RowChanges) -> None:
        """Claim ready rows for free workers, and calls within the circuit breaker."""
        if not self.ready or changes.gateway.rests(changes.at):
            return
        workers = self._workers
        in_flight = len(workers.calls) + len(changes.claimed)
        calls, probes = workers.capacity - in_flight, workers.capacity - len(workers.probes)
        if changes.gateway.is_tripped:
            calls = min(calls, 1 - in_flight)
        taken: dict[str, Ready] = {}
        for one in self.ready:
            if isinstance(one.decision, MakeCall):
                if calls > 0:
                    calls -= 1
                    taken[one.row.key] = one
            elif probes > 0 and self._may_probe(one):
                probes -= 1
                taken[one.row.key] = one
        for row in self._lock(changes, taken):
            one = taken[row.key]
            if _is_as_judged(row, one.row, changes.at):
                self._begin(changes, row, one.decision, one.channel)
                changes.claimed.append(replace(one, row=row))
        changes.taken |= taken.keys()

    def _may_probe(self, one: Ready) -> bool:
        """Whether this hook has not just probed it, by the monotonic clock: clocks may jump."""
        if one.row.cause is RepairCause.ASKED or one.decision != Probe():
            return True
        began = self._probe_began.get(one.row.key, float("-inf"))
        return self._clock.monotonic() - began >= self._policy.probe_pause

    def _begin(
        self,
        changes: RowChanges,
        row: ChannelRow,
        decision: MakeCall | Probe,
        listed: Channel | None = None,
    ) -> None:
        """Set a row to the phase of a worker's call or probe; ``listed``: as it was claimed."""
        at = changes.at
        is_idle = phase_now(row, changes.gateway) is Phase.IDLE
        if listed is not None:
            # A call begins a repair, as a probe that proves one belongs to it.
            probe = decision if isinstance(decision, Probe) else Probe(proof=True)
            kind = AttemptKind.REPAIR if probe.proof else AttemptKind.PROBE
            if is_idle and not probe.resumes:
                changes.attempts.begin(kind, row.key, row.asked_by, row.since)
            changes.attempts.add(kind, row.key, StepKind.LISTED, listed.status)
        row.epoch = changes.gateway.epoch
        # If this leader dies, the next one looks when the lease expires.
        row.next_at = at + LEASE_SECONDS
        if isinstance(decision, MakeCall):
            self._begin_call(changes, row, decision, is_idle=is_idle)
            return
        row.phase = Phase.PROVING if decision.proof else Phase.PROBING
        if not decision.resumes:
            row.probe_began_at = at
        if decision.proof:
            row.suspended = False
        else:
            row.step = row.deadline = None

    def _begin_call(
        self, changes: RowChanges, row: ChannelRow, call: MakeCall, *, is_idle: bool
    ) -> None:
        if is_idle:
            row.deadline, row.tries, row.action = None, 0, Action.NONE
            row.silent = call.silent
            self._began[row.key] = self._clock.monotonic()
        row.phase, row.step, row.asked_at = Phase.CALLING, call.step, changes.at
        changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.CALLED, call.step)
        match call.step:
            case Step.START:
                row.tries += 1
            case Step.DELETE:
                row.restarting, row.tries, row.deadline = True, 0, None
                changes.restarts.append(row.channel)
            case Step.CREATE:
                row.deadline = None
        if call.step in {Step.DELETE, Step.CREATE}:
            row.action = Action.RESTART
        elif row.action is Action.NONE:
            row.action = self._policy.reconnect_action

    # Answers.

    def record(
        self,
        answers: Sequence[Called | ProbeAnswer],
        connection: sa.Connection,
        gateway: GatewayRow,
        at: float,
    ) -> RowChanges:
        """Record the answers of calls and probes, and claim the next work."""
        changes = self._begin_changes(connection, gateway, at)
        self._lock(changes, [one.key for one in answers])
        for one in answers:
            row = changes.rows.get(one.key)
            if row is None:
                continue
            try:
                self._record_answer(changes, row, one)
            except sa.exc.SQLAlchemyError:
                raise  # the whole transaction fails
            except Exception:  # noqa: BLE001
                _log.exception("channel %r: internal error", row.channel)
                changes.rows[row.key] = row = ChannelRow.load(row.stored)
                self._record_answer(changes, row, _as_fault(one))
        self._claim(changes)
        self._store(changes)
        return changes

    def _record_answer(
        self, changes: RowChanges, row: ChannelRow, one: Called | ProbeAnswer
    ) -> None:
        """Record an answer, unless its row no longer awaits it."""
        if isinstance(one, Called):
            if row.phase is Phase.CALLING and row.step is one.step:
                self._record_call(changes, row, one.answer)
        elif row.phase is Phase.PROVING:
            self._record_proof(changes, row, one)
        elif row.phase is Phase.PROBING and row.intent is Intent.PROBE:
            self._record_probe(changes, row, one)

    def _record_call(self, changes: RowChanges, row: ChannelRow, answer: CallAnswer | None) -> None:
        at, listed = changes.at, (self._workers.channels or {}).get(row.key)
        if answer is None:
            row.phase, row.next_at = Phase.IDLE, at + RETRY_SECONDS
            row.restarting = row.restarting and row.step is not Step.DELETE
            return
        changes.attempts.add(AttemptKind.REPAIR, row.key, *_answer_step(answer))
        if answer.is_fault:
            end = End(Outcome.FAILED, detail="internal error")
            self._end(changes, row, end, None)
            return
        if answer.error is None or not is_of_the_whole(answer.error):
            changes.gateway = changes.gateway.after_answer(at)
        follows = after_call(row, answer, self._policy, at)
        row.next_at = at
        match follows:
            case End():
                if row.step is Step.DELETE:
                    row.restarting = False  # refused: the session still exists
                if follows.status is None and listed is not None:
                    follows = replace(follows, status=listed.status)
                self._end(changes, row, follows, None)
            case Enter():
                self._enter(changes, row, follows)
            case MakeCall():
                row.phase = Phase.STARTING
                self._begin(changes, row, follows)
                about = listed or Channel(row.channel, Status.UNKNOWN)
                changes.claimed.append(Ready(row, follows, about))

    @staticmethod
    def _enter(changes: RowChanges, row: ChannelRow, enter: Enter) -> None:
        row.called_at, row.called_in = changes.at, changes.gateway.look
        row.phase, row.step = enter.phase, enter.step
        row.deadline, row.tries = enter.deadline, enter.tries
        if enter.phase is Phase.STARTING and enter.step is Step.CREATE:
            row.restarting = False
        if enter.phase is Phase.VERIFYING:
            changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.VERIFYING)

    def _record_proof(self, changes: RowChanges, row: ChannelRow, one: ProbeAnswer) -> None:
        """Record a probe that verifies a repair; there is one per repair."""
        finding = one.finding
        self._note_steps(changes, AttemptKind.REPAIR, one)
        waits = row.deadline is not None and changes.at < row.deadline
        again = isinstance(finding, PostponedError) and waits
        row.phase, row.tries = Phase.VERIFYING, int(not again)
        row.next_at = changes.at
        if not isinstance(finding, Finding):
            return
        self._note_probe(changes, row, finding, one.seconds)
        if finding.outcome is ProbeOutcome.FAILED:
            detail = f"after {row.action} too: {finding.detail}"
            end = End(Outcome.FAILED, Status.CONNECTED, detail)
        elif finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
            end = End(Outcome.RECONNECTED, Status.CONNECTED)
        else:
            return
        self._end(changes, row, end, None)
        row.suspended = any(each.key == row.key for each in finding.suspended)

    def _record_probe(self, changes: RowChanges, row: ChannelRow, one: ProbeAnswer) -> None:
        at, finding = changes.at, one.finding
        self._note_steps(changes, AttemptKind.PROBE, one)
        if isinstance(finding, PostponedError | Interrupted):
            seconds = finding.seconds if isinstance(finding, PostponedError) else 0.0
            if isinstance(finding, QueryFailedOnceError):
                row.query_failed_at = at
            elif not isinstance(finding, UnreadableError):
                # Spread retries over the time that all waiting probes need.
                seconds *= 1 + _chance.random() * count_probes(changes.connection, self._name)
            changes.attempts.add(AttemptKind.PROBE, row.key, StepKind.POSTPONED, str(finding))
            row.phase, row.step = Phase.IDLE, Step.POSTPONED
            row.deadline = row.next_at = at + min(seconds, _LONGEST_POSTPONEMENT)
            return
        close(row, None, changes.gateway, self._policy, at, well=False)
        row.query_failed_at = None
        if isinstance(finding, UnableError):
            changes.attempts.end(AttemptKind.PROBE, row.key, UNABLE, str(finding))
        if isinstance(finding, Finding):
            self._note_probe(changes, row, finding, one.seconds)
            self._raise_repairs(changes, row, finding)
            changes.attempts.end(AttemptKind.PROBE, row.key, finding.outcome, finding.detail)

    def _note_steps(self, changes: RowChanges, kind: AttemptKind, one: ProbeAnswer) -> None:
        """Record a probe's steps, converted to the database's clock."""
        offset = changes.at - self._clock.monotonic()
        for step in one.steps:
            changes.attempts.add(kind, one.key, step.kind, step.words, step.at + offset)

    def _note_probe(
        self, changes: RowChanges, row: ChannelRow, finding: Finding, seconds: float
    ) -> None:
        kind, outcome, suspended = finding.kind, finding.outcome, finding.suspended
        ended = (row.key, kind, outcome, suspended)
        note_end(changes.connection, changes.at, self._name, *ended)
        changes.probes.append((row.channel, finding, seconds))
        if outcome is ProbeOutcome.PASSED and kind is ProbeKind.ECHO:
            row.suspended = False
        row.suspended = row.suspended or any(each.key == row.key for each in suspended)

    def _raise_repairs(self, changes: RowChanges, row: ChannelRow, finding: Finding) -> None:
        """Raise repairs of channels that a probe proved dead, in the probe's final transaction."""
        cause = (
            RepairCause.PROBE_FAILED if finding.kind is ProbeKind.QUERY else RepairCause.ECHO_LOST
        )
        keys = [dead.key for dead in finding.dead]
        rows = read_rows(changes.connection, self._name, keys, changes.at)
        rows[row.key] = row
        for dead in finding.dead:
            _, raised = admit(
                rows.get(dead.key),
                changes.gateway,
                AlertStatus.FIRING,
                Target(dead.id, cause),
                changes.at,
                self._policy.backoff,
                AskedBy.PROBE,
            )
            if raised is not None:
                changes.raises.append(raised)

    # The end of each transaction.

    def _store(self, changes: RowChanges) -> None:
        """Store the changes, and write the log's lines before the commit.

        A hook that dies in between leaves a surplus line rather than none.
        """
        lines = _lines(changes)
        store_changes(self._name, changes)
        if self._policy.audits:
            self._want_audits(changes)
        if lines:
            self._events.write_all(lines)

    def _want_audits(self, changes: RowChanges) -> None:
        """Queue audits of channels that recovered, or stay silent although reconnected."""
        threshold = self._policy.silence_threshold
        wishes = [
            wish_after(one.channel, one.accepted_at, threshold if one.cause in SILENCES else None)
            for one in changes.entries
            if one.listed and one.outcome in {*RECOVERIES, Outcome.REQUESTED}
        ]
        want_audits(changes.connection, self._name, wishes, changes.at)


def _rank(one: Ready) -> tuple[float, ...]:
    """Return the sort key: sessions that fail, or have dropped together and will, come last.

    Of probes and flapping channels, which come again and again, the longest wait comes first.
    """
    row = one.row
    again = row.called_at is not None and row.since < row.called_at + _FLAPPING_SECONDS
    is_old_first = again or row.intent is Intent.PROBE
    return -row.intent, row.failures, is_old_first, row.since if is_old_first else -row.since


def _lines(changes: RowChanges) -> list[Mapping[str, object]]:
    """Return the lines for the event log; a probe that passed has none."""
    lost = [one for one in changes.probes if one[1].outcome is not ProbeOutcome.PASSED]
    return [
        *(entry.as_line() for entry in changes.entries),
        *(finding.as_line(channel, seconds) for channel, finding, seconds in lost),
        *({"channel": channel, "warning": _RESTARTS} for channel in changes.restarts),
    ]


def _answer_step(answer: CallAnswer) -> tuple[StepKind, str]:
    """Return the step of a call's answer, with the gateway's error message."""
    if answer.is_fault:
        return StepKind.FAILED, "internal error"
    if answer.error is not None:
        return StepKind.FAILED, words(answer.error)
    return StepKind.ANSWERED, "done" if answer.kind is None else answer.kind.name.lower()


def _as_fault(one: Called | ProbeAnswer) -> Called | ProbeAnswer:
    """Return the answer as if the hook itself had failed."""
    if isinstance(one, Called):
        return replace(one, answer=CallAnswer(is_fault=True))
    return replace(one, finding=UnableError("internal error"), steps=())


def _is_as_judged(row: ChannelRow, judged: ChannelRow, at: float) -> bool:
    """Whether a row is unchanged since its evaluation."""
    return (
        row.next_at is not None
        and (row.phase, row.epoch, row.intent) == (judged.phase, judged.epoch, judged.intent)
        and not (row.is_paused(at) and not judged.is_paused(at))
    )
