"""Prompts at a terminal in English or Portuguese; ``--yes`` takes the default answers."""

from __future__ import annotations

import gettext
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from zapwatch.config.readers import SettingsError, fingerprint

LANGUAGES = {"en": "en", "pt-BR": "pt_BR"}
"""Values of ``--language``, and the locale of each."""

_FOLDER = Path(__file__).parent / "translations"


class _Catalog:
    """Translations of the chosen language."""

    def __init__(self) -> None:
        self.translations = gettext.NullTranslations()


_CATALOG = _Catalog()


def choose_language(tag: str) -> None:
    """Load the translations of a language, a key of LANGUAGES."""
    _CATALOG.translations = gettext.translation(
        "messages", _FOLDER, [LANGUAGES[tag]], fallback=True
    )


def _(text: str) -> str:
    return _CATALOG.translations.gettext(text)


translate = _


def language_of(environ: Mapping[str, str]) -> str:
    """Return the language that the locale variables select, English by default."""
    name = next((v for n in ("LC_ALL", "LC_MESSAGES", "LANG") if (v := environ.get(n))), "")
    return "pt-BR" if name.lower().startswith("pt") else "en"


Check = Callable[[str], object]
"""Raises SettingsError for an invalid answer."""


def _accept(_answer: str) -> None:
    """Accept any answer."""


class StoppedError(Exception):
    """The user has stopped the dialog."""


class Console:
    """Dialog at a terminal; each prompt raises StoppedError at Ctrl-C or the end of input.

    ``assume`` skips the prompts and checks the defaults, which may raise SettingsError.
    """

    def __init__(self, *, assume: bool) -> None:
        self.assume = assume

    def say(self, text: str = "") -> None:
        """Print a line."""
        click.echo(text)

    def warn(self, text: str) -> None:
        """Print an error; to stderr if ``assume``."""
        click.secho(text, fg="red", err=self.assume)

    def text(self, question: str, default: str = "", check: Check = _accept) -> str:
        """Prompt for a line until ``check`` accepts it."""
        if self.assume:
            check(default)
            return default
        while True:
            answer = self._prompt(question, default).strip()
            if self._is_right(answer, check):
                return answer

    def secret(self, question: str, present: str = "", check: Check = _accept) -> str:
        """Prompt without echo until ``check`` accepts the answer; Enter keeps ``present``."""
        if self.assume:
            check(present)
            return present
        if present:
            question += " (" + _("Enter keeps the current one") + f": {fingerprint(present)})"
        else:
            question += " " + _("(not shown)")
        while True:
            answer = self._prompt(question, hidden=True).strip() or present
            if self._is_right(answer, check):
                return answer

    def _is_right(self, answer: str, check: Check) -> bool:
        try:
            check(answer)
        except SettingsError as error:
            self.warn(str(error))
            return False
        return True

    def choice(self, question: str, options: Sequence[tuple[str, str]], default: str) -> str:
        """Prompt for one of the options, pairs of value and label; return its value."""
        if self.assume:
            return default
        values = [value for value, _text in options]
        self.say(question)
        for number, (_value, text) in enumerate(options, 1):
            self.say(f"  {number}) {text}")
        while True:
            place = str(values.index(default) + 1) if default in values else ""
            answer = self._prompt(_("Number"), place).strip()
            if answer in values:
                return answer
            if answer.isdecimal() and 0 < int(answer) <= len(values):
                return values[int(answer) - 1]
            self.warn(_("Please type one of the numbers."))

    def confirm(self, question: str, *, default: bool) -> bool:
        """Prompt for yes or no."""
        if self.assume:
            return default
        yes, no = _("y"), _("n")
        shown = f"{yes.upper()}/{no}" if default else f"{yes}/{no.upper()}"
        while True:
            answer = self._prompt(f"{question} ({shown})").strip().lower()
            if not answer:
                return default
            if answer[0] in {yes, no}:
                return answer[0] == yes

    def key(self, question: str) -> str:
        """Wait for a single key press and return it."""
        click.echo(question)
        try:
            return click.getchar()
        except (KeyboardInterrupt, EOFError):
            raise StoppedError from None

    def _prompt(self, question: str, default: str = "", *, hidden: bool = False) -> str:
        try:
            answer: str = click.prompt(
                question, default=default, show_default=bool(default), hide_input=hidden
            )
        except click.Abort:
            raise StoppedError from None
        return answer


def has_terminal() -> bool:
    """Whether stdin and stdout are terminals, so that prompts work."""
    return os.isatty(0) and os.isatty(1)
