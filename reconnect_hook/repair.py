"""One repair from the first look to the proof that it worked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconnect_hook.alerts import RepairCause
from reconnect_hook.context import (
    PostponedError,
    ProbeContext,
    RepairContext,
    UnableError,
    is_of_the_whole,
    words,
)
from reconnect_hook.models import Action, Job, Outcome, Result
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ProbeOutcome
from zapwatch.channels import Channel, Status
from zapwatch.config.gateway import ProbeKind
from zapwatch.db import StateError
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.messages.webhook_log import MessageLogError

START_PAUSE = 2.0
"""Seconds that a session needs after start-session, as WPPConnect documents it."""

LOOK_PAUSE = 2.0
"""Seconds between two looks at the list or the log."""

_PROBE_AFTER = 10.0  # seconds in which a message may come by itself
_INITIALIZING_PAUSE = 5.0  # seconds until a browser that starts is asked again
_INITIALIZING_SECONDS = 60.0  # seconds until it is not asked any more


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it; the fields are those of Result."""

    outcome: Outcome
    status: Status | None
    detail: str = ""
    gateway_failed: bool = False


def ask(means: RepairContext, channel: Channel, *, silent: bool) -> Asked:
    """Reconnect, and watch: the log for a silent channel, the list for a disconnected one."""
    asked_at = means.clock.monotonic()
    try:
        kind = _ask_until_ready(means, channel, silent=silent)
    except GatewayError as error:
        return Asked(Outcome.FAILED, channel.status, words(error), is_of_the_whole(error))
    if kind is QrKind.QR:
        return Asked(Outcome.QR_REQUIRED, Status.QR_REQUIRED)
    if kind is QrKind.NOT_STARTED:
        detail = "session not started, although start-session was accepted"
        return Asked(Outcome.FAILED, channel.status, detail)
    if silent:
        began = means.clock.monotonic()
        asks = means.probing is not None and means.probing.kind_of(channel) is not ProbeKind.OFF
        first = min(_PROBE_AFTER, means.verify_seconds) if asks else means.verify_seconds
        if _wait_for_message(means, channel.key, asked_at, began + first):
            return Asked(Outcome.RECONNECTED, channel.status)
        verified = verify(means, channel, began + means.verify_seconds) if asks else None
        if verified is not None:
            return verified
        if asks and _wait_for_message(means, channel.key, asked_at, began + means.verify_seconds):
            return Asked(Outcome.RECONNECTED, channel.status)
    return _look_for_connected(means, channel.key, silent=silent)


def _ask_until_ready(means: RepairContext, channel: Channel, *, silent: bool) -> QrKind:
    """Begin to reconnect, ask until the answer says more than to wait, and return what it says."""
    give_up_at = means.clock.monotonic() + _INITIALIZING_SECONDS
    started = False
    kind = means.client.reconnect(channel, silent=silent).kind
    while True:
        if kind is QrKind.NOT_STARTED and not started:
            means.client.start_session(channel.id)
            started = True
            means.wait(START_PAUSE)
        elif kind is QrKind.INITIALIZING and means.clock.monotonic() < give_up_at:
            means.wait(_INITIALIZING_PAUSE)
        else:
            return kind
        kind = means.client.qr(channel.id).kind


def verify(means: RepairContext, channel: Channel, until: float) -> Asked | None:
    """Ask a channel that was reconnected whether it is alive; None where that shows nothing.

    ``until`` is the moment until which its echo waits for those of others.
    """
    assert means.probing is not None  # noqa: S101 - who asks has looked
    probing = replace(means.probing, wait=means.wait)
    try:
        listed = means.lists.next(means.clock.monotonic(), means.wait)
        now = listed.get(channel.key)
        if now is None or not now.connected:
            return None
        # It has been repaired: echoes may go to it again.
        probing.book.resume([channel.key])
        probing.book.begin(channel.key, now.id, None)
        began = means.clock.monotonic()
        finding = _examine(means, probing, now, listed, until)
        probing.book.end(channel.key, now.id, finding.kind, finding.outcome, finding.halted)
    except (GatewayError, MessageLogError, StateError, PostponedError, UnableError):
        return None
    means.count_probe(now.id, finding.kind, finding.outcome, means.clock.monotonic() - began)
    if finding.outcome is ProbeOutcome.FAILED:
        called = means.client.reconnect_call
        return Asked(Outcome.FAILED, now.status, f"after {called} too: {finding.detail}")
    if finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
        return Asked(Outcome.RECONNECTED, now.status)
    return None


def _examine(
    means: RepairContext,
    probing: ProbeContext,
    channel: Channel,
    listed: Mapping[str, Channel],
    until: float,
) -> Finding:
    while True:
        try:
            examination = ProbeRun(probing, channel, listed, repaired=True)
            return examination.run(probing.kind_of(channel))
        except PostponedError:
            if means.clock.monotonic() >= until:
                raise
            probing.wait(LOOK_PAUSE)


def _wait_for_message(means: RepairContext, key: str, asked_at: float, until: float) -> bool:
    """Watch the log until a moment; whether a message came since ``asked_at``."""
    # A second more, since the log's times are cut to whole seconds.
    while not means.heard_within(key, means.clock.monotonic() - asked_at + 1):
        if means.clock.monotonic() >= until:
            return False
        means.wait(LOOK_PAUSE)
    return True


def _look_for_connected(means: RepairContext, key: str, *, silent: bool) -> Asked:
    """Watch the list for as long as is set; a silent channel has had its time, so look once."""
    give_up_at = means.clock.monotonic() + (0 if silent else means.verify_seconds)
    while True:
        asked_at = means.clock.monotonic()
        status: Status | None = None
        detail = ""
        try:
            channel = means.lists.next(asked_at, means.wait).get(key)
            status = channel.status if channel else Status.UNKNOWN
        except GatewayError as error:
            detail = words(error)
        if status is Status.CONNECTED:
            return Asked(Outcome.REQUESTED if silent else Outcome.RECONNECTED, status)
        if status is Status.QR_REQUIRED:
            return Asked(Outcome.QR_REQUIRED, status)
        if means.clock.monotonic() >= give_up_at:
            if status is None:
                return Asked(Outcome.FAILED, None, detail, gateway_failed=True)
            hint = means.client.starting_hint if status is Status.INITIALIZING else ""
            return Asked(Outcome.STILL_DISCONNECTED, status, hint)
        means.wait(LOOK_PAUSE)


RESTART_AFTER_FAILURES = 2
"""So many repairs in a row must have failed before a session may be thrown away."""

_CREATE_TRIES = 6
_CREATE_PAUSE = 5.0  # seconds between two of them
# After these nobody knows whether the call worked, or still will.
_UNCERTAIN = frozenset(
    {GatewayErrorKind.TIMEOUT, GatewayErrorKind.CONNECTION, GatewayErrorKind.HTML}
)


def restart(means: RepairContext, job: Job, channel: Channel) -> Result | None:
    """Throw the pairing away and make a new session; None where the state could not note it."""
    if not means.begin_restart(job, channel.id):
        return None
    try:
        means.client.delete(channel.id)
    except GatewayError as error:
        if means.client.keeps_channel:
            # Nothing is missing from the list, and it can be tried again.
            return Result(
                channel.id,
                Outcome.FAILED,
                Action.RESTART,
                words(error),
                status=channel.status,
                gateway_failed=is_of_the_whole(error),
            )
        uncertain = error.reason in _UNCERTAIN
        if not _is_gone(means, channel.key, means.verify_seconds if uncertain else 0):
            return Result(
                channel.id,
                Outcome.FAILED,
                Action.RESTART if uncertain else Action(means.client.reconnect_call),
                words(error),
                status=channel.status,
                restart_pending=True,
            )
    return make_anew(means, channel.id, channel.key)


def make_anew(means: RepairContext, channel_id: str, key: str) -> Result:
    """Make the session of a channel that has none."""
    trouble = _create(means, channel_id, key)
    if trouble is not None:
        detail = words(trouble)
        return Result(
            channel_id, Outcome.FAILED, Action.RESTART, detail, listed=False, restart_pending=True
        )
    means.wait(START_PAUSE)
    asked = ask(means, Channel(channel_id, Status.DISCONNECTED), silent=False)
    return Result(
        channel_id,
        asked.outcome,
        Action.RESTART,
        asked.detail,
        status=asked.status,
        gateway_failed=asked.gateway_failed,
    )


def _create(means: RepairContext, channel_id: str, key: str) -> GatewayError | None:
    """Make a session, and try that a few times; return the last error, None where there is one."""
    for number in range(_CREATE_TRIES):
        if number:
            means.wait(_CREATE_PAUSE)
        try:
            means.client.create(channel_id)
        except GatewayError as another:
            error = another
            if _is_listed(means, key):
                return None  # it worked, although it was answered with a failure
        else:
            return None
    return error


def _is_gone(means: RepairContext, key: str, seconds: float) -> bool:
    """Watch the list for some seconds; whether it has come to lack the channel."""
    give_up_at = means.clock.monotonic() + seconds
    while _is_listed(means, key) is not False:
        if means.clock.monotonic() >= give_up_at:
            return False
        means.wait(LOOK_PAUSE)
    return True


def _is_listed(means: RepairContext, key: str) -> bool | None:
    """Whether the gateway has the channel; None where it does not say."""
    try:
        return key in means.lists.since(means.clock.monotonic())
    except GatewayError:
        return None


_ALERT_SECONDS = 30.0  # that an alert is on its way before the hook gets it
_LEAST_ALERT_SECONDS = 1.0  # it takes longer than this in any case


def look(means: RepairContext, job: Job) -> Result | None:
    """Return a recovery if the channel is connected, None if not; raise GatewayError."""
    channel = means.lists.fresh(means.clock.monotonic() - job.waited).get(job.key)
    if channel is None:
        if job.restarting:
            return make_anew(means, job.channel, job.key)
        return _unknown(job)
    if not channel.connected:
        return None
    return Result(channel.id, Outcome.RECOVERED, status=channel.status, gateway_failed=False)


def repair(means: RepairContext, job: Job) -> Result:
    """Repair one channel and return how it ended; raises Interrupted, and nothing else.

    1. Look at the list: the alert may be old news, or about a channel that is not there.
    2. Ask for the QR code. Where told so, start the session; while the browser starts, ask again.
    3. Watch for the channel to come back: the list for a disconnected one, the message log for a
       silent one.
    4. As the last step, and only where it is allowed: throw the session away and make a new one.
    """
    try:
        asked_from = means.clock.monotonic() - job.waited - _LEAST_ALERT_SECONDS
        channel = means.lists.fresh(asked_from).get(job.key)
    except GatewayError as error:
        detail = words(error)
        return Result(job.channel, Outcome.FAILED, detail=detail, listed=False, gateway_failed=True)
    if channel is None:
        return make_anew(means, job.channel, job.key) if job.restarting else _unknown(job)
    if not channel.repairable:
        detail = "this gateway has no session of it that could be reconnected"
        return Result(channel.id, Outcome.FAILED, detail=detail, status=channel.status)
    silent = channel.connected and job.reason.is_silence
    if _is_old_news(means, job, channel, silent=silent):
        return Result(channel.id, Outcome.RECOVERED, status=channel.status, gateway_failed=False)
    asked = ask(means, channel, silent=silent)
    if (
        asked.outcome is Outcome.STILL_DISCONNECTED
        and means.allow_restart
        and job.failures >= RESTART_AFTER_FAILURES
    ):
        result = restart(means, job, channel)
        if result is not None:
            return result
    return Result(
        channel.id,
        asked.outcome,
        Action(means.client.reconnect_call),
        asked.detail,
        status=asked.status,
        gateway_failed=asked.gateway_failed,
    )


def _is_old_news(means: RepairContext, job: Job, channel: Channel, *, silent: bool) -> bool:
    if silent:
        if job.attempt > 1 and job.status not in {None, Status.CONNECTED}:
            return True  # it had dropped, and somebody has scanned its code since
        lately = min(job.waited + _ALERT_SECONDS, means.silence_threshold(channel.id))
        return means.heard_within(job.key, lately)
    return channel.connected and job.reason is not RepairCause.MANUAL


def _unknown(job: Job) -> Result:
    return Result(job.channel, Outcome.UNKNOWN_CHANNEL, listed=False, gateway_failed=False)
