"""What the templates are given: times, numbers, sentences, addresses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from babel.units import format_unit
from flask import Flask, request, url_for
from flask_babel import format_datetime, format_decimal, get_locale, gettext, ngettext, pgettext
from markupsafe import Markup

from reconnect_hook.page import drawing, words
from reconnect_hook.page.language import LANGUAGES, locale
from reconnect_hook.page.listing import SHOWS, SORTS
from reconnect_hook.page.panels import Panels
from whatsapp import __version__

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_STATIC = Path(__file__).parent / "static"
_TIME = Markup('<time datetime="{}" data-as="{}" title="{}">{}</time>')


def set_up(app: Flask, panels: Panels) -> None:
    """Let the templates know all of it."""
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
        kinds=words.KINDS,
        meanings=words.MEANINGS,
        outcomes=words.OUTCOMES,
        probe_outcomes=words.PROBE_OUTCOMES,
        reasons=words.REASONS,
        sentences=words.TROUBLES,
        qr_states=words.QR_STATES,
        marks=drawing.marks,
        hours_in=drawing.hours_in,
        moment=moment,
        duration=duration,
        number=number,
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
    """Return a time, which the script shows in the zone of whoever looks.

    Without the script it stands in this machine's zone. ``style``: ``ago`` or ``at``.
    """
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    absolute = format_datetime(here, "short", rebase=False)
    utc = datetime.fromtimestamp(round(seconds), UTC).isoformat().replace("+00:00", "Z")
    return _TIME.format(utc, style, f"{absolute} {here.tzname()}", absolute)


def duration(seconds: float) -> str:
    """Return a length of time in the largest unit that fits it exactly, a second at least."""
    whole = round(seconds)
    unit, size = next((unit, size) for unit, size in _UNITS if whole % size == 0)
    locale_now = get_locale() or "en"
    return format_unit(whole // size, f"duration-{unit}", length="narrow", locale=locale_now)


def number(value: float) -> str:
    """Return a number as it is written here."""
    return str(format_decimal(round(value, 1)))


def hour(seconds: float) -> str:
    """Return a day and hour in this machine's zone."""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    return str(format_datetime(here, "EEE HH:mm", rebase=False))


def day(seconds: float) -> str:
    """Return the day of the week in this machine's zone."""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    return str(format_datetime(here, "EEE", rebase=False))


def static(name: str) -> str:
    """Return the address of a file of the package; another version of it has another address."""
    changed = int((_STATIC / name).stat().st_mtime)
    return url_for("page.static", filename=name, v=f"{__version__}-{changed}")


def this_address(**more: str) -> str:
    """Return the address of this very page, with more in its query."""
    query = urlencode({**request.args.to_dict(), **more})
    return quote(request.path) + (f"?{query}" if query else "")
