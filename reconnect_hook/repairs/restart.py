"""The last step: throws a session away and makes a new one, which a person must scan.

Between the two, the gateway has no such channel, and nobody would miss it any more. So it is noted
in the state before the first, and whoever finds the note and no channel makes one: after a crash,
and also where the first was answered with a failure and worked all the same.
"""

from __future__ import annotations

import time

from reconnect_hook.outcomes import Action, Job, Outcome, Result
from reconnect_hook.repairs.asking import LOOK_PAUSE, START_PAUSE, ask
from reconnect_hook.repairs.means import Means, is_of_the_whole, words
from whatsapp.channels import Channel, Status
from whatsapp.gateways.gateway import GatewayError, Reason

RESTART_AFTER_FAILURES = 2
"""So many repairs in a row must have failed before a session may be thrown away."""

_CREATE_TRIES = 6
_CREATE_PAUSE = 5.0  # seconds between two of them
# After these nobody knows whether the call worked, or still will.
_UNCERTAIN = frozenset({Reason.TIMEOUT, Reason.CONNECTION, Reason.HTML})


def restart(means: Means, job: Job, channel: Channel) -> Result | None:
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


def make_anew(means: Means, channel_id: str, key: str) -> Result:
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


def _create(means: Means, channel_id: str, key: str) -> GatewayError | None:
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


def _is_gone(means: Means, key: str, seconds: float) -> bool:
    """Watch the list for some seconds; whether it has come to lack the channel."""
    give_up_at = time.monotonic() + seconds
    while _is_listed(means, key) is not False:
        if time.monotonic() >= give_up_at:
            return False
        means.wait(LOOK_PAUSE)
    return True


def _is_listed(means: Means, key: str) -> bool | None:
    """Whether the gateway has the channel; None where it does not say."""
    try:
        return key in means.lists.since(time.monotonic())
    except GatewayError:
        return None
