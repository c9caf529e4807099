"""English or Brazilian Portuguese: by the switch, else as the browser asks."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, request
from flask_babel import Babel

LANGUAGES = {"en": "English", "pt_BR": "Português"}
"""The languages by their locales, each by its own name."""

_COOKIE = "language"
_YEAR = 365 * 86400
# What browsers may send; the first one is also for whoever asks for none of them.
_TAGS = {"en": "en", "pt-BR": "pt_BR", "pt": "pt_BR", "pt-PT": "pt_BR"}


def set_up(app: Flask) -> None:
    """Let the application translate."""
    folder = Path(__file__).parent / "translations"
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(folder)
    Babel(app, locale_selector=locale)


def locale() -> str:
    """Return the locale of this request."""
    for chosen in (request.args.get("lang", ""), request.cookies.get(_COOKIE, "")):
        if chosen in LANGUAGES:
            return chosen
    return _TAGS[request.accept_languages.best_match(list(_TAGS), "en") or "en"]


def remember(response: Response) -> None:
    """Keep what was chosen with the switch, in a cookie."""
    chosen = request.args.get("lang", "")
    if chosen in LANGUAGES:
        response.set_cookie(
            _COOKIE,
            chosen,
            max_age=_YEAR,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
