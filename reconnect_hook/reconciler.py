"""One gateway's loop: its list is taken, every open row judged by it, and calls go to workers.

Whoever leads the gateway runs it; what waits is a row, and a thread is a call in flight.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import sqlalchemy as sa

from reconnect_hook.alerts import AlertStatus, RepairCause, Target
from reconnect_hook.audit_log import EventLog
from reconnect_hook.backoff import is_tripped, record_answer, record_failure
from reconnect_hook.context import (
    Interrupted,
    PostponedError,
    ProbeContext,
    QueryFailedOnceError,
    UnableError,
)
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
from reconnect_hook.dedup import ROUND_SECONDS, Raise, admit
from reconnect_hook.metrics import OfGateway
from reconnect_hook.models import (
    FAILURES,
    LEASE_SECONDS,
    Action,
    AskedBy,
    ChannelState,
    GatewayState,
    Intent,
    Outcome,
    Phase,
    Step,
)
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ProbeOutcome, note_end
from reconnect_hook.repository import (
    Lead,
    LostLeadError,
    append_log,
    delete_rows,
    next_look,
    raise_intents,
    read_open_rows,
    read_rows,
    store_gateway,
    store_rows,
    store_waits,
)
from reconnect_hook.schema import channel as channel_table
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.config.gateway import ProbeKind
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import Gateway, GatewayError
from zapwatch.messages.source import MessageSource
from zapwatch.messages.webhook_log import MessageLogError

_log = logging.getLogger("reconnect_hook")

RETRY_SECONDS = 2.0
"""Until a state that could not be written is tried again."""

LIST_PAUSE_SECONDS = 1.0
"""Between the answer to one list and the next one; a list that takes longer is asked less often."""

_FAULT_SECONDS = 60.0  # until what a fault of the hook itself has stopped is tried again
_LOG_AGAIN_SECONDS = 60.0  # until a message log that could not be read is tried again
_LONGEST_HORIZON = 3600.0  # seconds of messages that a look reads
_QUERY_TIME = (60.0, 600.0)  # after a query that failed, in which a second one counts
_SILENCES = [str(cause) for cause in RepairCause if cause.is_silence or cause.is_probe]
# Its own, since whoever else in this process draws numbers may count on what comes next.
_chance = random.Random()  # noqa: S311 - it only spreads

StartThread = Callable[[Callable[[], None]], None]
"""Runs something beside everything else; raises RuntimeError where the system has no thread."""


def start_thread(work: Callable[[], None]) -> None:
    """Run something in a thread that does not keep the program from ending."""
    threading.Thread(target=work, name="gateway-call", daemon=True).start()


@dataclass(frozen=True, slots=True)
class Polled:
    """What the scheduler has read of a gateway: its row, the soonest wish, and the moment."""

    gateway: GatewayState
    due_at: float | None
    at: float


@dataclass(frozen=True, slots=True)
class _Listed:
    look: int
    asked_at: float
    """By the monotonic clock, as is the next one."""
    answered_at: float
    channels: Mapping[str, Channel] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)
    error: GatewayError | None = None


@dataclass(frozen=True, slots=True)
class _Called:
    key: str
    answer: CallAnswer | None
    """None: there was no thread for it."""


@dataclass(frozen=True, slots=True)
class _Probed:
    key: str
    finding: Finding | Exception
    seconds: float


_Mail = _Listed | _Called | _Probed


@dataclass(frozen=True, slots=True)
class _Ready:
    """A row that is to be called or probed as soon as a worker is free."""

    row: ChannelState
    decision: MakeCall | Probe
    channel: Channel


@dataclass(slots=True)
class _Changes:
    """What one transaction changes, and what follows once it is committed."""

    at: float
    gateway: GatewayState
    rows: dict[str, ChannelState] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    entries: list[LogEntry] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)
    claimed: list[_Ready] = field(default_factory=list)
    probes: list[tuple[str, Finding, float]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)


class GatewayReconciler:
    """Repairs and probes one gateway's channels while it leads it; for one thread.

    ``start`` runs calls, ``wake`` is called from them when there is something for step() to do.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        client: Gateway,
        policy: Policy,
        probing: ProbeContext,
        messages: Callable[[Callable[[], Collection[Channel]]], MessageSource | None],
        events: EventLog,
        metrics: OfGateway,
        *,
        workers: int,
        wake: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        start: StartThread = start_thread,
    ) -> None:
        self.name = name
        self._database = database
        self._client = client
        self._policy = policy
        self._probing = probing
        self._messages = messages(self._latest_channels)
        self._events = events
        self._metrics = metrics
        self._workers = workers
        self._wake = wake
        self._clock = clock or Clock()
        self._start = start
        self._lead = Lead(database, name)
        self._mail: deque[_Mail] = deque()
        self._stopping = False
        self._latest: Mapping[str, Channel] | None = None
        self._given: _Listed | None = None
        self.failed_list: GatewayError | None = None
        """Why the last list failed, None where it did not."""
        self._list_seconds = 0.0
        self._answered_at = float("-inf")
        self._lead_not_before = float("-inf")
        self._probe_began: dict[str, float] = {}
        self._forget()

    def _forget(self) -> None:
        """Know nothing of the lead any more, and want nothing of what is under way."""
        for cancel in getattr(self, "_probes", {}).values():
            cancel.set()
        self._generation = object()
        self._pending: list[_Mail] = []
        self._rests_until = float("-inf")
        self._looking = False
        self._asked_at = float("-inf")
        self._due_at: float | None = None
        self._offset = 0.0
        self._renew_at = float("inf")
        self._ready: list[_Ready] = []
        self._calls: dict[str, float] = {}
        self._probes: dict[str, threading.Event] = {}
        self._began: dict[str, float] = {}

    # What the scheduler calls.

    @property
    def leads(self) -> bool:
        """Whether it leads the gateway, as far as it knows."""
        return self._lead.epoch is not None

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight."""
        return not self._calls

    @property
    def listed(self) -> Collection[str] | None:
        """The keys of the channels that the last look has found, None before the first."""
        return None if self._latest is None else self._latest.keys()

    def use_list(
        self,
        look: int,
        channels: Collection[Channel],
        ages: Mapping[str, float],
        asked_at: float,
        answered_at: float,
    ) -> None:
        """Begin with a list that was asked for after the look number ``look`` had begun.

        ``ages`` are the seconds since the last messages; the moments are monotonic.
        """
        by_key = {channel.key: channel for channel in channels}
        self._latest = by_key
        self._given = _Listed(look, asked_at, answered_at, by_key, ages)

    def forget_channels(self, names: Iterable[str]) -> None:
        """Publish nothing of channels any more."""
        for name in names:
            self._metrics.forget_channel(name)

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopping = True
        for cancel in self._probes.values():
            cancel.set()

    def give_back(self) -> None:
        """Give the lead back; raises StateError."""
        if self.leads:
            self._lead.give_back()
            self._forget()

    def step(self, polled: Polled | None) -> float:
        """Do what is due; return the seconds until more is, unless something comes in before.

        Raises StateError: then the same is done again by the next step.
        """
        moment = self._clock.monotonic()
        if polled is not None:
            self._due_at, self._offset = polled.due_at, polled.at - moment
        if not self.leads and not self._take_lead(polled, moment):
            return float("inf")
        try:
            self._handle_mail()
            if self._clock.monotonic() >= self._renew_at:
                self._lead.renew()
                self._renewed()
            if self._is_look_due():
                self._begin_look()
            elif self._has_nothing_to_do():
                self.give_back()
        except LostLeadError:
            _log.warning("another hook leads gateway %s now", self.name)
            self._forget()
            return RETRY_SECONDS
        return self._seconds_until_due()

    def _has_nothing_to_do(self) -> bool:
        if self._looking or self._calls or self._probes or self._mail:
            return False
        return self._due_at is None or self._rests()

    def _rests(self) -> bool:
        return self._clock.monotonic() < self._rests_until

    def _take_lead(self, polled: Polled | None, moment: float) -> bool:
        if polled is None or self._stopping or moment < self._lead_not_before:
            return False
        gateway, due_at = polled.gateway, polled.due_at
        if due_at is None or due_at > polled.at or gateway.is_led(polled.at):
            return False
        if gateway.rests(polled.at) or not self._lead.take(gateway):
            return False
        self._mail.clear()
        self._renewed()
        return True

    def _renewed(self) -> None:
        self._renew_at = self._clock.monotonic() + LEASE_SECONDS / 3

    def _pace(self) -> float:
        """Return the moment before which the list is not asked for again."""
        return self._answered_at + max(LIST_PAUSE_SECONDS, self._list_seconds)

    def _is_look_due(self) -> bool:
        moment = self._clock.monotonic()
        return (
            not (self._looking or self._stopping or self._rests())
            and self._due_at is not None
            and self._due_at <= moment + self._offset
            and moment >= self._pace()
        )

    def _seconds_until_due(self) -> float:
        moment = self._clock.monotonic()
        until = self._renew_at
        if self._due_at is not None and not self._looking:
            until = min(until, max(self._due_at - self._offset, self._pace()))
        return max(0.0, until - moment)

    def _post(self, generation: object, mail: _Mail) -> None:
        """Take what a thread has found out; of an earlier lead it is of no use any more."""
        if generation is self._generation:
            self._mail.append(mail)
            self._wake()

    def _handle_mail(self) -> None:
        """Handle what has come in; what could not be stored stays for the next step."""
        while self._mail:
            self._pending.append(self._mail.popleft())
        answers = [one for one in self._pending if not isinstance(one, _Listed)]
        if answers:
            self._record(answers)
            self._pending = [one for one in self._pending if isinstance(one, _Listed)]
        while self._pending:
            listed = self._pending[0]
            assert isinstance(listed, _Listed)  # noqa: S101 - the others are recorded
            self._judge(listed)
            self._pending = self._pending[1:]

    # A look.

    def _begin_look(self) -> None:
        """Commit the look's number, and only then ask for the list."""
        if self._given is not None:
            self._looking = True
            self._mail.append(self._given)
            self._given = None
            self._wake()
            return

        def work(
            connection: sa.Connection, gateway: GatewayState, at: float
        ) -> tuple[int, float | None] | None:
            if gateway.rests(at):
                return None
            return next_look(connection, self.name, gateway), self._horizon(connection, at)

        begun = self._lead.write(work)
        self._renewed()
        if begun is None:
            return  # another hook has just found that it fails
        self._looking = True
        look, horizon = begun
        try:
            self._start(partial(self._list, self._generation, look, horizon))
        except RuntimeError:
            _log.warning("the system allows no more threads: the list waits")
            self._looking, self._answered_at = False, self._clock.monotonic() + RETRY_SECONDS

    def _horizon(self, connection: sa.Connection, at: float) -> float | None:
        """Return of how many seconds the messages are wanted, None where none are."""
        row = channel_table.c
        began = sa.case(
            (row.phase.in_([Phase.IDLE.value, Phase.PROBING.value]), row.since), else_=row.asked_at
        )
        query = sa.select(sa.func.min(began)).where(
            row.gateway == self.name, row.next_at.is_not(None), row.cause.in_(_SILENCES)
        )
        since: float | None = connection.scalar(query) if self._messages else None
        if since is None:
            return None
        return min(max(0.0, at - since) + ROUND_SECONDS + 1, _LONGEST_HORIZON)

    def _list(self, generation: object, look: int, horizon: float | None) -> None:
        """Ask for the list, and for the messages that rows about silence are judged by."""
        asked_at = self._clock.monotonic()
        answer = _Listed(look, asked_at, asked_at)
        try:
            listed = self._client.list_channels().channels
            answer = replace(answer, channels={channel.key: channel for channel in listed})
            self._latest = answer.channels
        except GatewayError as error:
            answer = replace(answer, error=error)
        except Exception:  # noqa: BLE001
            _log.exception("the list met a fault of the hook itself")
            self._latest = None
        answered_at = self._clock.monotonic()
        if horizon is not None and answer.error is None and self._messages is not None:
            try:
                answer = replace(answer, ages=self._messages.recent(horizon).ages)
            except MessageLogError:
                pass  # nothing is known of messages, as where none has come
            except Exception:  # noqa: BLE001
                _log.exception("the messages met a fault of the hook itself")
        self._post(generation, replace(answer, answered_at=answered_at))

    def _latest_channels(self) -> Collection[Channel]:
        if self._latest is None:
            raise MessageLogError("the channel list could not be read")
        return self._latest.values()

    def _judge(self, listed: _Listed) -> None:
        """Judge all open rows by a list."""
        self._asked_at = listed.asked_at
        self._list_seconds = listed.answered_at - listed.asked_at
        self.failed_list = listed.error
        if listed.error is None:
            changes, open_rows = self._lead.write(partial(self._judge_rows, listed))
            self._due_at = min(
                (row.next_at for row in open_rows if row.next_at is not None), default=None
            )
        else:
            changes = self._lead.write(partial(self._note_failed_list, listed.error))
        self._looking, self._answered_at = False, self._clock.monotonic()
        self._committed(changes)

    def _note_failed_list(
        self, error: GatewayError, connection: sa.Connection, gateway: GatewayState, at: float
    ) -> _Changes:
        """Note that the list failed; it says nothing of a channel, so nothing ends."""
        after = record_failure(gateway, at)
        store_gateway(connection, self.name, gateway, after)
        if not gateway.failures:
            self._events.write(action="list", outcome=Outcome.FAILED, detail=words(error))
        if is_tripped(after):
            _log.warning(
                "gateway %s has failed %d times in a row: it is left alone for %.0f s",
                self.name,
                after.failures,
                (after.rests_until or at) - at,
            )
        return _Changes(at, after)

    def _judge_rows(
        self, listed: _Listed, connection: sa.Connection, gateway: GatewayState, at: float
    ) -> tuple[_Changes, list[ChannelState]]:
        changes = _Changes(at, record_answer(gateway, at))
        longest = self._policy.backoff.longest
        rows = [
            row.clamped(at, longest) for row in read_open_rows(connection, self.name, lock=True)
        ]
        ready: list[_Ready] = []
        for row in rows:
            channel = listed.channels.get(row.key)
            seen = Seen(listed.look, channel, listed.ages.get(row.key))
            try:
                self._note_listed(changes, row, channel, at)
                decision = decide(row, seen, changes.gateway, self._policy, at)
                if isinstance(decision, MakeCall | Probe):
                    wanted = channel or Channel(row.channel, Status.UNKNOWN)
                    ready.append(_Ready(row, decision, wanted))
                    if row.next_at is not None and row.next_at > at:
                        changes.waits[row.key] = at
                else:
                    self._apply(changes, row, decision, listed.look)
            except Exception:  # noqa: BLE001
                _log.exception("channel %r met a fault of the hook itself", row.channel)
                changes.waits[row.key] = at + _FAULT_SECONDS
        ready.sort(key=lambda one: (-one.row.intent, one.row.since))
        self._ready = ready
        self._claim(connection, changes)
        self._store(connection, gateway, changes)
        if is_tripped(gateway):
            _log.warning("gateway %s answers again", self.name)
        return changes, [row for row in rows if row.key not in changes.deleted]

    def _note_listed(
        self, changes: _Changes, row: ChannelState, channel: Channel | None, at: float
    ) -> None:
        """Note what a look tells of a channel whatever is decided."""
        starting = channel is not None and channel.status is Status.INITIALIZING
        since = (row.starting_since or at) if starting else None
        name = channel.id if channel else row.channel
        seen = row.listed or channel is not None
        if (row.starting_since, row.channel, row.listed) != (since, name, seen):
            row.starting_since, row.channel, row.listed = since, name, seen
            changes.rows[row.key] = row

    def _apply(
        self, changes: _Changes, row: ChannelState, decision: Decision, look: int | None
    ) -> None:
        """Change a row by what was decided, which is no call."""
        at, gateway = changes.at, changes.gateway
        if row.phase is Phase.PROBING and not isinstance(decision, InHand):
            self._cancel_probe(row.key)
        match decision:
            case Wait():
                self._apply_wait(changes, row, decision)
                return
            case Verify():
                row.phase, row.epoch = Phase.VERIFYING, gateway.epoch
                row.deadline = at + self._policy.verify_seconds
            case End():
                self._end(changes, row, decision, look)
            case Close():
                close(row, look, gateway, self._policy, at, well=decision.well)
                if decision.well:
                    row.seen_at, row.last_status = at, decision.channel.status
                if decision.heard:
                    row.suspended = False
            case _:
                return
        changes.rows[row.key] = row

    def _apply_wait(self, changes: _Changes, row: ChannelState, wait: Wait) -> None:
        phase = phase_now(row, changes.gateway)
        if phase is not row.phase:
            row.phase = phase
            changes.rows[row.key] = row
        if wait.until is None or row.next_at is None:
            return
        until = wait.until if wait.sleeps else min(wait.until, changes.at + ROUND_SECONDS)
        if row.next_at <= changes.at or row.next_at > until:
            row.next_at = changes.waits[row.key] = max(until, changes.at)

    def _end(self, changes: _Changes, row: ChannelState, end: End, look: int | None) -> None:
        changes.entries.append(conclude(row, end, look, changes.gateway, self._policy, changes.at))
        if end.of_the_whole:
            changes.gateway = record_failure(changes.gateway, changes.at)
        if end.outcome is Outcome.UNKNOWN_CHANNEL and not (row.is_open or row.paused):
            changes.deleted.add(row.key)

    # Claims.

    def _free_workers(self, gateway: GatewayState) -> int:
        most = 1 if is_tripped(gateway) else self._workers
        return most - len(self._calls)

    def _claim(self, connection: sa.Connection, changes: _Changes) -> None:
        """Claim as many of the ready rows as there are free workers, and no more."""
        longest = 3 * max(LIST_PAUSE_SECONDS, self._list_seconds) + 1
        is_stale = self._clock.monotonic() - self._asked_at > longest
        if self._stopping or not self._ready or is_stale:
            return
        calls = self._free_workers(changes.gateway) - sum(
            isinstance(one.decision, MakeCall) for one in changes.claimed
        )
        probes = self._workers - len(self._probes)
        chosen: list[_Ready] = []
        for one in self._ready:
            if isinstance(one.decision, MakeCall) and calls > 0:
                calls -= 1
                chosen.append(one)
            elif isinstance(one.decision, Probe) and probes > 0 and self._may_probe(one):
                probes -= 1
                chosen.append(one)
        rows = read_rows(connection, self.name, [one.row.key for one in chosen], lock=True)
        for one in chosen:
            row = rows.get(one.row.key)
            if row is not None and _is_as_judged(row, one.row, changes.at):
                row.starting_since, row.channel, row.listed = (
                    one.row.starting_since,
                    one.row.channel,
                    one.row.listed,
                )
                self._begin(changes, row, one.decision)
                changes.claimed.append(_Ready(row, one.decision, one.channel))
        taken = {one.row.key for one in chosen}
        self._ready = [one for one in self._ready if one.row.key not in taken]

    def _may_probe(self, one: _Ready) -> bool:
        """Whether this hook itself, whose clock may have jumped, has not just probed it."""
        if one.row.cause is RepairCause.ASKED or one.decision != Probe():
            return True
        began = self._probe_began.get(one.row.key, float("-inf"))
        return self._clock.monotonic() - began >= self._policy.probe_pause

    def _begin(self, changes: _Changes, row: ChannelState, decision: MakeCall | Probe) -> None:
        """Change a row to what it is while a worker is at it."""
        at = changes.at
        phase = phase_now(row, changes.gateway)
        changes.rows[row.key] = row
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
            return
        if phase is Phase.IDLE:
            row.deadline, row.tries, row.action = None, 0, Action.NONE
            row.silent = decision.silent
            self._began[row.key] = self._clock.monotonic()
        row.phase, row.step, row.asked_at, row.next_at = Phase.CALLING, decision.step, at, at
        if decision.step is Step.START:
            row.tries += 1
        elif decision.step is Step.DELETE:
            row.restarting, row.tries, row.deadline = True, 0, None
            changes.restarts.append(row.channel)
        elif decision.step is Step.CREATE:
            row.deadline = None
        if decision.step in {Step.DELETE, Step.CREATE}:
            row.action = Action.RESTART
        elif row.action is Action.NONE:
            row.action = self._policy.reconnect_action

    # Answers.

    def _record(self, answers: Sequence[_Called | _Probed]) -> None:
        """Record what calls and probes have found, and claim what comes next."""
        for one in answers:
            if isinstance(one, _Called):
                self._calls.pop(one.key, None)
            else:
                self._probes.pop(one.key, None)
        changes = self._lead.write(partial(self._record_answers, answers))
        self._committed(changes)
        if any(row.is_open for row in changes.rows.values()) or changes.raises:
            self._due_at = min(self._due_at or changes.at, changes.at)

    def _record_answers(
        self,
        answers: Sequence[_Called | _Probed],
        connection: sa.Connection,
        gateway: GatewayState,
        at: float,
    ) -> _Changes:
        changes = _Changes(at, gateway)
        rows = read_rows(connection, self.name, [one.key for one in answers], lock=True)
        longest = self._policy.backoff.longest
        for one in answers:
            row = rows.get(one.key)
            if row is None or row.epoch != gateway.epoch:
                continue
            row = row.clamped(at, longest)
            if isinstance(one, _Called) and row.phase is Phase.CALLING:
                self._record_call(changes, row, one.answer)
            elif isinstance(one, _Probed) and row.phase is Phase.PROVING:
                self._record_proof(connection, changes, row, one)
            elif (
                isinstance(one, _Probed)
                and row.phase is Phase.PROBING
                and row.intent is Intent.PROBE
            ):
                self._record_probe(connection, changes, row, one)
        self._claim(connection, changes)
        self._store(connection, gateway, changes)
        return changes

    def _record_call(self, changes: _Changes, row: ChannelState, answer: CallAnswer | None) -> None:
        at = changes.at
        changes.rows[row.key] = row
        if answer is None:
            row.phase, row.next_at = Phase.IDLE, at + RETRY_SECONDS
            return
        if answer.is_fault:
            end = End(Outcome.FAILED, detail="fault of the hook", channel=row.channel)
            self._end(changes, row, end, None)
            return
        if answer.error is None or not is_of_the_whole(answer.error):
            changes.gateway = record_answer(changes.gateway, at)
        follows = after_call(row, answer, self._policy, at)
        row.called_at, row.called_in, row.next_at = at, changes.gateway.look, at
        match follows:
            case End():
                if row.step is Step.DELETE and follows.outcome is Outcome.FAILED:
                    row.restarting = False
                listed = self._latest.get(row.key) if self._latest else None
                if follows.status is None and listed is not None:
                    follows = replace(follows, status=listed.status)
                self._end(changes, row, follows, None)
            case Enter():
                row.phase, row.step = follows.phase, follows.step
                row.deadline, row.tries = follows.deadline, follows.tries
                if follows.clears_restart:
                    row.restarting = False
            case MakeCall():
                channel = (self._latest or {}).get(row.key) or Channel(row.channel, Status.UNKNOWN)
                row.phase = Phase.STARTING
                self._begin(changes, row, follows)
                changes.claimed.append(_Ready(row, follows, channel))

    def _record_proof(
        self, connection: sa.Connection, changes: _Changes, row: ChannelState, one: _Probed
    ) -> None:
        """Take the finding of a probe that was to prove a repair, once."""
        finding = one.finding
        changes.rows[row.key] = row
        row.phase, row.tries = Phase.VERIFYING, int(not isinstance(finding, PostponedError))
        row.next_at = changes.at
        if not isinstance(finding, Finding):
            return
        changes.probes.append((row.channel, finding, one.seconds))
        note_end(connection, self.name, row.key, finding.kind, finding.outcome, finding.suspended)
        if finding.outcome is ProbeOutcome.FAILED:
            detail = f"after {row.action} too: {finding.detail}"
            end = End(Outcome.FAILED, Status.CONNECTED, detail, channel=row.channel)
            self._end(changes, row, end, None)
        elif finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
            end = End(Outcome.RECONNECTED, Status.CONNECTED, channel=row.channel)
            self._end(changes, row, end, None)
        row.suspended = row.suspended or any(each.key == row.key for each in finding.suspended)

    def _record_probe(
        self, connection: sa.Connection, changes: _Changes, row: ChannelState, one: _Probed
    ) -> None:
        at, finding = changes.at, one.finding
        changes.rows[row.key] = row
        if isinstance(finding, PostponedError):
            seconds = finding.seconds
            if isinstance(finding, QueryFailedOnceError):
                row.query_failed_at = at
            elif not isinstance(finding, _UnreadableError):
                # Spread over the time that all who wait will need.
                seconds *= 1 + _chance.random() * self._count_probes(connection)
            row.phase, row.step = Phase.IDLE, Step.POSTPONED
            row.deadline = row.next_at = at + min(seconds, 590.0)
            return
        if isinstance(finding, Interrupted):
            row.phase, row.step, row.deadline, row.next_at = (
                Phase.IDLE,
                Step.POSTPONED,
                at,
                at,
            )
            return
        close(row, None, changes.gateway, self._policy, at, well=False)
        row.query_failed_at = None
        if not isinstance(finding, Finding):
            return
        changes.probes.append((row.channel, finding, one.seconds))
        note_end(connection, self.name, row.key, finding.kind, finding.outcome, finding.suspended)
        if finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
            row.suspended = False
        row.suspended = row.suspended or any(each.key == row.key for each in finding.suspended)
        cause = (
            RepairCause.PROBE_FAILED if finding.kind is ProbeKind.QUERY else RepairCause.ECHO_LOST
        )
        others = read_rows(connection, self.name, [dead.key for dead in finding.dead])
        for dead in finding.dead:
            known = row if dead.key == row.key else others.get(dead.key)
            _, raised = admit(
                known,
                changes.gateway,
                AlertStatus.FIRING,
                Target(dead.id, cause),
                at,
                self._policy.backoff,
                AskedBy.PROBE,
            )
            if raised is not None:
                changes.raises.append(raised)

    def _count_probes(self, connection: sa.Connection) -> int:
        row = channel_table.c
        query = sa.select(sa.func.count()).where(
            row.gateway == self.name, row.next_at.is_not(None), row.intent == int(Intent.PROBE)
        )
        return connection.scalar(query) or 0

    # What each transaction ends with.

    def _store(self, connection: sa.Connection, before: GatewayState, changes: _Changes) -> None:
        """Store the changes, and write the log's lines before they are committed.

        A hook that dies in between leaves one line too many rather than none.
        """
        store_gateway(connection, self.name, before, changes.gateway)
        gone = changes.deleted
        store_rows(
            connection, self.name, [row for key, row in changes.rows.items() if key not in gone]
        )
        waits = {key: at for key, at in changes.waits.items() if key not in changes.rows}
        store_waits(connection, self.name, waits)
        delete_rows(connection, self.name, sorted(gone))
        append_log(connection, self.name, changes.entries, changes.at)
        raise_intents(connection, self.name, changes.raises)
        for entry in changes.entries:
            self._write_end(entry)
        for channel, finding, seconds in changes.probes:
            if finding.outcome is not ProbeOutcome.PASSED:
                self._events.write(
                    channel=channel,
                    probe=finding.kind,
                    outcome=finding.outcome,
                    seconds=f"{seconds:.1f}",
                    detail=finding.detail or None,
                )
        for channel in changes.restarts:
            self._events.write(
                channel=channel,
                warning="RECONNECT_ALLOW_RESTART throws the session away: the old pairing is lost, "
                "and somebody has to scan a new QR code",
            )

    def _write_end(self, entry: LogEntry) -> None:
        self._events.write(
            channel=entry.channel,
            reason=entry.cause,
            action=entry.action,
            outcome=entry.outcome,
            attempt=entry.attempt,
            seconds=f"{self._seconds_of(entry):.1f}",
            detail=entry.detail or None,
        )

    def _seconds_of(self, entry: LogEntry) -> float:
        began = self._began.get(entry.key)
        return 0.0 if began is None else self._clock.monotonic() - began

    def _committed(self, changes: _Changes) -> None:
        """Count what has ended, and start what was claimed."""
        self._renewed()
        rest = (changes.gateway.rests_until or 0.0) - changes.at
        if changes.gateway.rests(changes.at):
            # Another hook, which may have a way to the gateway, gets it first.
            self._rests_until = self._clock.monotonic() + rest
            self._lead_not_before = self._rests_until + RETRY_SECONDS
        for entry in changes.entries:
            self._metrics.count_repair(entry, self._seconds_of(entry))
            self._began.pop(entry.key, None)
            if entry.outcome in FAILURES:
                _log.warning("channel %r: %s %s", entry.channel, entry.outcome, entry.detail)
        for key in changes.deleted:
            self._metrics.forget_channel(changes.rows[key].channel if key in changes.rows else key)
        for channel, finding, seconds in changes.probes:
            self._metrics.count_probe(channel, finding.kind, finding.outcome, seconds)
        for one in changes.claimed:
            self._start_work(one, changes.at)

    def _start_work(self, one: _Ready, at: float) -> None:
        key, generation = one.row.key, self._generation
        try:
            if isinstance(one.decision, MakeCall):
                self._calls[key] = self._clock.monotonic()
                self._start(partial(self._call, generation, one.channel, key, one.decision))
            else:
                cancel = self._probes[key] = threading.Event()
                least, most = _QUERY_TIME
                ago = at - (one.row.query_failed_at or 0.0)
                failed = least <= ago <= most
                self._start(partial(self._probe, generation, one, cancel, failed=failed))
        except RuntimeError:
            _log.warning("the system allows no more threads: repairs wait for each other")
            self._mail.append(_Called(key, None))

    def _cancel_probe(self, key: str) -> None:
        if key in self._probes:
            self._probes.pop(key).set()

    # In a worker's thread.

    def _call(self, generation: object, channel: Channel, key: str, call: MakeCall) -> None:
        try:
            answer = self._ask(channel, call)
        except GatewayError as error:
            answer = CallAnswer(error=error)
        except Exception:  # noqa: BLE001
            # Unforeseen, but even then what was accepted ends in an outcome.
            _log.exception("a repair met a fault of the hook itself")
            answer = CallAnswer(is_fault=True)
        self._post(generation, _Called(key, answer))

    def _ask(self, channel: Channel, call: MakeCall) -> CallAnswer:
        client = self._client
        match call.step:
            case Step.RECONNECT:
                answer = client.reconnect(channel, silent=call.silent, stuck=call.stuck)
                return CallAnswer(answer.kind)
            case Step.QR:
                return CallAnswer(client.qr(channel.id).kind)
            case Step.START:
                client.start_session(channel.id)
            case Step.DELETE:
                client.delete(channel.id)
            case _:
                client.create(channel.id)
        return CallAnswer()

    def _probe(
        self, generation: object, one: _Ready, cancel: threading.Event, *, failed: bool
    ) -> None:
        began = self._clock.monotonic()

        def wait(seconds: float) -> None:
            if self._clock.wait(cancel, seconds):
                raise Interrupted

        context = replace(self._probing, wait=wait)
        proof = isinstance(one.decision, Probe) and one.decision.proof
        finding: Finding | Exception
        try:
            run = ProbeRun(
                context, one.channel, self._latest or {}, repaired=proof, query_failed=failed
            )
            finding = run.run(context.kind_of(one.channel))
        except MessageLogError as error:
            finding = _UnreadableError(str(error), _LOG_AGAIN_SECONDS)
        except (Interrupted, PostponedError, UnableError) as error:
            finding = error
        except Exception as error:  # noqa: BLE001
            if not isinstance(error, StateError):
                _log.exception("a probe met a fault of the hook itself")
            finding = _UnreadableError(str(error), _LOG_AGAIN_SECONDS)
        seconds = self._clock.monotonic() - began
        self._post(generation, _Probed(one.row.key, finding, seconds))


class _UnreadableError(PostponedError):
    """Something that the probe needs could not be read."""


def _is_as_judged(row: ChannelState, judged: ChannelState, at: float) -> bool:
    """Whether nobody has changed what a row was judged by."""
    return (
        row.is_open
        and (row.phase, row.epoch, row.intent) == (judged.phase, judged.epoch, judged.intent)
        and not (row.is_paused(at) and not judged.is_paused(at))
    )
