"""Dialog of ``zapwatch init``: prompts in English or Portuguese, and trials of the answers.

``--yes`` takes the default answers.
"""

from __future__ import annotations

import gettext
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from zapwatch.alertmanager import (
    AlertmanagerApi,
    AlertmanagerError,
    Fate,
    is_own,
    send_test,
    way_names,
)
from zapwatch.channels import folded
from zapwatch.cli import printable
from zapwatch.config.readers import SettingsError, fingerprint
from zapwatch.config.settings import Settings
from zapwatch.http import HttpClient, HttpError, one_line
from zapwatch.messages.source import open_source

LANGUAGES = {"en": "en", "pt-BR": "pt_BR"}
"""Values of ``--language``, and the locale of each."""

_FOLDER = Path(__file__).parent / "translations"


_CATALOG = [gettext.NullTranslations()]
"""Translations of the chosen language."""


def choose_language(tag: str) -> None:
    """Load the translations of a language, a key of LANGUAGES."""
    _CATALOG[0] = gettext.translation("messages", _FOLDER, [LANGUAGES[tag]], fallback=True)


def _(text: str) -> str:
    return _CATALOG[0].gettext(text)


def language_of(environ: Mapping[str, str]) -> str:
    """Return the language that the locale variables select, English by default."""
    name = next((v for n in ("LC_ALL", "LC_MESSAGES", "LANG") if (v := environ.get(n))), "")
    return "pt-BR" if name.lower().startswith("pt") else "en"


Check = Callable[[str], object]
"""Raises SettingsError for an invalid answer."""


def accept(_answer: str) -> None:
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
        click.secho(printable(text), fg="red", err=self.assume)

    def text(
        self, question: str, default: str = "", check: Check = accept, *, hidden: bool = False
    ) -> str:
        """Prompt for a line until ``check`` accepts it."""
        while not self.assume:
            answer = self._prompt(question, default, hidden=hidden).strip()
            try:
                check(answer)
            except SettingsError as error:
                self.warn(str(error))
            else:
                return answer
        check(default)
        return default

    def secret(self, question: str, present: str = "", check: Check = accept) -> str:
        """Prompt without echo until ``check`` accepts the answer; Enter keeps ``present``."""
        if present:
            question += " (" + _("Enter keeps the current one") + f": {fingerprint(present)})"
        else:
            question += " " + _("(not shown)")
        return self.text(question, present, check, hidden=True)

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
            return click.getchar()[:1]  # keys typed in one go arrive together
        except (KeyboardInterrupt, EOFError):
            raise StoppedError from None

    def _prompt(self, question: str, default: str = "", *, hidden: bool = False) -> str:
        try:
            answer: str = click.prompt(
                question,
                default=default,
                show_default=bool(default) and not hidden,
                hide_input=hidden,
            )
        except click.Abort:
            raise StoppedError from None
        return answer


def has_terminal() -> bool:
    """Whether stdin and stdout are terminals, so that prompts work."""
    return os.isatty(0) and os.isatty(1)


_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_HEARTBEAT_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_HOUR = 3600.0
_INTEGRATION = re.compile(r"integration=\"?(\w+)")
_CALLED = re.compile(r'\b(Post|Get) "[^"]*": ')
_ERROR = re.compile(r'err="((?:[^"\\]|\\.)*)"')


def count_recent(settings: Settings) -> int:
    """Count the channels with a logged message in the last hour; raise MessageLogError.

    Spellings of a name count as one channel.
    """
    source = open_source(settings, settings.gateways[0])
    if source is None:
        return 0
    try:
        return len({folded(name) for name in source.recent(_HOUR).ages})
    finally:
        source.close()


def try_heartbeat(url: str) -> str:
    """Call the address once; return the error, empty on success."""
    try:
        answer = HttpClient(url).request("GET", "", _HEARTBEAT_SECONDS)
    except HttpError as error:
        return one_line(error.detail)
    return "" if answer.is_success else f"HTTP {answer.status}"


def find_alertmanager() -> str | None:
    """Return the path of Alertmanager's executable, None if it is not installed."""
    found = (shutil.which(name) for name in ("prometheus-alertmanager", "alertmanager"))
    return next(filter(None, found), None)


def send_trial(
    program: str, config: Mapping[str, Any], address: Path, tell: Callable[[str], None]
) -> bool:
    """Send a test message through a temporary Alertmanager; return whether all was delivered.

    It runs for some seconds with the given configuration but without the hook, which need not run
    yet. Raises AlertmanagerError.
    """
    with tempfile.TemporaryDirectory(prefix="zapwatch-") as name:
        folder = Path(name)
        trial = _for_people_alone(config)
        trial["templates"] = [*trial["templates"][:-1], str(address)]
        file = folder / "alertmanager.yml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(trial))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            at = f"127.0.0.1:{listener.getsockname()[1]}"
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - the program that find_alertmanager() found
                [
                    program,
                    f"--config.file={file}",
                    f"--storage.path={folder / 'data'}",
                    f"--web.listen-address={at}",
                    "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ,
                start_new_session=True,
            )
        try:
            api = AlertmanagerApi(f"http://{at}")
            _wait_until_ready(api, process, log)
            fates = send_test(api, trial)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for way, fate in fates.items():
            tell(f"✓ {way}: " + _("delivered") if fate is Fate.DELIVERED else f"✗ {way}")
        for line in _errors(log, way_names(trial)):
            tell(line)
        return set(fates.values()) == {Fate.DELIVERED}


def _for_people_alone(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that routes everything to people, and nothing to the hook."""
    people = next(one for one in config["receivers"] if one["name"] == "people")
    receiver = {
        key: [one for one in entries if not is_own(one)] if key.endswith("_configs") else entries
        for key, entries in people.items()
    }
    return {
        "templates": list(config["templates"]),
        "route": {"receiver": "people", "group_by": ["test"], "group_wait": "0s"},
        "receivers": [receiver],
    }


def _wait_until_ready(api: AlertmanagerApi, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            said = one_line(log.read_text(errors="replace").strip().splitlines()[-1])
            raise AlertmanagerError(_("Alertmanager did not start:") + f" {said}")
        try:
            api.config(1.0)
        except AlertmanagerError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _errors(log: Path, ways: Mapping[str, str]) -> list[str]:
    """Return Alertmanager's last error of each failed integration."""
    said = {}
    for line in log.read_text(errors="replace").splitlines():
        integration, error = _INTEGRATION.search(line), _ERROR.search(line)
        if error:
            name = ways.get(integration[1], integration[1]) if integration else "alertmanager"
            # The address that was called may contain a secret.
            why = _CALLED.sub("", error[1].replace('\\"', '"'))
            said[name] = f"  {name}: {one_line(why)}"
    return list(said.values())
