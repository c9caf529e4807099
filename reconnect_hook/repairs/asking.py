"""Asks for a QR code, which makes the gateway reconnect the channel, and watches whether it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconnect_hook.outcomes import Outcome
from reconnect_hook.probes.examination import Examination, Finding
from reconnect_hook.probes.means import PostponedError, ProbeMeans, UnableError
from reconnect_hook.repairs.means import Means, is_of_the_whole, words
from reconnect_hook.state.database import StateError
from reconnect_hook.state.probes import ProbeOutcome
from whatsapp.channels import Channel, Status
from whatsapp.gateways.gateway import GatewayError, QrKind
from whatsapp.message_log import MessageLogError
from whatsapp.probe_settings import ProbeKind

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


def ask(means: Means, channel: Channel, *, silent: bool) -> Asked:
    """Reconnect, and watch: the log for a silent channel, the list for a disconnected one."""
    asked_at = time.monotonic()
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
        began = time.monotonic()
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


def _ask_until_ready(means: Means, channel: Channel, *, silent: bool) -> QrKind:
    """Begin to reconnect, ask until the answer says more than to wait, and return what it says."""
    give_up_at = time.monotonic() + _INITIALIZING_SECONDS
    started = False
    kind = means.client.reconnect(channel, silent=silent).kind
    while True:
        if kind is QrKind.NOT_STARTED and not started:
            means.client.start_session(channel.id)
            started = True
            means.wait(START_PAUSE)
        elif kind is QrKind.INITIALIZING and time.monotonic() < give_up_at:
            means.wait(_INITIALIZING_PAUSE)
        else:
            return kind
        kind = means.client.qr(channel.id).kind


def verify(means: Means, channel: Channel, until: float) -> Asked | None:
    """Ask a channel that was reconnected whether it is alive; None where that shows nothing.

    ``until`` is the moment until which its echo waits for those of others.
    """
    assert means.probing is not None  # noqa: S101 - who asks has looked
    probing = replace(means.probing, wait=means.wait)
    try:
        listed = means.lists.next(time.monotonic(), means.wait)
        now = listed.get(channel.key)
        if now is None or not now.connected:
            return None
        # It has been repaired: echoes may go to it again.
        probing.book.resume([channel.key])
        probing.book.begin(channel.key, now.id, None)
        began = time.monotonic()
        finding = _examine(probing, now, listed, until)
        probing.book.end(channel.key, now.id, finding.kind, finding.outcome, finding.halted)
    except (GatewayError, MessageLogError, StateError, PostponedError, UnableError):
        return None
    means.count_probe(now.id, finding.kind, finding.outcome, time.monotonic() - began)
    if finding.outcome is ProbeOutcome.FAILED:
        called = means.client.reconnect_call
        return Asked(Outcome.FAILED, now.status, f"after {called} too: {finding.detail}")
    if finding.outcome is ProbeOutcome.PASSED and finding.kind is ProbeKind.ECHO:
        return Asked(Outcome.RECONNECTED, now.status)
    return None


def _examine(
    probing: ProbeMeans, channel: Channel, listed: Mapping[str, Channel], until: float
) -> Finding:
    while True:
        try:
            examination = Examination(probing, channel, listed, repaired=True)
            return examination.run(probing.kind_of(channel))
        except PostponedError:
            if time.monotonic() >= until:
                raise
            probing.wait(LOOK_PAUSE)


def _wait_for_message(means: Means, key: str, asked_at: float, until: float) -> bool:
    """Watch the log until a moment; whether a message came since ``asked_at``."""
    # A second more, since the log's times are cut to whole seconds.
    while not means.heard_within(key, time.monotonic() - asked_at + 1):
        if time.monotonic() >= until:
            return False
        means.wait(LOOK_PAUSE)
    return True


def _look_for_connected(means: Means, key: str, *, silent: bool) -> Asked:
    """Watch the list for as long as is set; a silent channel has had its time, so look once."""
    give_up_at = time.monotonic() + (0 if silent else means.verify_seconds)
    while True:
        asked_at = time.monotonic()
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
        if time.monotonic() >= give_up_at:
            if status is None:
                return Asked(Outcome.FAILED, None, detail, gateway_failed=True)
            return Asked(Outcome.STILL_DISCONNECTED, status)
        means.wait(LOOK_PAUSE)
