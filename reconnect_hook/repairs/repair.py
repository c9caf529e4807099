"""One repair from the first look to the proof that it worked."""

from __future__ import annotations

import time

from reconnect_hook.alerts import Reason
from reconnect_hook.outcomes import Action, Job, Outcome, Result
from reconnect_hook.repairs.asking import ask
from reconnect_hook.repairs.means import Means, words
from reconnect_hook.repairs.restart import RESTART_AFTER_FAILURES, make_anew, restart
from whatsapp.channels import Channel, Status
from whatsapp.gateways.gateway import GatewayError

_ALERT_SECONDS = 30.0  # that an alert is on its way before the hook gets it
_LEAST_ALERT_SECONDS = 1.0  # it takes longer than this in any case


def look(means: Means, job: Job) -> Result | None:
    """Return a recovery if the channel is connected, None if not; raise GatewayError."""
    channel = means.lists.of_this_round(time.monotonic() - job.waited).get(job.key)
    if channel is None:
        if job.restarting:
            return make_anew(means, job.channel, job.key)
        return _unknown(job)
    if not channel.connected:
        return None
    return Result(channel.id, Outcome.RECOVERED, status=channel.status, gateway_failed=False)


def repair(means: Means, job: Job) -> Result:
    """Repair one channel and return how it ended; raises Interrupted, and nothing else.

    1. Look at the list: the alert may be old news, or about a channel that is not there.
    2. Ask for the QR code. Where told so, start the session; while the browser starts, ask again.
    3. Watch for the channel to come back: the list for a disconnected one, the message log for a
       silent one.
    4. As the last step, and only where it is allowed: throw the session away and make a new one.
    """
    try:
        asked_from = time.monotonic() - job.waited - _LEAST_ALERT_SECONDS
        channel = means.lists.of_this_round(asked_from).get(job.key)
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


def _is_old_news(means: Means, job: Job, channel: Channel, *, silent: bool) -> bool:
    if silent:
        if job.attempt > 1 and job.status not in {None, Status.CONNECTED}:
            return True  # it had dropped, and somebody has scanned its code since
        lately = min(job.waited + _ALERT_SECONDS, means.silence_threshold(channel.id))
        return means.heard_within(job.key, lately)
    return channel.connected and job.reason is not Reason.MANUAL


def _unknown(job: Job) -> Result:
    return Result(job.channel, Outcome.UNKNOWN_CHANNEL, listed=False, gateway_failed=False)
