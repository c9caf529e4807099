"""Languages of the page: their choice, translatable texts, formats, and the templates' globals."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

from flask import Flask, Response, request, url_for
from flask_babel import (
    Babel,
    LazyString,
    format_datetime,
    format_decimal,
    format_percent,
    get_locale,
    gettext,
    ngettext,
    pgettext,
)
from flask_babel import lazy_gettext as _
from markupsafe import Markup

from reconnect_hook.auth import set_cookie
from reconnect_hook.dashboard.channel_view import SHOWS, SORTS, ChannelHealth
from reconnect_hook.dashboard.snapshot import ActiveProblem, GatewayPanels, Problem
from reconnect_hook.delivery import WebhookFault
from reconnect_hook.event_log import UNABLE, AttemptKind, AttemptStep, StepKind
from reconnect_hook.message_audit import Replay
from reconnect_hook.models import AskedBy, Outcome, ProbeOutcome, RepairCause, Step
from zapwatch import __version__
from zapwatch.channels import Status
from zapwatch.config.readers import MessageSourceKind
from zapwatch.gateways.base import N_

LANGUAGES = {"en": "English", "pt_BR": "Português"}
"""Language names by locale, each in its own language."""

_COOKIE = "language"
_YEAR = 365 * 86400
# Accept-Language tags; the first is the default.
_TAGS = {"en": "en", "pt-BR": "pt_BR", "pt": "pt_BR", "pt-PT": "pt_BR"}


def locale() -> str:
    """Return the request's locale, from ``?lang=``, the cookie or Accept-Language."""
    for chosen in (request.args.get("lang", ""), request.cookies.get(_COOKIE, "")):
        if chosen in LANGUAGES:
            return chosen
    return _TAGS[request.accept_languages.best_match(list(_TAGS), "en") or "en"]


def remember_language(response: Response) -> None:
    """Store the language of ``?lang=`` in a cookie for a year."""
    chosen = request.args.get("lang", "")
    if chosen in LANGUAGES:
        set_cookie(response, _COOKIE, chosen, _YEAR)


_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
"""Unit symbols and their seconds; both languages and page.js use the same."""
_STATIC = Path(__file__).parent / "static"
_TIME = Markup('<time datetime="{}" data-as="{}" title="{}">{}</time>')


def init_templates(app: Flask, panels: GatewayPanels) -> None:
    """Set up Flask-Babel, and the filters and globals that the templates use."""
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(Path(__file__).parent / "translations")
    Babel(app, locale_selector=locale)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["capitalize_first"] = lambda text: str(text)[:1].upper() + str(text)[1:]
    # Templates use the constants of this module by their names in lower case.
    constants = {name.lower(): value for name, value in globals().items() if name.isupper()}
    words = (step_words, audit_detail, message_kind)
    used = (*words, moment, duration, number, percent, day, static, this_address)
    app.jinja_env.globals.update(
        constants | {one.__name__: one for one in used},
        shows=SHOWS,
        sorts=SORTS,
        panels=panels,
        version=__version__,
        banners=lambda problems: banners(problems, len(panels.all)),
        _=gettext,
        ngettext=ngettext,
        pgettext=pgettext,
    )

    @app.context_processor
    def of_this_request() -> dict[str, object]:
        return {"current_locale": locale(), "language_tag": str(get_locale()).replace("_", "-")}


def moment(seconds: float, style: str = "ago") -> Markup:
    """Return a ``<time>`` element, which page.js converts to the viewer's time zone.

    Without JavaScript it shows the server's zone. ``style``: ``ago``, ``at``, ``for`` a time since
    then, or ``in`` for a time that is now when it has passed.
    """
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    absolute = format_datetime(here, "short", rebase=False)
    utc = datetime.fromtimestamp(round(seconds), UTC).isoformat().replace("+00:00", "Z")
    return _TIME.format(utc, style, f"{absolute} {here.tzname()}", absolute)


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that it reaches, seconds at the least."""
    unit, size = next((one for one in _UNITS if seconds >= one[1]), _UNITS[-1])
    return f"{number(seconds / size)} {unit}"


def percent(value: float) -> str:
    """Return a share in percent, rounded down: only 1.0 is 100 %."""
    return str(format_percent(math.floor(value * 10_000) / 10_000, "#,##0.##%"))


def number(value: float) -> str:
    """Return a number in the request's locale, with one decimal at most."""
    return str(format_decimal(round(value, 1)))


def day(seconds: float, form: str = "EEE") -> str:
    """Return the weekday in the server's zone, or another form of the time."""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    return str(format_datetime(here, form, rebase=False))


def static(name: str) -> str:
    """Return the URL of a static file, with its version and mtime against stale caches."""
    changed = int((_STATIC / name).stat().st_mtime)
    endpoint = "scan.static" if request.blueprint == "scan" else "page.static"
    return url_for(endpoint, filename=name, v=f"{__version__}-{changed}")


def this_address(**more: str) -> str:
    """Return the current URL with additional query parameters."""
    query = urlencode({**request.args.to_dict(), **more})
    path = quote(request.script_root + request.path)
    if request.endpoint:
        path = url_for(request.endpoint, **(request.view_args or {}))
    return path + (f"?{query}" if query else "")


KINDS = {
    ChannelHealth.NEEDS_SCAN: _("Needs QR scan"),
    ChannelHealth.FAILING: _("Can't reconnect"),
    ChannelHealth.GONE: _("Not listed"),
    ChannelHealth.DISCONNECTED: _("Disconnected"),
    ChannelHealth.SILENT: _("No messages"),
    ChannelHealth.NEVER_HEARD: _("No messages yet"),
    ChannelHealth.UNKNOWN: _("Unknown"),
    ChannelHealth.CONNECTED: _("Connected"),
}
"""Short labels of a channel's health."""

MEANINGS = {
    ChannelHealth.NEEDS_SCAN: _(
        "WhatsApp has logged this device out. Scan the QR code to connect it again: open "
        "this page on a second device, since a phone cannot scan its own screen."
    ),
    ChannelHealth.FAILING: _(
        "Several reconnections in a row have failed. The channel needs attention."
    ),
    ChannelHealth.GONE: _(
        "The gateway no longer lists this channel. Create the session again under the same name."
    ),
    ChannelHealth.DISCONNECTED: _("The gateway lists the channel as not connected."),
    ChannelHealth.SILENT: _("Connected at the gateway, but no messages for too long."),
    ChannelHealth.NEVER_HEARD: _("Connected at the gateway, but no messages received."),
    ChannelHealth.UNKNOWN: _("The status of the channel is unknown at the moment."),
    ChannelHealth.CONNECTED: _("The channel is working."),
}

OUTCOMES = {
    Outcome.RECOVERED: _("was already connected again"),
    Outcome.RECONNECTED: _("reconnected"),
    Outcome.REQUESTED: _("reconnection requested, no messages yet"),
    Outcome.QR_REQUIRED: _("waiting for QR scan"),
    Outcome.FAILED: _("failed: the gateway refused or did not answer"),
    Outcome.STILL_DISCONNECTED: _("still disconnected"),
    Outcome.UNKNOWN_CHANNEL: _("the gateway has no such channel"),
}

PROBE_OUTCOMES: dict[str, LazyString] = {
    UNABLE: _("could not run"),
    ProbeOutcome.PASSED: _("working"),
    ProbeOutcome.FAILED: _("not responding"),
    ProbeOutcome.OTHER_FAILED: _(
        "inconclusive: the channel that sent the test message is not responding"
    ),
    ProbeOutcome.DELIVERY_BROKEN: _("connected, but its messages do not arrive"),
    ProbeOutcome.UNDECIDED: _(
        "inconclusive: the test message was lost and neither side could be proved dead"
    ),
}
"""Outcome of a probe; its age follows."""

WEBHOOK_FAULTS: dict[str, LazyString] = {
    WebhookFault.GONE: _("Its webhook is gone from the gateway's settings."),
    WebhookFault.MISSING: _("The session has no webhook of its own at the gateway."),
    WebhookFault.DISABLED: _("Its webhook is disabled at the gateway."),
    WebhookFault.NOT_SELECTED: _("The message event is not selected in its webhook."),
    WebhookFault.CHANGED: _("The address of its webhook has changed at the gateway."),
    "": _("Check the gateway's webhook and the server that receives it."),
}
"""Causes of a broken delivery, by webhook fault."""

REASONS = {
    RepairCause.DISCONNECTED: _("it was disconnected"),
    RepairCause.SILENT: _("it had no messages"),
    RepairCause.NEVER_HEARD: _("it had never received messages"),
    RepairCause.MANUAL: _("an operator requested it"),
    RepairCause.PROBE_FAILED: _("it did not respond to a probe"),
    RepairCause.ECHO_LOST: _("a test message to it was lost"),
    RepairCause.SUSPECT: _("it had no activity"),
    RepairCause.ASKED: _("an operator requested a probe"),
}


class Banner(NamedTuple):
    """What the page shows of a problem."""

    title: LazyString
    text: LazyString
    """Its consequence."""
    runbook_page: str = ""
    """Empty for the runbook's own page, which has the troubleshooting."""
    is_alarming: bool = True
    """Whether it keeps failures from being noticed or repaired."""
    gateway: str | None = None
    """None if it concerns all gateways."""
    listed_at: float | None = None


TROUBLES = {
    Problem.STATE: Banner(
        _("The state of the Zapwatch server cannot be read."),
        _(
            "Until it can, channels cannot be reconnected or paused. Data from Prometheus is "
            "still shown; the log of the Zapwatch server shows the cause."
        ),
    ),
    Problem.PROMETHEUS: Banner(
        _("Prometheus does not answer."),
        _(
            "Failures are not detected, and notifications are not sent. This page shows the "
            "gateway's own status while it is open; alerts and earlier outages are missing."
        ),
    ),
    Problem.EXPORTER: Banner(
        _("Prometheus gets nothing from the Zapwatch monitor."),
        _(
            "Failures are not detected. This page shows the gateway's own status while it is "
            "open; new messages and the last days may be missing."
        ),
        "WhatsAppExporterDown",
    ),
    Problem.GATEWAY: Banner(
        _("The gateway is not responding."),
        _(
            "Until it does, channels cannot be checked or reconnected. History and pauses are "
            "still shown."
        ),
        "WhatsAppGatewayDown",
    ),
    Problem.GATEWAY_RESTS: Banner(
        _("The gateway has failed several times in a row: retrying less often."),
        _("Reconnections wait in the queue and continue automatically as soon as it responds."),
        "WhatsAppGatewayDown",
        is_alarming=False,
    ),
    Problem.BUDGET: Banner(
        _("Requests to this gateway are limited (requests_per_month)."),
        _(
            "Without Prometheus, this page lists its channels less often: what is shown may be "
            "hours old."
        ),
        is_alarming=False,
    ),
    Problem.LOG: Banner(
        _("The messages cannot be read."),
        _(
            "Disconnected channels are still detected and reconnected; channels without messages "
            "are not."
        ),
        "WhatsAppMessageLogDown",
        is_alarming=False,
    ),
    Problem.ALERTMANAGER: Banner(
        _("Alertmanager does not answer."),
        _(
            "Notifications are not sent, and channels are not reconnected automatically. "
            "“Reconnect now”, pauses and QR codes work."
        ),
    ),
    Problem.DELIVERY: Banner(
        _("Alerts are not being delivered."),
        _(
            "Notifications may not be sent, and channels may not be reconnected automatically. The "
            "logs of Alertmanager and Prometheus show the cause."
        ),
        "WhatsAppAlertDeliveryFailing",
    ),
    Problem.GATEWAY_UNKNOWN: Banner(
        _("Only one part of Zapwatch has this gateway in its settings."),
        _(
            "Its channels are not monitored, or not reconnected. Give the monitor and the server "
            "the same WPP_GATEWAY_NAME or gateways.yaml, and reload both."
        ),
        "WhatsAppGatewayUnknown",
    ),
    Problem.LEFT_OUT: Banner(
        _("The gateway has sessions that are not monitored."),
        _(
            "Their names differ from others only in the encoding of accents or in spaces at the "
            "ends, or there are more than 20,000 sessions."
        ),
        "WhatsAppChannelsLeftOut",
        is_alarming=False,
    ),
    Problem.SETTINGS: Banner(
        _("The new settings were refused."),
        _(
            "Zapwatch continues with the previous ones. The logs of the monitor and of the server "
            "show the error."
        ),
        "WhatsAppConfigReloadFailing",
        is_alarming=False,
    ),
}

_NO_MONITORING = TROUBLES[Problem.PROMETHEUS]._replace(
    title=_("Neither Prometheus nor Alertmanager answers.")
)


def banners(problems: Collection[ActiveProblem], gateways: int) -> list[Banner]:
    """Return one banner per cause; ``gateways`` is the number of gateways."""
    kinds = [one.problem for one in problems]
    found: list[Banner] = []
    for problem, gateway, listed_at in problems:
        banner = TROUBLES[problem]
        match problem:
            case Problem.PROMETHEUS if Problem.ALERTMANAGER in kinds:
                banner = _NO_MONITORING
            case Problem.ALERTMANAGER if Problem.PROMETHEUS in kinds:
                continue
            case Problem.GATEWAY_RESTS if ActiveProblem(Problem.GATEWAY, gateway) in problems:
                continue
            case Problem.EXPORTER if gateways == kinds.count(Problem.EXPORTER):
                gateway = None  # noqa: PLW2901 - one exporter watches all gateways
        banner = banner._replace(gateway=gateway, listed_at=listed_at)
        if banner not in found:
            found.append(banner)
    return found


ALERT_WORDS = {
    "WhatsAppChannelDisconnected": _("disconnected"),
    "WhatsAppChannelSuspect": _("no activity, checking"),
    "WhatsAppChannelSilent": _("no messages for too long"),
    "WhatsAppChannelNeverHeard": _("connected, but no messages received"),
    "WhatsAppChannelNeedsQrScan": _("waiting for QR scan"),
    "WhatsAppReconnectFailing": _("can't reconnect"),
    "WhatsAppChannelGone": _("no longer listed by the gateway"),
    "WhatsAppChannelStillSilent": _("no messages for more than a day, despite reconnections"),
    "WhatsAppChannelFlapping": _("keeps dropping and coming back"),
    "WhatsAppDeliveryBroken": _("messages do not arrive"),
}
"""Short texts of channel alerts, by alert name."""

STATUSES: dict[str, LazyString] = {
    Status.CONNECTED: _("connected"),
    Status.DISCONNECTED: _("disconnected"),
    Status.QR_REQUIRED: _("waiting for QR scan"),
    Status.INITIALIZING: _("starting"),
    Status.UNKNOWN: _("unknown"),
}
"""A channel's status as the gateway reports it."""

ATTEMPT_KINDS = {AttemptKind.PROBE: _("Probe"), AttemptKind.REPAIR: _("Reconnection")}

STEP_KINDS = {
    StepKind.ASKED: _("Requested by"),
    StepKind.LISTED: _("The gateway's list:"),
    StepKind.CALLED: _("Call to the gateway:"),
    StepKind.ANSWERED: _("Answer:"),
    StepKind.FAILED: _("Error:"),
    StepKind.VERIFYING: _("Verifying the connection"),
    StepKind.QUERIED: _("Query answered:"),
    StepKind.COMPARED: _("Newest message at the gateway:"),
    StepKind.SENT: _("Echo sent:"),
    StepKind.HEARD: _("Echo received"),
    StepKind.LOST: _("Echo not received"),
    StepKind.POSTPONED: _("Postponed:"),
    StepKind.ENDED: _("Outcome"),
}
"""Prefix of a step in the log."""

_STEP_WORDS: dict[StepKind, dict[str, LazyString]] = {
    StepKind.ASKED: {
        AskedBy.ALERTMANAGER: _("an alert"),
        AskedBy.PAGE: _("an operator on the page"),
        AskedBy.CHECK: _("the command check"),
        AskedBy.PROBE: _("a probe"),
        AskedBy.RETRY: _("a retry"),
    },
    StepKind.LISTED: {**STATUSES, "absent": _("not listed")},
    StepKind.CALLED: {
        Step.RECONNECT: _("reconnect"),
        Step.START: _("start the session"),
        Step.QR: _("show the QR code"),
        Step.DELETE: _("delete the session"),
        Step.CREATE: _("create a new session"),
    },
    StepKind.ANSWERED: {
        "qr": _("a QR code is available"),
        "accepted": _("accepted"),
        "initializing": _("the session is starting"),
        "not_started": _("the session is not started"),
        "done": _("done"),
    },
}


def step_words(step: AttemptStep) -> LazyString | str:
    """Return a step's text, translated unless it is the gateway's."""
    return _STEP_WORDS.get(step.kind, {}).get(step.words, step.words)


AUDIT_DETAILS = frozenset(
    {
        N_("Evolution has no message of this instance: DATABASE_SAVE_DATA_NEW_MESSAGE is off?"),
        N_("Whapi has not reported its own name of this channel"),
        N_("another program continues it"),
        N_("messages at most are compared"),
        N_("messages are from a time without data in the log or the store"),
        N_("messages have arrived that the gateway does not list: does it store them?"),
        N_("messages may still be delivered by the gateway"),
        N_("messages of a chat are listed, and no older ones"),
        N_("the gateway lists messages without an id or a direction"),
        N_("the gateway lists messages without their time"),
        N_("the gateway lists no message of this channel, new or old"),
        N_("the gateway lists no such channel"),
        N_("the gateway no longer has it"),
        N_("the gateway repeats a page of its list"),
        N_("the program that sent it ended before the answer"),
        N_("the session does not open one of its chats"),
        N_("the session is down, and only its page has messages"),
        N_("the session's config.gows.storage.messages is off: WAHA keeps none of them"),
        N_("the session's config.noweb.store is off: WAHA keeps none of its messages"),
        N_("the session's page has loaded no chat yet"),
        N_("the webhook does not take them"),
        N_("there is no message log, and no events are taken"),
        N_("this gateway has no call that lists messages"),
    }
)
"""Why an audit or a delivery is incomplete; a number may precede it, and an error follow."""


def audit_detail(text: str) -> str:
    """Return a detail of an audit or a delivery, translated unless it is the gateway's."""
    count, words = re.fullmatch(r"(\d+ )?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]
    for known in (words, words.partition(": ")[0]):
        if known in AUDIT_DETAILS:
            return f"{count}{gettext(known)}{words.removeprefix(known)}"
    return text


_MESSAGE_KINDS = {
    **dict.fromkeys(("chat", "conversation", "extendedText", "text"), _("text")),
    **dict.fromkeys(("audio", "ptt"), _("audio")),
    "image": _("image"),
    "video": _("video"),
    "document": _("document"),
    "media": _("media"),
}


def message_kind(kind: str) -> LazyString | str:
    """Return the label of a message kind; rare kinds keep the gateway's name."""
    return _MESSAGE_KINDS.get(kind, kind)


REPLAYS = {
    None: _("not delivered"),
    Replay.SENDING: _("being delivered again"),
    Replay.DELIVERED: _("delivered again"),
    Replay.REFUSED: _("the webhook refused it"),
    Replay.UNKNOWN: _("unknown whether the webhook has received it; it is not sent again"),
    Replay.GONE: _("the gateway no longer has it"),
}
"""Result of a missed message's delivery."""

QR_STATES = {
    "asking": _("Requesting the code from the gateway …"),
    "code": _("A new code appears automatically before this one expires."),
    "no-image": _(
        "The gateway shows no QR code at the moment: it expects a typed code or a passkey."
    ),
    "starting": _("The session is starting. The code appears shortly."),
    "unreadable": _(
        "The gateway's code cannot be shown here. Please open the gateway's own panel and scan it "
        "there."
    ),
    "failed": _("The gateway does not return a code. Retrying every few seconds."),
    "limited": _("The gateway takes no more requests for now. Please try again later."),
    "busy": _("Too many QR codes are open; close another page first."),
    "none": _("No code is available at the moment."),
    "connected": _("Connected"),
}

SOURCES = {
    MessageSourceKind.LOG: _("From the message table, where Prometheus has no history."),
    MessageSourceKind.EVENTS: _("From the received events, where Prometheus has no history."),
}
"""Origin of a channel's message counts, if not Prometheus."""

VALID_FOR = {
    1: _("1 hour"),
    24: _("24 hours"),
    168: _("7 days"),
    720: _("30 days"),
    8760: _("1 year"),
}
"""Labels of a scan link's validity, by hours."""
