"""The page's sentences about channels, repairs and what cannot be reached."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from reconnect_hook.alerts import RepairCause
from reconnect_hook.attempt_log import UNABLE, AttemptKind, AttemptStep, StepKind
from reconnect_hook.dashboard.channel_view import ChannelHealth
from reconnect_hook.dashboard.snapshot import ActiveProblem, Problem
from reconnect_hook.models import AskedBy, Outcome, Step
from reconnect_hook.probe_limits import ProbeOutcome
from zapwatch.channels import Status

KINDS = {
    ChannelHealth.NEEDS_SCAN: _("Needs a scan"),
    ChannelHealth.FAILING: _("Repairs do not help"),
    ChannelHealth.DISCONNECTED: _("Disconnected"),
    ChannelHealth.SILENT: _("Silent"),
    ChannelHealth.NEVER_HEARD: _("Never heard"),
    ChannelHealth.UNKNOWN: _("Unknown"),
    ChannelHealth.CONNECTED: _("Connected"),
}
"""The status of a channel, in a word or two."""

MEANINGS = {
    ChannelHealth.NEEDS_SCAN: _(
        "The pairing is no longer valid. Somebody has to scan the QR code: open this page on a "
        "second device, since a phone cannot scan its own screen."
    ),
    ChannelHealth.FAILING: _("Repairs in a row did not bring it back. Somebody has to look."),
    ChannelHealth.DISCONNECTED: _("The gateway lists the channel as not connected."),
    ChannelHealth.SILENT: _("The gateway says connected, but no message has come for too long."),
    ChannelHealth.NEVER_HEARD: _("The gateway says connected, but no message of it is known."),
    ChannelHealth.UNKNOWN: _("Nothing can be said of it at the moment."),
    ChannelHealth.CONNECTED: _("All is well."),
}

OUTCOMES = {
    Outcome.RECOVERED: _("was already well again"),
    Outcome.RECONNECTED: _("reconnected"),
    Outcome.REQUESTED: _("reconnection asked for, no message yet"),
    Outcome.QR_REQUIRED: _("needs a QR code to be scanned"),
    Outcome.FAILED: _("failed: the gateway refused or did not answer"),
    Outcome.STILL_DISCONNECTED: _("still disconnected"),
    Outcome.UNKNOWN_CHANNEL: _("the gateway has no such channel"),
}

PROBE_OUTCOMES: dict[str, LazyString] = {
    UNABLE: _("could not be made"),
    ProbeOutcome.PASSED: _("alive, proved"),
    ProbeOutcome.FAILED: _("dead, proved"),
    ProbeOutcome.OTHER_FAILED: _("not proved: the channel that was to write to it is dead"),
    ProbeOutcome.UNDECIDED: _("not heard, and whose fault that is did not show"),
}
"""What came of asking a channel, before how long ago that was."""

REASONS = {
    RepairCause.DISCONNECTED: _("it was disconnected"),
    RepairCause.SILENT: _("it was silent"),
    RepairCause.NEVER_HEARD: _("it had never been heard"),
    RepairCause.MANUAL: _("somebody asked for it"),
    RepairCause.PROBE_FAILED: _("it did not answer when it was asked"),
    RepairCause.ECHO_LOST: _("a message that it should have heard was lost"),
    RepairCause.SUSPECT: _("nothing was heard of it"),
    RepairCause.ASKED: _("somebody wanted to know"),
}

TROUBLES = {
    Problem.STATE: (
        _("The hook's own memory cannot be read."),
        _(
            "Nothing can be repaired or paused until it can. What Prometheus knows is still shown; "
            "the hook's log says what is wrong."
        ),
    ),
    Problem.PROMETHEUS: (
        _("Prometheus does not answer."),
        _(
            "No failure is noticed, and nobody is told. You see what the gateway itself says while "
            "this page is open; the last days and the alerts are missing."
        ),
    ),
    Problem.EXPORTER: (
        _("Prometheus gets nothing from the exporter."),
        _(
            "No failure is noticed. You see what the gateway itself says while this page is open; "
            "new messages and the last days may be missing."
        ),
    ),
    Problem.GATEWAY: (
        _("The gateway does not give its channel list."),
        _(
            "No channel can be judged or repaired until it does. The history and pauses are still "
            "here."
        ),
    ),
    Problem.GATEWAY_RESTS: (
        _("The gateway has failed several times in a row and is left alone for a while."),
        _("Repairs wait in the queue, and go on by themselves as soon as it answers."),
    ),
    Problem.LOG: (
        _("The message log cannot be read."),
        _("Disconnected channels are still noticed and repaired, silent ones are not."),
    ),
    Problem.ALERTMANAGER: (
        _("Alertmanager does not answer."),
        _(
            "Nobody is told of anything, and no repair begins by itself. “Reconnect now”, pauses "
            "and QR codes work."
        ),
    ),
}
"""What is wrong, and what it means for whoever looks."""

_NO_MONITORING = (
    _("Neither Prometheus nor Alertmanager answers."),
    TROUBLES[Problem.PROMETHEUS][1],
)
_ALARMING = set(Problem) - {Problem.GATEWAY_RESTS, Problem.LOG}
"""With these, failures are not noticed, or not repaired."""


@dataclass(frozen=True, slots=True)
class Banner:
    """What stands above a page about one cause; ``gateway`` is None where it is not one's alone."""

    title: LazyString
    text: LazyString
    gateway: str | None
    is_alarming: bool


def banners(problems: Collection[ActiveProblem], gateways: int) -> list[Banner]:
    """Return one banner for each cause; ``gateways`` is how many there are."""
    kinds = [one.problem for one in problems]
    found: list[Banner] = []
    for problem, gateway in problems:
        title, text = TROUBLES[problem]
        match problem:
            case Problem.PROMETHEUS if Problem.ALERTMANAGER in kinds:
                title, text = _NO_MONITORING
            case Problem.ALERTMANAGER if Problem.PROMETHEUS in kinds:
                continue
            case Problem.GATEWAY_RESTS if ActiveProblem(Problem.GATEWAY, gateway) in problems:
                continue
            case Problem.EXPORTER if gateways == kinds.count(Problem.EXPORTER):
                gateway = None  # noqa: PLW2901 - one exporter watches all of them
        banner = Banner(title, text, gateway, problem in _ALARMING)
        if banner not in found:
            found.append(banner)
    return found


ALERTS = {
    "WhatsAppChannelDisconnected": _("disconnected"),
    "WhatsAppChannelSuspect": _("quiet, being asked whether it is alive"),
    "WhatsAppChannelSilent": _("no messages for too long"),
    "WhatsAppChannelNeverHeard": _("connected, but no message has ever come"),
    "WhatsAppChannelNeedsQrScan": _("the QR code has to be scanned"),
    "WhatsAppReconnectFailing": _("repairs do not help"),
    "WhatsAppChannelGone": _("has left the gateway's list"),
    "WhatsAppChannelStillSilent": _("no messages for more than a day, whatever was tried"),
    "WhatsAppChannelFlapping": _("keeps dropping and coming back"),
}
"""What an alert about a channel says, by its name."""

STATUSES: dict[str, LazyString] = {
    Status.CONNECTED: _("connected"),
    Status.DISCONNECTED: _("disconnected"),
    Status.QR_REQUIRED: _("waits for a scan"),
    Status.INITIALIZING: _("starting"),
    Status.UNKNOWN: _("not known"),
}
"""What a gateway says of a channel."""

ATTEMPT_KINDS = {AttemptKind.PROBE: _("Probe"), AttemptKind.REPAIR: _("Repair")}

STEP_KINDS = {
    StepKind.ASKED: _("Asked for by"),
    StepKind.LISTED: _("The gateway's list:"),
    StepKind.CALLED: _("Call to the gateway:"),
    StepKind.ANSWERED: _("Answer:"),
    StepKind.FAILED: _("Error:"),
    StepKind.VERIFYING: _("Waiting until the list shows it connected"),
    StepKind.QUERIED: _("Query answered:"),
    StepKind.SENT: _("Echo sent:"),
    StepKind.HEARD: _("Echo received"),
    StepKind.LOST: _("Echo not received"),
    StepKind.POSTPONED: _("Goes on later:"),
    StepKind.ENDED: _("Outcome"),
}
"""A step of the log, before its words."""

_STEP_WORDS: dict[StepKind, dict[str, LazyString]] = {
    StepKind.ASKED: {
        AskedBy.ALERTMANAGER: _("an alert"),
        AskedBy.PAGE: _("somebody on the page"),
        AskedBy.CHECK: _("the command check"),
        AskedBy.PROBE: _("a probe"),
        AskedBy.RETRY: _("a retry"),
    },
    StepKind.LISTED: {**STATUSES, "absent": _("not in it")},
    StepKind.CALLED: {
        Step.RECONNECT: _("reconnect"),
        Step.START: _("start the session"),
        Step.QR: _("show the QR code"),
        Step.DELETE: _("throw the session away"),
        Step.CREATE: _("make a new session"),
    },
    StepKind.ANSWERED: {
        "qr": _("a QR code waits"),
        "accepted": _("accepted"),
        "initializing": _("the session is starting"),
        "not_started": _("the session is not started"),
        "done": _("done"),
    },
}


def step_words(step: AttemptStep) -> LazyString | str:
    """Return the words of a step: those of a gateway are its own."""
    return _STEP_WORDS.get(step.kind, {}).get(step.words, step.words)


QR_STATES = {
    "asking": _("Asking the gateway for the code …"),
    "code": _("A new code appears by itself before this one expires."),
    "no-image": _(
        "The gateway shows no QR code at the moment: it waits for a typed code or a passkey."
    ),
    "starting": _("The session is starting. The code comes in a moment."),
    "unreadable": _(
        "The gateway's code cannot be shown here. Please open the gateway's own panel and scan it "
        "there."
    ),
    "failed": _("The gateway does not give the code. It is asked again every few seconds."),
    "busy": _("Too many codes are being looked at. This one comes when another page is closed."),
    "none": _("No code waits at the moment."),
    "connected": _("Connected"),
}

VALID_FOR = {1: _("1 hour"), 24: _("24 hours"), 168: _("7 days")}
"""How long a scan link may be valid, by the hours."""
