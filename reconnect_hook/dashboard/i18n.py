"""Language choice, and the template globals: formatted times and numbers, texts, URLs."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from flask import Flask, Response, request, url_for
from flask_babel import (
    Babel,
    format_datetime,
    format_decimal,
    format_percent,
    get_locale,
    gettext,
    ngettext,
    pgettext,
)
from markupsafe import Markup

from reconnect_hook.dashboard import channel_view, strings
from reconnect_hook.dashboard.channel_view import SHOWS, SORTS
from reconnect_hook.dashboard.snapshot import GatewayPanels
from zapwatch import __version__

LANGUAGES = {"en": "English", "pt_BR": "Português"}
"""Language names by locale, each in its own language."""

_COOKIE = "language"
_YEAR = 365 * 86400
# Accept-Language tags; the first is the default.
_TAGS = {"en": "en", "pt-BR": "pt_BR", "pt": "pt_BR", "pt-PT": "pt_BR"}


def init_babel(app: Flask) -> None:
    """Set up Flask-Babel with the package's translations."""
    folder = Path(__file__).parent / "translations"
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(folder)
    Babel(app, locale_selector=locale)


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
        response.set_cookie(
            _COOKIE,
            chosen,
            max_age=_YEAR,
            path=request.script_root or "/",
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )


_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
"""Unit symbols and their seconds; both languages and page.js use the same."""
_STATIC = Path(__file__).parent / "static"
_TIME = Markup('<time datetime="{}" data-as="{}" title="{}">{}</time>')


def init_templates(app: Flask, panels: GatewayPanels) -> None:
    """Register the filters and globals that the templates use."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters["capitalize_first"] = lambda text: str(text)[:1].upper() + str(text)[1:]
    app.jinja_env.globals.update(
        named=panels.named,
        several=lambda: panels.several,
        all_gateways=lambda: list(panels.all),
        version=__version__,
        languages=LANGUAGES,
        shows=SHOWS,
        sorts=SORTS,
        kinds=strings.KINDS,
        meanings=strings.MEANINGS,
        outcomes=strings.OUTCOMES,
        probe_outcomes=strings.PROBE_OUTCOMES,
        reasons=strings.REASONS,
        webhook_faults=strings.WEBHOOK_FAULTS,
        statuses=strings.STATUSES,
        attempt_kinds=strings.ATTEMPT_KINDS,
        step_kinds=strings.STEP_KINDS,
        step_words=strings.step_words,
        message_kind=strings.message_kind,
        replays=strings.REPLAYS,
        alert_words=strings.ALERTS,
        banners=lambda problems: strings.banners(problems, len(panels.all)),
        qr_states=strings.QR_STATES,
        sources=strings.SOURCES,
        strip_begin=channel_view.strip_begin,
        strip_marks=channel_view.strip_marks,
        strip_spans=channel_view.strip_spans,
        hours_in=channel_view.hours_in,
        moment=moment,
        duration=duration,
        number=number,
        percent=percent,
        hour=hour,
        day=day,
        static=static,
        this_address=this_address,
        _=gettext,
        ngettext=ngettext,
        pgettext=pgettext,
    )

    @app.context_processor
    def of_this_request() -> dict[str, object]:
        return {"current_locale": locale(), "language_tag": str(get_locale()).replace("_", "-")}


def moment(seconds: float, style: str = "ago") -> Markup:
    """Return a ``<time>`` element, which page.js converts to the viewer's time zone.

    Without JavaScript it shows the server's zone. ``style``: ``ago`` or ``at``.
    """
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    absolute = format_datetime(here, "short", rebase=False)
    utc = datetime.fromtimestamp(round(seconds), UTC).isoformat().replace("+00:00", "Z")
    return _TIME.format(utc, style, f"{absolute} {here.tzname()}", absolute)


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that divides it exactly, seconds at the least."""
    whole = round(seconds)
    unit, size = next((unit, size) for unit, size in _UNITS if whole % size == 0)
    return f"{whole // size} {unit}"


def percent(value: float) -> str:
    """Return a share in percent, rounded down: only 1.0 is 100 %."""
    return str(format_percent(math.floor(value * 10_000) / 10_000, "#,##0.##%"))


def number(value: float) -> str:
    """Return a number in the request's locale, with one decimal at most."""
    return str(format_decimal(round(value, 1)))


def hour(seconds: float) -> str:
    """Return weekday and time in the server's zone."""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    return str(format_datetime(here, "EEE HH:mm", rebase=False))


def day(seconds: float) -> str:
    """Return the weekday in the server's zone."""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    return str(format_datetime(here, "EEE", rebase=False))


def static(name: str) -> str:
    """Return the URL of a static file, with its version and mtime against stale caches."""
    changed = int((_STATIC / name).stat().st_mtime)
    endpoint = "scan.static" if request.blueprint == "scan" else "page.static"
    return url_for(endpoint, filename=name, v=f"{__version__}-{changed}")


def this_address(**more: str) -> str:
    """Return the current URL with additional query parameters."""
    query = urlencode({**request.args.to_dict(), **more})
    return quote(request.script_root + request.path) + (f"?{query}" if query else "")
