"""Decisions on open rows, from looks and from answers to calls; no side effects beside the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconnect_hook.event_log import LogEntry
from reconnect_hook.models import (
    FAILURES,
    IN_HAND,
    LONGEST_DUE_SECONDS,
    RECOVERIES,
    ROUND_SECONDS,
    SILENCES,
    STALE_SECONDS,
    Action,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    Outcome,
    Phase,
    ProbeOutcome,
    RepairCause,
    Step,
)
from zapwatch.channels import Channel, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, Operation, QrKind

STUCK_SECONDS = 120.0
"""A session that is still starting after this time is stuck."""

STARTING_SECONDS = 60.0
"""Time for a session to start before its verification begins."""

RESTART_AFTER = 2
"""Consecutive repairs without effect before a session may be recreated."""

CREATE_TRIES = 6
CREATE_PAUSE = 5.0
"""Seconds between two tries."""

_QR_PAUSE = 5.0  # seconds between two getQr calls to a starting session
_START_PAUSE = 2.0  # seconds needed after start-session, as WPPConnect documents
_PROVE_AFTER = 10.0  # seconds to wait for a message before the probe
_BROKEN_SECONDS = 3600.0  # validity of a probe's finding that delivery is broken
_ALERT_SECONDS = 30.0  # delay of an alert on its way to the hook
_COMPARING = frozenset({ProbeKind.DELIVERY, ProbeKind.ECHO})
# After these errors the call may have worked, or still may.
_UNCERTAIN = frozenset(
    {GatewayErrorKind.TIMEOUT, GatewayErrorKind.CONNECTION, GatewayErrorKind.HTML}
)
_OF_THE_WHOLE = _UNCERTAIN | {
    GatewayErrorKind.TLS,
    GatewayErrorKind.UNAUTHORIZED,
    GatewayErrorKind.LIMIT,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One look's result for a channel.

    ``look`` is the look's number, ``channel`` is None if not listed, ``age`` the seconds since the
    last message, None if unknown.
    """

    look: int
    channel: Channel | None
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings and the gateway's capabilities, on which decisions depend."""

    backoff: Backoff
    verify_seconds: float
    silence_threshold: Callable[[Channel], float]
    reconnect_action: Action
    allow_restart: bool = False
    keeps_channel: bool = False
    lists_qr: bool = True
    probe_kind: Callable[[Channel], ProbeKind] = lambda _channel: ProbeKind.OFF
    probe_after: float = 0.0
    """Seconds of silence after which a channel may be probed."""
    starting_hint: str = ""
    """Most likely fault of a session that never finishes starting."""
    probe_pause: float = 900.0
    """Seconds between two probes of one channel."""
    audits: bool = False
    """Whether an audit follows a repair."""


@dataclass(frozen=True, slots=True)
class InHand:
    """No action: this leader's call or probe is in progress."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No action yet; if ``until`` is None, each look decides again.

    ``sleeps``: no earlier look can change the decision.
    """

    until: float | None = None
    sleeps: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """The time to start is over: begin the verification."""


@dataclass(frozen=True, slots=True)
class MakeCall:
    """A call; ``silent``: listed as connected, ``stuck``: starting for STUCK_SECONDS."""

    step: Step
    silent: bool = False
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe; ``proof``: verifies a repair, ``resumes``: continues an earlier probe."""

    proof: bool = False
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The recorded end of a repair."""

    outcome: Outcome
    status: Status | None = None
    detail: str = ""
    action: Action | None = None
    """None: the strongest call made."""
    listed: bool = True
    """Whether the gateway lists the channel."""
    retries: bool = True
    """Whether a failure is retried without a new alert."""
    of_the_whole: bool = False
    """Whether the whole gateway failed."""


@dataclass(frozen=True, slots=True)
class Close:
    """An end without a record; ``well``: connected, ``heard``: a message arrived."""

    well: bool = True
    heard: bool = False


Decision = InHand | Wait | Verify | MakeCall | Probe | End | Close


def decide(
    row: ChannelRow, seen: Seen, gateway: GatewayRow, policy: Policy, now: float
) -> Decision:
    """Return the decision on an open row, from a look's result for its channel."""
    phase = phase_now(row, gateway)
    if phase in IN_HAND:
        return InHand()
    channel = seen.channel
    if channel is None:
        return _decide_absent(row, phase, gateway, policy, now)
    if phase is Phase.RESTARTING:
        return _decide_restarting(row, channel, now)
    if phase is not Phase.IDLE:
        return _decide_called(row, phase, seen, channel, policy, now)
    wants_call = row.cause in SILENCES or _is_by_hand(row) or not channel.connected
    if row.intent >= Intent.REPAIR and not channel.repairable and wants_call:
        detail = "this gateway has no session of it that could be reconnected"
        return End(Outcome.FAILED, channel.status, detail, Action.NONE, retries=False)
    if channel.connected:
        return _decide_connected(row, seen, channel, gateway, policy, now)
    if row.intent < Intent.REPAIR:
        return Close(well=False)
    starting = channel.status is Status.INITIALIZING
    if starting:
        stuck_at = (row.starting_since or now) + STUCK_SECONDS
        if now < stuck_at:
            return Wait(stuck_at)
    return _call_or_wait(
        row, gateway, policy, now, MakeCall(Step.RECONNECT, stuck=starting), channel.status
    )


def _is_by_hand(row: ChannelRow) -> bool:
    """Whether an operator wants a call although the channel is listed as connected."""
    is_manual = row.intent is Intent.REPAIR and row.cause is RepairCause.MANUAL
    return is_manual or row.intent is Intent.FORCE


def phase_now(row: ChannelRow, gateway: GatewayRow) -> Phase:
    """Return the effective phase: calls and probes of an earlier leader are void."""
    is_mine = row.epoch == gateway.epoch
    match row.phase:
        case Phase.CALLING if not is_mine:
            # If a call was answered already, the repair continues until its deadline.
            return Phase.IDLE if row.deadline is None else Phase.STARTING
        case Phase.PROVING if not is_mine:
            return Phase.VERIFYING
        case Phase.PROBING if not is_mine or row.intent > Intent.PROBE:
            return Phase.IDLE
        case phase:
            return phase


def _decide_absent(
    row: ChannelRow, phase: Phase, gateway: GatewayRow, policy: Policy, now: float
) -> Decision:
    """Create the session that a restart has deleted; other channels are unknown."""
    if phase is Phase.RESTARTING:
        waits = row.step is Step.CREATE and row.deadline is not None and now < row.deadline
        return Wait(row.deadline) if waits else MakeCall(Step.CREATE)
    if row.restarting and row.phase is Phase.CALLING:
        return MakeCall(Step.CREATE)  # its leader died between the two calls
    if row.restarting:
        return _call_or_wait(row, gateway, policy, now, MakeCall(Step.CREATE), None)
    # The row of a paused channel stays, and is rechecked each hour.
    is_kept = row.intent is Intent.RECHECK and row.is_paused(now)
    if row.intent is Intent.PROBE or is_kept:
        return Close(well=False)
    return End(Outcome.UNKNOWN_CHANNEL, listed=False)


def _decide_restarting(row: ChannelRow, channel: Channel, now: float) -> Decision:
    if row.step is Step.CREATE:
        return MakeCall(Step.RECONNECT)  # it worked despite its error
    if row.deadline is None or now >= row.deadline:
        detail = "the session was to be thrown away, and is still listed"
        return End(Outcome.FAILED, channel.status, detail)
    return Wait()


def _decide_called(
    row: ChannelRow, phase: Phase, seen: Seen, channel: Channel, policy: Policy, now: float
) -> Decision:
    """Evaluate a repair whose call was answered."""
    if seen.look <= row.called_in:
        return Wait()  # the list is older than the call
    status = channel.status
    if channel.connected:
        return _decide_proof(row, seen, channel, policy, now)
    if status is Status.QR_REQUIRED:
        return End(Outcome.QR_REQUIRED, status)
    if phase is Phase.STARTING:
        return _decide_starting(row, status, policy, now)
    if not _is_over(row, now):
        return Wait()
    may_restart = policy.allow_restart and not row.is_paused(now)
    # Once per repair.
    if may_restart and row.stuck >= RESTART_AFTER and row.action is not Action.RESTART:
        return MakeCall(Step.DELETE)
    hint = policy.starting_hint if status is Status.INITIALIZING else ""
    return End(Outcome.STILL_DISCONNECTED, status, hint)


def _is_over(row: ChannelRow, now: float) -> bool:
    return row.deadline is None or now >= row.deadline


def _decide_proof(
    row: ChannelRow, seen: Seen, channel: Channel, policy: Policy, now: float
) -> Decision:
    """Evaluate a channel listed as connected after its call; a silent one needs more proof."""
    reconnected = End(Outcome.RECONNECTED, channel.status)
    if not row.silent:
        return reconnected
    called_at = row.called_at or now
    # One more second, since the log's times are truncated to seconds.
    if seen.age is not None and seen.age <= now - (row.asked_at or called_at) + 1:
        return reconnected
    waits = row.tries or now < called_at + min(_PROVE_AFTER, policy.verify_seconds)
    if not (waits or row.is_paused(now)) and policy.probe_kind(channel) is not ProbeKind.OFF:
        return Probe(proof=True)
    if not _is_over(row, now):
        return Wait()
    return End(Outcome.REQUESTED, channel.status)


def _decide_starting(row: ChannelRow, status: Status, policy: Policy, now: float) -> Decision:
    if _is_over(row, now):
        return Verify()
    begun = row.step in {Step.START, Step.CREATE}
    pause = _START_PAUSE if begun else _QR_PAUSE
    starts = status is Status.INITIALIZING
    waits = (starts and policy.lists_qr) or row.is_paused(now)
    if waits or now < (row.called_at or now) + pause:
        return Wait()
    return MakeCall(Step.RECONNECT if row.step is Step.CREATE and not starts else Step.QR)


def _decide_connected(
    row: ChannelRow,
    seen: Seen,
    channel: Channel,
    gateway: GatewayRow,
    policy: Policy,
    now: float,
) -> Decision:
    """Evaluate a channel listed as connected, without a repair in progress."""
    if row.intent is Intent.PROBE:
        return _decide_probe(row, seen, channel, policy, now)
    if _is_by_hand(row):
        call = MakeCall(Step.RECONNECT, silent=row.cause in SILENCES)
        return _call_or_wait(row, gateway, policy, now, call, channel.status)
    recovered = End(Outcome.RECOVERED, channel.status, action=Action.NONE)
    if row.intent is Intent.RECHECK or row.cause not in SILENCES:
        stale_until = (row.seen_at or 0.0) + STALE_SECONDS
        if row.has_episode or not (row.intent is Intent.RECHECK or _is_stale(row, policy)):
            return recovered
        return Wait(stale_until) if now < stale_until else Close()
    if _is_delivery_broken(row, seen, channel, policy, now):
        return Close(well=False)
    came_back = row.attempts > 0 and row.last_status not in {None, Status.CONNECTED}
    lately = min(now - row.since + _ALERT_SECONDS, policy.silence_threshold(channel))
    if came_back or (seen.age is not None and seen.age <= lately):
        return recovered
    if _is_just_reconnected(row, channel, policy, now):
        return Close(well=False)
    call = MakeCall(Step.RECONNECT, silent=True)
    return _call_or_wait(row, gateway, policy, now, call, channel.status)


def _is_delivery_broken(
    row: ChannelRow, seen: Seen, channel: Channel, policy: Policy, now: float
) -> bool:
    """Whether the last probe found a live session with a broken delivery.

    Probes continue while the channel is suspect, so an old finding is void.
    """
    if row.probe_outcome != ProbeOutcome.DELIVERY_BROKEN or row.probe_ended_at is None:
        return False
    ago = now - row.probe_ended_at
    heard = seen.age is not None and seen.age < ago
    asked = policy.probe_kind(channel) in _COMPARING
    return asked and not heard and ago < max(_BROKEN_SECONDS, 2 * policy.probe_pause)


def _is_just_reconnected(row: ChannelRow, channel: Channel, policy: Policy, now: float) -> bool:
    """Whether the last reconnection is a silence threshold old at most, and the last probe passed.

    Until its gateway receives a message, a channel with a broken delivery looks like a quiet one,
    and a further reconnection would not help.
    """
    if row.asked_at is None or row.called_at is None or row.probe_ended_at is None:
        return False
    passed = row.probe_outcome == ProbeOutcome.PASSED and row.probe_ended_at >= row.asked_at
    if not passed or policy.probe_kind(channel) not in _COMPARING:
        return False
    return now < row.called_at + policy.silence_threshold(channel)


def _is_stale(row: ChannelRow, policy: Policy) -> bool:
    """Whether the intent probably belongs to the previous, recorded episode."""
    seen_at, called_at = row.seen_at, row.called_at
    if seen_at is not None and row.since < seen_at + STALE_SECONDS:
        return True
    return called_at is not None and row.since < called_at + policy.backoff.delay(row.attempts)


def _decide_probe(
    row: ChannelRow, seen: Seen, channel: Channel, policy: Policy, now: float
) -> Decision:
    lately = min(now - row.since + _ALERT_SECONDS, policy.probe_after)
    by_hand = row.cause is RepairCause.ASKED
    heard = seen.age is not None and seen.age <= lately
    if policy.probe_kind(channel) is ProbeKind.OFF or (heard and not by_hand):
        return Close(well=False, heard=heard)
    if row.is_paused(now):
        return _wait_for_resume(row, now)
    postponed = row.step is Step.POSTPONED
    if postponed and row.deadline is not None and now < row.deadline:
        return Wait(row.deadline)
    resumes = postponed or row.phase is Phase.PROBING
    if not (by_hand or resumes) and row.probe_began_at is not None:
        allowed_at = row.probe_began_at + policy.probe_pause
        if now < allowed_at:
            return Wait(allowed_at)
    return Probe(resumes=resumes)


def _call_or_wait(
    row: ChannelRow,
    gateway: GatewayRow,
    policy: Policy,
    now: float,
    call: MakeCall,
    status: Status | None,
) -> Decision:
    if row.is_paused(now):
        return _wait_for_resume(row, now)
    allowed_at = policy.backoff.call_allowed_at(row, gateway, status=status)
    return call if now >= allowed_at else Wait(allowed_at)


def _wait_for_resume(row: ChannelRow, now: float) -> Wait:
    latest = now + LONGEST_DUE_SECONDS
    return Wait(latest if row.paused_until is None else min(row.paused_until, latest), sleeps=True)


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """The result of a call: the session's state, or the error."""

    kind: QrKind | None = None
    error: GatewayError | None = None
    is_fault: bool = False
    """Whether the hook itself failed."""


@dataclass(frozen=True, slots=True)
class Enter:
    """The next phase of a repair after an answered call."""

    phase: Phase
    step: Step
    deadline: float | None
    tries: int = 0


def after_call(
    row: ChannelRow, answer: CallAnswer, policy: Policy, now: float
) -> Enter | MakeCall | End:
    """Return the next step after the answer to the call ``row.step``."""
    error, step = answer.error, row.step or Step.RECONNECT
    if step is Step.DELETE:
        return _after_delete(error, policy, now)
    if step is Step.CREATE:
        return _after_create(row, error, now)
    if error is not None:
        return _failed(error)
    starting_until = row.deadline if row.deadline is not None else now + STARTING_SECONDS
    if step is Step.START:
        return Enter(Phase.STARTING, Step.START, starting_until, row.tries)
    match answer.kind:
        case QrKind.QR:
            return End(Outcome.QR_REQUIRED, Status.QR_REQUIRED)
        case QrKind.NOT_STARTED if not row.tries:
            return MakeCall(Step.START)
        case QrKind.NOT_STARTED:
            detail = "session not started, although start-session was accepted"
            return End(Outcome.FAILED, detail=detail)
        case QrKind.INITIALIZING:
            return Enter(Phase.STARTING, step, starting_until, row.tries)
        case _:
            return Enter(Phase.VERIFYING, step, now + policy.verify_seconds)


def _after_delete(error: GatewayError | None, policy: Policy, now: float) -> MakeCall | Enter | End:
    if error is None:
        return MakeCall(Step.CREATE)
    if policy.keeps_channel:
        return _failed(error)  # still listed, so a retry is possible
    # It may have worked, or still may: then the channel leaves the list.
    seconds = policy.verify_seconds if error.reason in _UNCERTAIN else 0.0
    return Enter(Phase.RESTARTING, Step.DELETE, now + seconds)


def _failed(error: GatewayError) -> End:
    whole = is_of_the_whole(error)
    return End(Outcome.FAILED, detail=words(error), of_the_whole=whole)


def _after_create(row: ChannelRow, error: GatewayError | None, now: float) -> Enter | End:
    if error is None:
        return Enter(Phase.STARTING, Step.CREATE, now + STARTING_SECONDS)
    if row.tries + 1 < CREATE_TRIES:
        return Enter(Phase.RESTARTING, Step.CREATE, now + CREATE_PAUSE, row.tries + 1)
    return End(Outcome.FAILED, detail=words(error), listed=False)


def conclude(
    row: ChannelRow,
    end: End,
    look: int | None,
    gateway: GatewayRow,
    policy: Policy,
    now: float,
    seconds: float = 0.0,
) -> LogEntry:
    """Update a row after a repair of so many ``seconds``, and return the repair's record.

    ``look`` is the number of the look behind ``end``: intents raised since stay open. None means
    that a call is behind it, which serves all intents raised until its end.
    """
    action = end.action or row.action
    entry = LogEntry(
        row.key,
        row.channel,
        end.listed,
        row.cause,
        row.asked_by,
        row.since,
        row.attempts + 1,
        action,
        end.outcome,
        end.detail[:500],
        seconds,
    )
    failed, recovered = end.outcome in FAILURES, end.outcome in RECOVERIES
    row.last_status, row.last_cause = end.status, row.cause
    if recovered:
        row.attempts = row.failures = row.stuck = 0
        row.qr_required = row.restarting = False
    else:
        row.attempts += 1
        row.failures += failed
        row.qr_required = row.qr_required or end.outcome is Outcome.QR_REQUIRED
        row.stuck = row.stuck + 1 if end.outcome is Outcome.STILL_DISCONNECTED else row.stuck
    if end.outcome is Outcome.QR_REQUIRED:
        row.stuck, row.restarting = 0, False
    if action is not Action.NONE or failed:
        row.called_at = now
        row.called_in = max(row.called_in, look or 0)
    elif recovered:
        row.seen_at = now
    if action is not Action.NONE or recovered:
        row.suspended = False  # repaired: echoes are allowed again
    close(row, look, gateway, policy, now, well=recovered)
    if failed and end.retries and policy.backoff.retries(row.attempts):
        if row.cause is RepairCause.MANUAL:
            row.cause = RepairCause.DISCONNECTED  # MANUAL would call it even if it is back
        _reopen(row, Intent.REPAIR, AskedBy.RETRY, gateway, policy, now)
    return entry


def close(
    row: ChannelRow,
    look: int | None,
    gateway: GatewayRow,
    policy: Policy,
    now: float,
    *,
    well: bool,
) -> None:
    """Close a row, except for an intent raised since the ``look`` began."""
    intent = row.intent
    row.phase, row.step, row.deadline, row.tries = Phase.IDLE, None, None, 0
    row.action, row.silent, row.starting_since = Action.NONE, False, None
    row.intent, row.next_at = Intent.NONE, None
    if look is None or row.raised_in < look:
        return
    if intent >= Intent.REPAIR:
        row.cause = RepairCause.DISCONNECTED
        intent = Intent.REPAIR
    _reopen(row, intent, row.asked_by, gateway, policy, now)
    if well:
        row.next_at = now + STALE_SECONDS


def _reopen(
    row: ChannelRow,
    intent: Intent,
    asked_by: AskedBy,
    gateway: GatewayRow,
    policy: Policy,
    now: float,
) -> None:
    row.intent, row.asked_by, row.since = intent, asked_by, now
    allowed_at = policy.backoff.call_allowed_at(row, gateway)
    row.next_at = max(now, min(allowed_at, now + ROUND_SECONDS))


def is_of_the_whole(error: GatewayError) -> bool:
    """Whether the whole gateway failed, and not one session.

    A failed list always counts, as do failures of network, proxy and secret; the gateway's own JSON
    concerns the requested session.
    """
    of_the_whole = error.reason in _OF_THE_WHOLE and not error.one_channel
    return error.operation is Operation.LIST or of_the_whole


def words(error: GatewayError) -> str:
    """Return an error's text for the log, with its request id."""
    return f"{error} (request {error.request_id})"
