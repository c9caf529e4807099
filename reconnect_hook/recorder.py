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
    LogEntry,
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
from reconnect_hook.event_log import UNABLE, AttemptKind, AttemptSteps, EventLog, NewSteps, StepKind
from reconnect_hook.message_audit import want_audits, wish_after
from reconnect_hook.models import (
    IN_HAND,
    LEASE_SECONDS,
    RECOVERIES,
    ROUND_SECONDS,
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
    append_attempts,
    append_log,
    delete_rows,
    raise_intents,
    read_rows,
    store_gateway,
    store_rows,
)
from reconnect_hook.schema import channel as channel_table
from reconnect_hook.workers import Called, Listed, ProbeAnswer, UnreadableError
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
_FAULT_SECONDS = 60.0  # until a row that met a fault of the hook is evaluated again
_LONGEST_POSTPONEMENT = 590.0  # below models.PHASE_SECONDS, where clamp() ends a deadline
# A separate generator: other users of ``random`` may depend on their own sequence.
_chance = random.Random()  # noqa: S311 - only spreads retries


@dataclass(frozen=True, slots=True)
class Ready:
    """A row that awaits a free worker for its call or probe."""

    row: ChannelRow
    decision: MakeCall | Probe
    channel: Channel


@dataclass(slots=True)
class Room:
    """Free slots for calls and probes."""

    calls: int
    probes: int


@dataclass(slots=True)
class RowChanges:
    """The changes of one transaction, and the work that follows its commit."""

    at: float
    gateway: GatewayRow
    rows: dict[str, ChannelRow] = field(default_factory=dict)
    """All locked rows by key, changed or not."""
    deleted: set[str] = field(default_factory=set)
    entries: list[LogEntry] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)
    claimed: list[Ready] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    """Keys of the ready rows that were claimed, or have changed since their evaluation."""
    probes: list[tuple[str, Finding, float]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Keys of the probes to cancel."""
    next_at: float | None = None
    """After judge(): when the next look is due, None without open rows."""
    attempts: NewSteps = field(init=False)

    def __post_init__(self) -> None:
        """Start without steps."""
        self.attempts = NewSteps(self.at)


class Recorder:
    """One gateway's transactions, as functions for Lead.write(); not thread-safe."""

    def __init__(self, name: str, policy: Policy, events: EventLog, clock: Clock) -> None:
        self._name = name
        self._policy = policy
        self._events = events
        self._clock = clock
        self._ready: list[Ready] = []
        self._began: dict[str, float] = {}
        self._probe_began: dict[str, float] = {}
        self._attempts = AttemptSteps()

    @property
    def longest_wait(self) -> float:
        """Upper bound in seconds for the time until a row's next look."""
        return self._policy.backoff.longest

    def forget(self) -> None:
        """Reset the state of an ended lead."""
        self._ready = []
        self._began = {}
        self._attempts.forget()

    def committed(self, changes: RowChanges) -> None:
        """Apply a committed transaction's steps, and drop its claimed rows from the ready ones."""
        self._attempts.commit(changes.attempts)
        if changes.taken:
            self._ready = [one for one in self._ready if one.row.key not in changes.taken]

    def note_failed_list(
        self, error: GatewayError, connection: sa.Connection, gateway: GatewayRow, at: float
    ) -> RowChanges:
        """Record a failed list; it shows nothing about channels, so no row changes."""
        after = gateway.after_failure(at)
        store_gateway(connection, self._name, gateway, after)
        if not gateway.failures:
            self._events.write(action="list", outcome=Outcome.FAILED, detail=words(error))
        if after.is_tripped:
            _log.warning(
                "gateway %s has failed %d times in a row: its circuit is open for %.0f s",
                self._name,
                after.failures,
                (after.rests_until or at) - at,
            )
        return RowChanges(at, after)

    # A look.

    def judge(
        self,
        listed: Listed,
        room: Room | None,
        in_hand: Collection[str],
        keys: Collection[str],
        connection: sa.Connection,
        gateway: GatewayRow,
        at: float,
    ) -> RowChanges:
        """Evaluate the open rows among ``keys``; ``in_hand`` are the workers' keys.

        ``room`` is None until the last chunk of a look.
        """
        changes = RowChanges(at, gateway.after_answer(at))
        # Drop this transaction's own entries if it is being retried after a conflict.
        again = set(keys)
        self._ready = [one for one in self._ready if one.row.key not in again]
        for row in self._lock(connection, changes, keys):
            if row.is_open:
                self._judge_row(changes, row, listed, in_hand)
        if room is not None:
            self._ready.sort(key=lambda one: (-one.row.intent, one.row.since))
            self.claim(connection, changes, room)
        self._store(connection, gateway, changes)
        if gateway.is_tripped:
            _log.warning("gateway %s answers again", self._name)
        moments = [row.next_at for row in changes.rows.values() if row.next_at is not None]
        changes.next_at = min(moments, default=None)
        return changes

    def _lock(
        self, connection: sa.Connection, changes: RowChanges, keys: Collection[str]
    ) -> list[ChannelRow]:
        """Return the rows with these keys, locked until the commit."""
        missing = [key for key in keys if key not in changes.rows]
        for key, row in read_rows(connection, self._name, missing, lock=True).items():
            row.clamp(changes.at, self.longest_wait)
            changes.rows[key] = row
        return [changes.rows[key] for key in keys if key in changes.rows]

    def _judge_row(
        self, changes: RowChanges, row: ChannelRow, listed: Listed, in_hand: Collection[str]
    ) -> None:
        is_mine = row.phase in IN_HAND and row.epoch == changes.gateway.epoch
        if is_mine and row.key not in in_hand:
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
            seen = Seen(listed.look, channel, listed.ages.get(row.key))
            if row.in_work and row.phase not in IN_HAND:
                status = channel.status if channel else "absent"
                changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.LISTED, status)
            decision = decide(row, seen, changes.gateway, self._policy, changes.at)
            if not isinstance(decision, InHand) and row.phase is Phase.PROBING:
                changes.cancelled.add(row.key)
            if isinstance(decision, MakeCall | Probe):
                about = channel or Channel(row.channel, Status.UNKNOWN)
                self._ready.append(Ready(row, decision, about))
                if row.next_at is not None:
                    row.next_at = min(row.next_at, changes.at)
            else:
                self._apply(changes, row, decision, listed.look)
        except Exception:  # noqa: BLE001
            _log.exception("channel %r met a fault of the hook itself", row.channel)
            row.restore()
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
                    row.seen_at, row.last_status = changes.at, decision.channel.status
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
        entry = conclude(row, end, look, changes.gateway, self._policy, changes.at)
        changes.entries.append(entry)
        self._attempts.end(
            changes.attempts, AttemptKind.REPAIR, row.key, entry.outcome, entry.detail
        )
        if end.of_the_whole:
            changes.gateway = changes.gateway.after_failure(changes.at)
        stays = row.is_open or row.is_paused(changes.at)
        if end.outcome is Outcome.UNKNOWN_CHANNEL and not stays:
            changes.deleted.add(row.key)

    # Claims.

    def claim(self, connection: sa.Connection, changes: RowChanges, room: Room) -> None:
        """Claim ready rows within ``room`` and the circuit breaker."""
        calls = min(room.calls, 1 if changes.gateway.is_tripped else room.calls)
        if changes.gateway.rests(changes.at):
            calls = 0
        calls -= sum(isinstance(one.decision, MakeCall) for one in changes.claimed)
        probes = room.probes
        chosen: list[Ready] = []
        for one in self._ready:
            if isinstance(one.decision, MakeCall) and calls > 0:
                calls -= 1
                chosen.append(one)
            elif isinstance(one.decision, Probe) and probes > 0 and self._may_probe(one):
                probes -= 1
                chosen.append(one)
        if not chosen:
            return
        taken = {one.row.key: one for one in chosen}
        for row in self._lock(connection, changes, taken):
            one = taken[row.key]
            if _is_as_judged(row, one.row, changes.at):
                self._note_claim(changes, row, one)
                self._begin(changes, row, one.decision)
                changes.claimed.append(replace(one, row=row))
        changes.taken |= taken.keys()

    @staticmethod
    def _note_claim(changes: RowChanges, row: ChannelRow, one: Ready) -> None:
        is_probe = isinstance(one.decision, Probe) and not one.decision.proof
        kind = AttemptKind.PROBE if is_probe else AttemptKind.REPAIR
        resumes = isinstance(one.decision, Probe) and one.decision.resumes
        if phase_now(row, changes.gateway) is Phase.IDLE and not resumes:
            changes.attempts.begin(kind, row.key, row.asked_by, row.since)
        changes.attempts.add(kind, row.key, StepKind.LISTED, one.channel.status)

    def drop_ready(self) -> None:
        """Drop the ready rows of the last look, which is too old."""
        self._ready = []

    def _may_probe(self, one: Ready) -> bool:
        """Whether this hook has not just probed it, by the monotonic clock: clocks may jump."""
        if one.row.cause is RepairCause.ASKED or one.decision != Probe():
            return True
        began = self._probe_began.get(one.row.key, float("-inf"))
        return self._clock.monotonic() - began >= self._policy.probe_pause

    def _begin(self, changes: RowChanges, row: ChannelRow, decision: MakeCall | Probe) -> None:
        """Set a row to the phase of a worker's call or probe."""
        at = changes.at
        phase = phase_now(row, changes.gateway)
        row.epoch = changes.gateway.epoch
        if isinstance(decision, Probe):
            row.phase = Phase.PROVING if decision.proof else Phase.PROBING
            if not decision.resumes:
                row.probe_began_at = at
                self._probe_began[row.key] = self._clock.monotonic()
            if decision.proof:
                row.suspended = False
            else:
                row.step = row.deadline = None
            row.next_at = at + LEASE_SECONDS
            return
        if phase is Phase.IDLE:
            row.deadline, row.tries, row.action = None, 0, Action.NONE
            row.silent = decision.silent
            self._began[row.key] = self._clock.monotonic()
        # If this leader dies, the next one looks when the lease expires.
        row.next_at = at + LEASE_SECONDS
        row.phase, row.step, row.asked_at = Phase.CALLING, decision.step, at
        changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.CALLED, decision.step)
        match decision.step:
            case Step.START:
                row.tries += 1
            case Step.DELETE:
                row.restarting, row.tries, row.deadline = True, 0, None
                changes.restarts.append(row.channel)
            case Step.CREATE:
                row.deadline = None
        if decision.step in {Step.DELETE, Step.CREATE}:
            row.action = Action.RESTART
        elif row.action is Action.NONE:
            row.action = self._policy.reconnect_action

    # Answers.

    def record(
        self,
        answers: Sequence[Called | ProbeAnswer],
        channels: Mapping[str, Channel],
        room: Room,
        connection: sa.Connection,
        gateway: GatewayRow,
        at: float,
    ) -> RowChanges:
        """Record the answers of calls and probes, and claim the next work.

        ``channels`` are those of the last list.
        """
        changes = RowChanges(at, gateway)
        self._lock(connection, changes, [one.key for one in answers])
        for one in answers:
            row = changes.rows.get(one.key)
            if row is None or row.epoch != gateway.epoch:
                continue
            if isinstance(one, Called):
                if row.phase is Phase.CALLING and row.step is one.step:
                    self._record_call(changes, row, one.answer, channels)
            elif row.phase is Phase.PROVING:
                self._record_proof(connection, changes, row, one)
            elif row.phase is Phase.PROBING and row.intent is Intent.PROBE:
                self._record_probe(connection, changes, row, one)
        self.claim(connection, changes, room)
        self._store(connection, gateway, changes)
        return changes

    def _record_call(
        self,
        changes: RowChanges,
        row: ChannelRow,
        answer: CallAnswer | None,
        channels: Mapping[str, Channel],
    ) -> None:
        at, listed = changes.at, channels.get(row.key)
        if answer is None:
            row.phase, row.next_at = Phase.IDLE, at + RETRY_SECONDS
            row.restarting = row.restarting and row.step is not Step.DELETE
            return
        changes.attempts.add(AttemptKind.REPAIR, row.key, *_answer_step(answer))
        if answer.is_fault:
            end = End(Outcome.FAILED, detail="fault of the hook", channel=row.channel)
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
        if enter.clears_restart:
            row.restarting = False
        if enter.phase is Phase.VERIFYING:
            changes.attempts.add(AttemptKind.REPAIR, row.key, StepKind.VERIFYING)

    def _record_proof(
        self, connection: sa.Connection, changes: RowChanges, row: ChannelRow, one: ProbeAnswer
    ) -> None:
        """Record a probe that verifies a repair; there is one per repair."""
        finding = one.finding
        self._note_steps(changes, AttemptKind.REPAIR, one)
        waits = row.deadline is not None and changes.at < row.deadline
        again = isinstance(finding, PostponedError) and waits
        row.phase, row.tries = Phase.VERIFYING, int(not again)
        row.next_at = changes.at
        if not isinstance(finding, Finding):
            return
        self._note_probe(connection, changes, row, finding, one.seconds)
        if finding.outcome is ProbeOutcome.FAILED:
            detail = f"after {row.action} too: {finding.detail}"
            end = End(Outcome.FAILED, Status.CONNECTED, detail, channel=row.channel)
        elif finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
            end = End(Outcome.RECONNECTED, Status.CONNECTED, channel=row.channel)
        else:
            return
        self._end(changes, row, end, None)
        row.suspended = any(each.key == row.key for each in finding.suspended)

    def _record_probe(
        self, connection: sa.Connection, changes: RowChanges, row: ChannelRow, one: ProbeAnswer
    ) -> None:
        at, finding = changes.at, one.finding
        self._note_steps(changes, AttemptKind.PROBE, one)
        if isinstance(finding, PostponedError | Interrupted):
            seconds = finding.seconds if isinstance(finding, PostponedError) else 0.0
            if isinstance(finding, QueryFailedOnceError):
                row.query_failed_at = at
            elif not isinstance(finding, UnreadableError):
                # Spread retries over the time that all waiting probes need.
                seconds *= 1 + _chance.random() * self._count_probes(connection)
            changes.attempts.add(AttemptKind.PROBE, row.key, StepKind.POSTPONED, str(finding))
            row.phase, row.step = Phase.IDLE, Step.POSTPONED
            row.deadline = row.next_at = at + min(seconds, _LONGEST_POSTPONEMENT)
            return
        close(row, None, changes.gateway, self._policy, at, well=False)
        row.query_failed_at = None
        if isinstance(finding, UnableError):
            self._end_probe(changes, row.key, UNABLE, str(finding))
        if isinstance(finding, Finding):
            self._end_probe(changes, row.key, finding.outcome, finding.detail)
            self._note_probe(connection, changes, row, finding, one.seconds)
            self._raise_repairs(connection, changes, row, finding)

    def _note_steps(self, changes: RowChanges, kind: AttemptKind, one: ProbeAnswer) -> None:
        """Record a probe's steps, converted to the database's clock."""
        offset = changes.at - self._clock.monotonic()
        steps = [step._replace(at=step.at + offset) for step in one.steps]
        changes.attempts.extend(kind, one.key, steps)

    def _end_probe(self, changes: RowChanges, key: str, outcome: str, detail: str) -> None:
        self._attempts.end(changes.attempts, AttemptKind.PROBE, key, outcome, detail)

    def _note_probe(
        self,
        connection: sa.Connection,
        changes: RowChanges,
        row: ChannelRow,
        finding: Finding,
        seconds: float,
    ) -> None:
        changes.probes.append((row.channel, finding, seconds))
        note_end(connection, self._name, row.key, finding.kind, finding.outcome, finding.suspended)
        if finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
            row.suspended = False
        row.suspended = row.suspended or any(each.key == row.key for each in finding.suspended)

    def _raise_repairs(
        self, connection: sa.Connection, changes: RowChanges, row: ChannelRow, finding: Finding
    ) -> None:
        """Raise repairs of channels that a probe proved dead, in the probe's final transaction."""
        cause = (
            RepairCause.PROBE_FAILED if finding.kind is ProbeKind.QUERY else RepairCause.ECHO_LOST
        )
        rows = read_rows(connection, self._name, [dead.key for dead in finding.dead])
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

    def _count_probes(self, connection: sa.Connection) -> int:
        row = channel_table.c
        query = sa.select(sa.func.count()).where(
            row.gateway == self._name, row.next_at.is_not(None), row.intent == int(Intent.PROBE)
        )
        return connection.scalar(query) or 0

    # The end of each transaction.

    def _store(self, connection: sa.Connection, before: GatewayRow, changes: RowChanges) -> None:
        """Store the changes, and write the log's lines before the commit.

        A hook that dies in between leaves a surplus line rather than none.
        """
        store_gateway(connection, self._name, before, changes.gateway)
        gone = changes.deleted
        stay = [row for key, row in changes.rows.items() if key not in gone]
        store_rows(connection, self._name, stay)
        delete_rows(connection, self._name, sorted(gone))
        append_log(connection, self._name, changes.entries, changes.at)
        append_attempts(connection, self._name, changes.attempts.ended)
        raise_intents(connection, self._name, changes.raises)
        if self._policy.audits:
            self._want_audits(connection, changes)
        self._write_lines(changes)

    def _want_audits(self, connection: sa.Connection, changes: RowChanges) -> None:
        """Queue audits of recovered channels."""
        threshold = self._policy.silence_threshold
        wishes = [
            wish_after(one.channel, one.accepted_at, threshold if one.cause.is_silence else None)
            for one in changes.entries
            if one.listed and one.outcome in RECOVERIES
        ]
        want_audits(connection, self._name, wishes, changes.at)

    def _write_lines(self, changes: RowChanges) -> None:
        lines: list[Mapping[str, object]] = [
            {
                "channel": entry.channel,
                "reason": entry.cause,
                "action": entry.action,
                "outcome": entry.outcome,
                "attempt": entry.attempt,
                "seconds": f"{self.seconds_of(entry):.1f}",
                "detail": entry.detail or None,
            }
            for entry in changes.entries
        ]
        lines += [
            {
                "channel": channel,
                "probe": finding.kind,
                "outcome": finding.outcome,
                "seconds": f"{seconds:.1f}",
                "detail": finding.detail or None,
            }
            for channel, finding, seconds in changes.probes
            if finding.outcome is not ProbeOutcome.PASSED
        ]
        lines += [{"channel": channel, "warning": _RESTARTS} for channel in changes.restarts]
        self._events.write_all(lines)

    def seconds_of(self, entry: LogEntry) -> float:
        """Return a repair's duration in seconds, 0 without a call."""
        began = self._began.get(entry.key)
        return 0.0 if began is None else self._clock.monotonic() - began

    def forget_repair(self, entry: LogEntry) -> None:
        """Drop the start time of a finished repair."""
        self._began.pop(entry.key, None)


def _answer_step(answer: CallAnswer) -> tuple[StepKind, str]:
    """Return the step of a call's answer, with the gateway's error message."""
    if answer.is_fault:
        return StepKind.FAILED, "fault of the hook"
    if answer.error is not None:
        return StepKind.FAILED, words(answer.error)
    return StepKind.ANSWERED, "done" if answer.kind is None else answer.kind.name.lower()


def _is_as_judged(row: ChannelRow, judged: ChannelRow, at: float) -> bool:
    """Whether a row is unchanged since its evaluation."""
    return (
        row.is_open
        and (row.phase, row.epoch, row.intent) == (judged.phase, judged.epoch, judged.intent)
        and not (row.is_paused(at) and not judged.is_paused(at))
    )
