"""One repair from the first look to the proof that it worked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reconnect_hook.alerts import Reason
from reconnect_hook.channel_lists import ChannelLists
from reconnect_hook.jobs import Job
from reconnect_hook.outcomes import Action, Outcome, Result
from reconnect_hook.witness import heard_within
from whatsapp.channels import Channel, Status
from whatsapp.gateway import GatewayClient, GatewayError, Operation, QrKind
from whatsapp.message_log import MessageLog

RESTART_AFTER_FAILURES = 2
"""So many repairs in a row must have failed before a session may be thrown away."""

_LIST_AGE = 1.0  # seconds that the list for the first look may be old, so that queued ones share it
_ALERT_SECONDS = 30.0  # that an alert is on its way before the hook gets it
_LOOK_PAUSE = 2.0  # seconds between two looks at the list or the log
_START_PAUSE = 2.0  # seconds that a session needs after start-session, as WPPConnect documents it
_CREATE_TRIES = 5
_CREATE_PAUSE = 5.0  # seconds between two of them
_INITIALIZING_PAUSE = 5.0  # seconds until a browser that starts is asked again
_INITIALIZING_SECONDS = 60.0  # seconds until it is not asked any more


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The program ends; the repair is left to whoever comes next."""


@dataclass(frozen=True, slots=True)
class Means:
    """What repairs are made with.

    ``silence_threshold`` gives a channel's threshold in seconds; ``wait`` pauses for some seconds,
    or raises Interrupted.
    """

    client: GatewayClient
    lists: ChannelLists
    log: MessageLog | None
    silence_threshold: Callable[[str], float]
    verify_seconds: float
    allow_restart: bool
    wait: Callable[[float], None] = time.sleep


def look(means: Means, job: Job) -> Result | None:
    """Return a recovery if the channel is connected, None if not; raise GatewayError."""
    channel = means.lists.since(time.monotonic()).get(job.key)
    if channel is None:
        return Result(job.channel, Outcome.UNKNOWN_CHANNEL, listed=False)
    return Result(channel.id, Outcome.RECOVERED) if channel.connected else None


def repair(means: Means, job: Job) -> Result:
    """Repair one channel and return how it ended; raises Interrupted, and nothing else.

    1. Look at the list: the alert may be old news, or about a channel that is not there.
    2. Ask for the QR code. Where told so, start the session; while the browser starts, ask again.
    3. Watch for the channel to come back: the list for a disconnected one, the message log for a
       silent one.
    4. As the last step, and only where it is allowed: throw the session away and make a new one.
    """
    try:
        channel = means.lists.since(time.monotonic() - _LIST_AGE).get(job.key)
    except GatewayError as error:
        return Result(job.channel, Outcome.FAILED, detail=_words(error), listed=False)
    if channel is None:
        return Result(job.channel, Outcome.UNKNOWN_CHANNEL, listed=False)
    silent = channel.connected and job.reason in {Reason.SILENT, Reason.NEVER_HEARD}
    if silent:
        lately = min(job.waited + _ALERT_SECONDS, means.silence_threshold(channel.id))
        old_news = heard_within(means.log, job.key, lately)
    else:
        old_news = channel.connected and job.reason is not Reason.MANUAL
    if old_news:
        return Result(channel.id, Outcome.RECOVERED)
    outcome, detail = _ask(means, channel, silent=silent)
    if (
        outcome is Outcome.STILL_DISCONNECTED
        and means.allow_restart
        and job.failures >= RESTART_AFTER_FAILURES
    ):
        return _restart(means, channel)
    return Result(channel.id, outcome, Action.GET_QR, detail)


def _ask(means: Means, channel: Channel, *, silent: bool) -> tuple[Outcome, str]:
    asked_at = time.monotonic()
    try:
        kind = _ask_until_ready(means, channel.id)
    except GatewayError as error:
        return Outcome.FAILED, _words(error)
    if kind is QrKind.QR:
        return Outcome.QR_REQUIRED, ""
    if kind is QrKind.NOT_STARTED:
        return Outcome.FAILED, "session not started, although start-session was accepted"
    if silent and _wait_for_message(means, channel.key, asked_at):
        return Outcome.RECONNECTED, ""
    return _look_for_connected(means, channel.key, silent=silent)


def _ask_until_ready(means: Means, channel_id: str) -> QrKind:
    """Call getQr until the answer says more than to wait, and return what it says."""
    give_up_at = time.monotonic() + _INITIALIZING_SECONDS
    started = False
    while True:
        kind = means.client.ask_qr(channel_id).kind
        if kind is QrKind.NOT_STARTED and not started:
            means.client.start_session(channel_id)
            started = True
            means.wait(_START_PAUSE)
        elif kind is QrKind.INITIALIZING and time.monotonic() < give_up_at:
            means.wait(_INITIALIZING_PAUSE)
        else:
            return kind


def _wait_for_message(means: Means, key: str, asked_at: float) -> bool:
    """Watch the log for as long as is set; whether a message came since ``asked_at``."""
    give_up_at = time.monotonic() + means.verify_seconds
    # A second more, since the log's times are cut to whole seconds.
    while not heard_within(means.log, key, time.monotonic() - asked_at + 1):
        if time.monotonic() >= give_up_at:
            return False
        means.wait(_LOOK_PAUSE)
    return True


def _look_for_connected(means: Means, key: str, *, silent: bool) -> tuple[Outcome, str]:
    """Watch the list for as long as is set; a silent channel has had its time, so look once."""
    give_up_at = time.monotonic() + (0 if silent else means.verify_seconds)
    while True:
        asked_at = time.monotonic()
        status: Status | None = None
        detail = ""
        try:
            channel = means.lists.since(asked_at).get(key)
            status = channel.status if channel else Status.UNKNOWN
        except GatewayError as error:
            detail = _words(error)
        if status is Status.CONNECTED:
            return (Outcome.REQUESTED if silent else Outcome.RECONNECTED), ""
        if status is Status.QR_REQUIRED:
            return Outcome.QR_REQUIRED, ""
        if time.monotonic() >= give_up_at:
            return (Outcome.STILL_DISCONNECTED if status else Outcome.FAILED), detail
        # A list that takes long is asked less often.
        means.wait(max(_LOOK_PAUSE, time.monotonic() - asked_at))


def _restart(means: Means, channel: Channel) -> Result:
    """Throw the pairing away and make a new session, which a person will have to scan."""
    try:
        means.client.recreate(channel.id)
    except GatewayError as error:
        if error.operation is not Operation.CREATE:
            return Result(channel.id, Outcome.FAILED, Action.GET_QR, _words(error))
        trouble = _create(means, channel.id, error)
        if trouble is not None:
            return Result(channel.id, Outcome.FAILED, Action.RESTART, _words(trouble))
    means.wait(_START_PAUSE)
    outcome, detail = _ask(means, channel, silent=False)
    return Result(channel.id, outcome, Action.RESTART, detail)


def _create(means: Means, channel_id: str, error: GatewayError) -> GatewayError | None:
    """Try again what ended in ``error``, and return the last one; None as soon as it worked.

    Without a session the gateway does not list the channel, and nobody would miss it any more.
    """
    for _ in range(_CREATE_TRIES):
        means.wait(_CREATE_PAUSE)
        try:
            means.client.create(channel_id)
        except GatewayError as another:
            error = another
        else:
            return None
    return error


def _words(error: GatewayError) -> str:
    return f"{error} (request {error.request_id})"
