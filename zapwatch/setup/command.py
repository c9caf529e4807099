"""``zapwatch init``: the dialog, which tries each answer before it writes the settings."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from zapwatch.alertmanager import AlertmanagerError, check_file, ways_to_people
from zapwatch.cli import WRONG_USAGE, manual, parser, printable
from zapwatch.config.files import (
    hook_link,
    local_address,
    parse_pixelhub_env,
    read_env_text,
    read_secrets,
    read_web_config,
    secret_in,
)
from zapwatch.config.load import DEFAULT_ENV_FILE, parse
from zapwatch.config.readers import MessageSourceKind, Reader, SettingsError, check_strength
from zapwatch.config.settings import BY_NAME, ONE_GATEWAY, PIXELHUB, Settings
from zapwatch.gateways import NAMED_CHANNELS, PUBLIC_URLS, TYPES
from zapwatch.gateways.base import GatewayError, GatewayErrorKind
from zapwatch.gateways.registry import ADAPTERS, list_once
from zapwatch.messages.message import MessageLogError
from zapwatch.server import fail
from zapwatch.setup import dialog
from zapwatch.setup.dialog import (
    LANGUAGES,
    Console,
    StoppedError,
    _,
    choose_language,
    has_terminal,
    language_of,
)
from zapwatch.setup.files import (
    INSTALLED,
    AlertmanagerFiles,
    EnvFile,
    alertmanager_folder,
    in_checkout,
    join_group,
    services_may_read,
    trusted,
)
from zapwatch.setup.ways import WAYS, Field, read_way

_SHOWN = 5  # channels
_LIKELY_ENVS = ("../pixelhub/.env", "~/pixelhub/.env", "/var/www/pixelhub/.env")
_STOPPED = 130
_NAMES = {
    "wppconnect": "WPPConnect Server",
    "evolution": "Evolution API",
    "waha": "WAHA",
    "whapi": "Whapi.Cloud",
    "gowa": "GOWA (go-whatsapp-web-multidevice)",
    "openwa": "OpenWA",
}
"""Display names of gateway types that differ from the type."""
_SOURCES = {
    "wrapper": (MessageSourceKind.LOG, MessageSourceKind.EVENTS),
    **dict.fromkeys(
        ("evolution", "waha", "openwa"), (MessageSourceKind.EVENTS, MessageSourceKind.ACTIVITY)
    ),
    "whapi": (MessageSourceKind.LOG, MessageSourceKind.EVENTS, MessageSourceKind.ACTIVITY),
}
"""Message sources of each type of gateway, the best first; other types have events."""


def main(arguments: Sequence[str] | None = None, *, runs_next: bool = False) -> int:
    """Run the dialog; return the exit code.

    ``runs_next``: the caller starts the programs, so that no command for that is shown.
    """
    options = _parser().parse_args(arguments)
    choose_language(options.language or language_of(os.environ))
    console = Console(assume=options.yes)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not options.yes and not has_terminal():
        fail("init", "there is no terminal for the questions: answer them with --yes and --set")
    try:
        setup = Setup(console, options)
        return setup.run(runs_next=runs_next)
    except SettingsError as error:
        console.warn(f"init: {error}")
        return 2
    except (StoppedError, KeyboardInterrupt):
        console.say()
        console.say(_("Stopped. Tested answers are kept; the same command continues from there."))
        return _STOPPED


def wants_demonstration() -> bool:
    """Offer the demonstration before the first setup; return whether it is chosen."""
    choose_language(language_of(os.environ))
    question = _("Nothing is set up yet. Enter: set up your gateway. d: a demonstration.")
    try:
        return Console(assume=False).key(question).lower() == "d"
    except StoppedError:
        raise SystemExit(_STOPPED) from None


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "zapwatch init",
        manual(
            "Asks for the gateway, the message source and the people to notify, tries each answer "
            "at once, and writes the settings and Alertmanager's file. It asks before it "
            "overwrites a file.",
            settings="those that it asks for, unless the environment or --set has them",
            exit_codes={
                0: "everything is written and works",
                1: "with --yes: an answer does not work",
                2: WRONG_USAGE,
                _STOPPED: "stopped; tried answers are kept",
            },
            examples=[
                "zapwatch init",
                "zapwatch init --yes --set WPP_GATEWAY_TYPE=waha --set WPP_GATEWAY_SECRET=@key",
                "zapwatch init --yes --tell ntfy url=https://ntfy.example.com/my-topic",
            ],
        ),
    )
    made.add_argument("--yes", action="store_true", help="ask nothing; use flags and defaults")
    made.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting; @FILE reads the value from a file",
    )
    made.add_argument(
        "--tell",
        metavar=("WAY", "NAME=VALUE"),
        nargs="+",
        action="append",
        default=[],
        help=f"a way to notify people: {', '.join(WAYS)}; may be repeated",
    )
    made.add_argument("--address", metavar="URL", help="address at which people open the page")
    made.add_argument(
        "--overwrite", action="store_true", help="with --yes: replace an existing Alertmanager file"
    )
    made.add_argument(
        "--alertmanager",
        metavar="FOLDER",
        help="folder of its file (default: etc beside the settings, or /etc/prometheus)",
    )
    made.add_argument("--language", choices=LANGUAGES, help="default: the terminal's")
    return made


class Setup:
    """One run of the dialog; each step tries its answers and writes them before the next."""

    def __init__(self, console: Console, options: argparse.Namespace) -> None:
        self._console = console
        self._options = options
        self._language = options.language or language_of(os.environ)
        self._env = EnvFile(Path(options.env_file or DEFAULT_ENV_FILE))
        folder = options.alertmanager
        self._files = AlertmanagerFiles(
            Path(folder).resolve() if folder else alertmanager_folder(self._env.path)
        )
        # Flags are always written; the environment only answers questions.
        self._pending = _flags(options)
        environment = {name: value for name in BY_NAME if (value := os.environ.get(name, ""))}
        self._given = environment | self._pending
        self._told = [read_way(words, _read_file) for words in options.tell]
        self._written: Sequence[Path] = ()
        self._log_failed = False

    def run(self, *, runs_next: bool) -> int:
        """Run all steps; return the exit code."""
        say = self._console.say
        say(_("Zapwatch's setup. Enter accepts the answer in brackets; Ctrl-C stops."))
        if not (self._gateway() and self._messages()):
            return 1
        self._token()
        works = self._people()
        works = self._heartbeat() and works
        self._summary(runs_next=runs_next)
        return 0 if works else 1

    # Current settings.

    def _value(self, name: str) -> str:
        """Return the effective text of a setting, empty if unset."""
        return self._values().get(name, "")

    def _values(self) -> dict[str, str]:
        own = {name: self._env.get(name) for name in self._env.values} | self._pending
        theirs: Mapping[str, str] = {}
        path = own.get("PIXELHUB_ENV", "")
        if path:
            # Values of the example must not override PixelHub's.
            own = {
                name: value
                for name, value in own.items()
                if name in self._pending or not self._env.is_example(name)
            }
            theirs = parse_pixelhub_env(read_env_text(path, "PIXELHUB_ENV"))
        wins = {name: value for name, value in read_secrets(own).items() if value}
        return {**read_secrets(theirs), **wins}

    @property
    def _kind(self) -> str:
        """The type of the gateway; raises SettingsError."""
        return str(BY_NAME["WPP_GATEWAY_TYPE"].read(Reader(self._values())))

    def _parsed(self, *, needs_log: bool = False) -> Settings:
        return parse(self._values(), needs_log=needs_log)

    def _ask(self, name: str, question: str, default: str = "") -> str:
        """Prompt for a setting unless it was given, and note it; raise SettingsError."""
        row = BY_NAME[name]
        known = self._value(name)

        def check(answer: str) -> None:
            if not answer and row.default is None:
                flag = f"--set {name}=..." if self._console.assume else name
                raise SettingsError(f"{flag}: " + _("A value is required."))
            row.read(Reader({name: answer}))

        if name in self._given:
            value = self._given[name]
            check(value)
        elif row.secret:
            value = self._console.secret(question, known, check)
        else:
            value = self._console.text(question, known or default, check)
        return self._note(name, value)

    def _note(self, name: str, value: str) -> str:
        """Note a value that differs from the effective one, which may be PixelHub's."""
        if value != self._value(name):
            self._pending[name] = value
            if self._env.values.get(f"{name}_FILE"):
                self._pending[f"{name}_FILE"] = ""  # only one of the two may be set
        return value

    def _keep(self) -> None:
        """Write the step's values."""
        self._env.update(self._pending)
        self._pending.clear()

    def _until_it_works(self, ask: Callable[[], bool]) -> bool:
        """Repeat a step until it works or its answers are kept, then write them.

        ``ask`` prompts, tries the answers and returns whether they work. Returns False if they do
        not and there is no one to ask; raises StoppedError.
        """
        while not ask():
            if self._console.assume:
                return False
            if not self._again():
                break
        self._keep()
        return True

    def _again(self) -> bool:
        """Offer to repeat the step after a failure; raise StoppedError."""
        answer = self._console.choice(
            _("What now?"),
            [
                ("again", _("Correct the answers")),
                ("keep", _("Keep them anyway and continue")),
                ("stop", _("Stop here")),
            ],
            "again",
        )
        if answer == "stop":
            raise StoppedError
        self._given.clear()
        return answer == "again"

    # Steps.

    def _title(self, number: str, text: str) -> None:
        self._console.say()
        self._console.say(f"{number} {text}")

    def _gateway(self) -> bool:
        self._title("1/4", _("The gateway"))
        if self._value("GATEWAYS_FILE"):
            if not self._env.values:
                # The example's own gateway must not be beside those of the file.
                self._pending |= dict.fromkeys(ONE_GATEWAY, "")
            self._parsed()
            self._console.say(_("GATEWAYS_FILE names several gateways; they stay as they are."))
            return True
        is_given = any(name.startswith("WPP_GATEWAY_") for name in self._given)
        is_known = bool(self._value("WPP_GATEWAY_BASE_URL")) and not is_given
        if is_known and self._try_gateway() and self._console.confirm(_("Keep it?"), default=True):
            return True
        return self._until_it_works(self._ask_gateway)

    def _ask_gateway(self) -> bool:
        names = _NAMES | {"wrapper": _("PixelHub's own gateway (WPPConnect behind PixelHub)")}
        self._pending["WPP_GATEWAY_TYPE"] = self._given.get("WPP_GATEWAY_TYPE") or (
            self._console.choice(
                _("Which gateway do you run?"),
                [(kind, names.get(kind, kind)) for kind in TYPES],
                self._value("WPP_GATEWAY_TYPE").lower() or "wrapper",
            )
        )
        kind = self._kind
        if kind in {"wrapper", "whapi"}:
            self._pixelhub()
        if kind in PUBLIC_URLS:
            # PixelHub's file may still name a previous gateway.
            self._pending.setdefault("WPP_GATEWAY_BASE_URL", PUBLIC_URLS[kind])
        self._ask("WPP_GATEWAY_BASE_URL", _("Address of the gateway, with its port"))
        if kind in NAMED_CHANNELS:
            self._ask("WPP_GATEWAY_NAME", _("Name of the channel"))
        self._ask(
            "WPP_GATEWAY_SECRET", _("Its key (secret, API key or token; any word if it has none)")
        )
        return self._try_gateway()

    def _pixelhub(self) -> None:
        """Prompt for PixelHub's .env, which has most of the answers."""
        likely = next((p for p in _LIKELY_ENVS if Path(p).expanduser().is_file()), "")
        known = self._value("PIXELHUB_ENV") or likely

        def check(path: str) -> None:
            found = read_env_text(_absolute(path), "PIXELHUB_ENV") if path else ""
            if path and not PIXELHUB & parse_pixelhub_env(found).keys():
                raise SettingsError(_("PixelHub's settings are not in that file."))

        path = self._given.get("PIXELHUB_ENV") or self._console.text(
            _("PixelHub's .env, if it is on this machine (empty: none)"), known, check
        )
        check(path)
        path = _absolute(path)
        self._pending["PIXELHUB_ENV"] = path
        if path and self._console.assume:
            self._console.say(f"  PIXELHUB_ENV={path}")
        if path and self._has_services and not services_may_read(path):
            question = _(
                "The services' user zapwatch cannot read that file. Add it to the file's group?"
            )
            if self._console.confirm(question, default=True):
                join_group(path)
            if not services_may_read(path):
                self._console.warn(_("zapwatch still cannot read it:") + f" {path}")

    def _try_gateway(self) -> bool:
        try:
            settings = self._parsed()
            listed = list_once(settings.gateways[0])
        except SettingsError as error:
            self._console.warn(f"✗ {error}")
            if "INFRA_SECRET_KEY" in str(error) and not self._console.assume:
                self._ask("INFRA_SECRET_KEY", _("PixelHub's INFRA_SECRET_KEY (empty: none)"))
                return bool(self._value("INFRA_SECRET_KEY")) and self._try_gateway()
            return False
        except GatewayError as error:
            adapter = ADAPTERS[self._kind]
            likely = "  " + _("Most likely:") + " " + _(adapter.hints[error.reason])
            self._console.warn(f"✗ {error.reason}: {error.detail}")
            if error.reason not in {GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT}:
                likely += " " + _("Its usual port:") + f" {adapter.usual_port}"
            self._console.warn(likely)
            if self._console.assume or error.reason is not GatewayErrorKind.TLS:
                return False
            name = "WPP_GATEWAY_CA_FILE"
            known = self._value(name)
            file = self._ask(name, _("PEM file with the gateway's own certificate (empty: none)"))
            return self._note(name, _absolute(file)) != known and self._try_gateway()
        shown = sorted(listed, key=lambda channel: channel.key)[:_SHOWN]
        names = [f"{printable(one.id)} ({one.status})" for one in shown]
        more = ["…"] if len(listed) > _SHOWN else []
        line = ", ".join([*names, *more]) or _("none yet")
        base_url = settings.gateways[0].base_url
        self._console.say(f"✓ {base_url}: " + _("channels:") + f" {len(listed)}")
        self._console.say(f"  {line}")
        return True

    def _messages(self) -> bool:
        if self._value("GATEWAYS_FILE"):
            return True
        self._title("2/4", _("Messages: they reveal a frozen session"))
        texts = {
            MessageSourceKind.LOG: _("PixelHub's table webhook_raw_logs"),
            MessageSourceKind.EVENTS: _("The gateway posts its events to Zapwatch"),
            MessageSourceKind.ACTIVITY: _("The gateway's channel list (less exact, no setup)"),
            MessageSourceKind.NONE: _("None: only drops are detected"),
        }
        sources = (*_SOURCES.get(self._kind, (MessageSourceKind.EVENTS,)), MessageSourceKind.NONE)
        known = self._env.values.get("MESSAGE_SOURCE", "").lower()
        known = known if known in sources else sources[0]
        url = self._given.get("MESSAGE_LOG_URL") or self._value("MESSAGE_LOG_URL")
        if known == MessageSourceKind.LOG and url.lower() == "none":
            known = MessageSourceKind.NONE

        def ask() -> bool:
            answer = self._given.get("MESSAGE_SOURCE") or self._console.choice(
                _("Which message source?"), [(one.value, texts[one]) for one in sources], known
            )
            source = BY_NAME["MESSAGE_SOURCE"].read(Reader({"MESSAGE_SOURCE": answer}))
            self._pending["MESSAGE_SOURCE"] = source.value
            if source is MessageSourceKind.LOG:
                return self._try_log()
            if source is MessageSourceKind.EVENTS:
                self._show_events_address()
            else:
                self._console.say(f"✓ {texts[source]}")
            return True

        return self._until_it_works(ask)

    def _database(self) -> None:
        url = self._given.get("MESSAGE_LOG_URL") or self._value("MESSAGE_LOG_URL")
        if url.lower() not in {"", "none"} and not self._log_failed:
            self._note("MESSAGE_LOG_URL", url)
            return
        self._note("MESSAGE_LOG_URL", "")
        if self._value("PIXELHUB_ENV") and self._value("DB_HOST") and not self._log_failed:
            self._console.say("  " + _("The database is the one of PixelHub's .env."))
            return
        self._ask("DB_HOST", _("Database server"), "localhost")
        self._ask("DB_PORT", _("Its port"), "3306")
        self._ask("DB_NAME", _("Database"), "pixel_hub")
        self._ask("DB_USER", _("User"), "zapwatch")
        self._ask("DB_PASS", _("Password"))

    def _show_events_address(self) -> None:
        if not self._value("MESSAGES_TOKEN"):
            self._pending["MESSAGES_TOKEN"] = secrets.token_hex(16)
        settings = self._parsed()
        (gateway,) = settings.gateways
        check_strength("MESSAGES_TOKEN", gateway.messages_token)
        name, token = (quote(one, safe="") for one in (gateway.name, gateway.messages_token))
        self._console.say(_("✓ Make the gateway post its events to this address:"))
        exporter = local_address(settings, settings.exporter_listen)
        self._console.say(f"  {exporter}/messages/{name}?token={token}")
        self._console.say("  " + _("How, for each gateway and in containers: docs/messages.md"))

    def _try_log(self) -> bool:
        self._database()
        try:
            heard = dialog.count_recent(self._parsed(needs_log=True))
        except (SettingsError, MessageLogError) as error:
            self._console.warn(f"✗ {error}")
            self._log_failed = True
            return False
        self._console.say("✓ " + _("Channels with a message in the last hour:") + f" {heard}")
        return True

    def _token(self) -> None:
        """Ensure a HOOK_TOKEN, the page's password, which Alertmanager sends too.

        Raises SettingsError if it can be guessed.
        """
        given = self._given.get("HOOK_TOKEN")
        if given or not self._value("HOOK_TOKEN"):
            # Alertmanager's existing token, since its file may stay.
            self._note("HOOK_TOKEN", given or self._files.kept_token() or secrets.token_hex(16))
        check_strength("HOOK_TOKEN", self._value("HOOK_TOKEN"))
        self._keep()

    def _people(self) -> bool:
        console = self._console
        self._title("3/4", _("Who is notified when a person has to act?"))
        present = self._files.present()
        if present is not None and not self._may_replace(present):
            if self._files.is_foreign:
                console.say("  " + _("What Zapwatch needs in that file: docs/prometheus.md"))
                self._page_address()
            self._files.change_token(self._value("HOOK_TOKEN"))
            self._pending["ALERTMANAGER_FILE"] = str(self._files.file)
            self._keep()
            is_ignored = self._told or (self._options.address and not self._files.is_foreign)
            if console.assume and is_ignored:
                console.warn("✗ " + _("That file stays as it is; --overwrite replaces it."))
                return False
            return True
        page = self._page_address()
        chosen = list(self._told)
        while True:
            if not chosen and console.assume:
                console.say("  " + _("For now: the log of the Zapwatch server") + " (--tell)")
            elif not chosen:
                chosen = self._choose_ways()
            people = [WAYS[name].build(values, page) for name, values in chosen]
            settings = self._parsed()
            hook = local_address(settings, settings.hook_listen)
            tls = read_web_config(settings.web_config_file).tls
            trust = trusted(tls.certificate) if tls else {}
            config = self._files.config(hook, self._language, people, trust)
            self._written = self._files.write(config, self._value("HOOK_TOKEN"), page)
            self._pending["ALERTMANAGER_FILE"] = str(self._files.file)
            self._keep()
            works = self._send_test(config) if chosen else True
            if works or console.assume:
                return works
            if not self._again():
                return True
            chosen = []

    def _may_replace(self, present: Mapping[str, object]) -> bool:
        """Whether an existing Alertmanager file may be replaced."""
        console = self._console
        ways = ", ".join(ways_to_people(present)) or _("no one")
        console.say(f"{self._files.file}: " + _("people are notified by") + f" {ways}")
        if console.assume:
            return bool(self._options.overwrite)
        question = _("Set it up again, and replace that file?")
        if self._files.is_foreign:
            question += " " + _("(The current one is kept as *.before-zapwatch.)")
        return console.confirm(question, default=not ways_to_people(present))

    def _page_address(self) -> str:
        default = hook_link(self._parsed(), "")

        def check(answer: str) -> None:
            BY_NAME["HOOK_EXTERNAL_URL"].read(Reader({"HOOK_EXTERNAL_URL": answer}))

        question = _("Address at which a phone opens the page (a proxy with TLS, or this one)")
        page: str = self._options.address or self._console.text(question, default, check)
        check(page)
        page = page.rstrip("/")
        # The default does not know the environment's HOOK_LISTEN.
        if page != default or os.environ.get("HOOK_LISTEN"):
            self._note("HOOK_EXTERNAL_URL", page)
        return page

    def _choose_ways(self) -> list[tuple[str, dict[str, str]]]:
        chosen: list[tuple[str, dict[str, str]]] = []
        while True:
            done = _("No one else") if chosen else _("For now: the log of the Zapwatch server")
            options = [*((name, way.label) for name, way in WAYS.items()), ("", done)]
            name = self._console.choice(
                _("How?"), [(key or "done", text) for key, text in options], "done"
            )
            if name == "done":
                return chosen
            way = WAYS[name]
            self._console.say(f"  {way.help()}")
            values = {field.name: self._field(field) for field in way.fields}
            chosen.append((name, values))

    def _field(self, field: Field) -> str:
        if not field.is_asked:
            return ""
        ask = self._console.secret if field.secret else self._console.text
        return ask(field.question(), check=field.check)

    def _send_test(self, config: Mapping[str, object]) -> bool:
        program = dialog.find_alertmanager()
        if program is None:
            self._console.say(_("Alertmanager is not installed yet. Later: zapwatch notify --test"))
            return True
        if not self._console.confirm(_("Send a test message now?"), default=True):
            return True
        try:
            check_file(self._files.file)
            return dialog.send_trial(
                program,
                config,
                self._files.address,
                lambda line: self._console.say(f"  {line}"),
            )
        except AlertmanagerError as error:
            self._console.warn(f"✗ {error}")
            return False

    def _heartbeat(self) -> bool:
        console = self._console
        self._title("4/4", _("Who is notified when this machine itself is down?"))
        console.say("  " + _("A service elsewhere (Healthchecks, Uptime Kuma's push) is called"))
        console.say("  " + _("every minute, and notifies you when the calls stop."))

        def ask() -> bool:
            url = self._ask("HEARTBEAT_URL", _("Its address (empty: none)"))
            why = dialog.try_heartbeat(url) if url else ""
            if why:
                console.warn(f"✗ {why}")
            elif url:
                console.say("✓ HEARTBEAT_URL")
            elif console.assume:
                console.say("  " + _("no one") + " (--set HEARTBEAT_URL=...)")
            return not why

        return self._until_it_works(ask)

    def _summary(self, *, runs_next: bool) -> None:
        say = self._console.say
        say()
        say(_("Written:"))
        for path in (self._env.path, *self._written):
            say(f"  {stat.filemode(path.stat().st_mode)} {path}")
        if not runs_next:
            say(_("Next:"))
            self._next_commands()
        file = self._env.values.get("HOOK_TOKEN_FILE", "")
        if file:
            say(_("The page asks for a password, which this prints:") + f" cat {file}")
        else:
            say(_("The page asks for a password: HOOK_TOKEN in") + f" {self._env.path.name}")

    def _next_commands(self) -> None:
        say = self._console.say
        if self._has_services:
            say("  systemctl enable --now zapwatch-exporter zapwatch-hook")
            if self._written:
                say("  systemctl reload prometheus-alertmanager")
            say("  " + _("Prometheus: docs/install.md, step 4"))
        elif self._env.path.resolve().parent == INSTALLED:
            say("  docker compose up --detach --build --wait")
        elif in_checkout():
            say("  make run")
        else:
            say("  zapwatch exporter   zapwatch hook")

    @property
    def _has_services(self) -> bool:
        """Whether systemd runs the programs, as after ``make install``."""
        is_installed = self._env.path.resolve().parent == INSTALLED
        return is_installed and shutil.which("systemctl") is not None


def _flags(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings that the flags contain; raise SettingsError."""
    given = {}
    for pair in options.set:
        name, equals, value = pair.partition("=")
        if not equals or name not in BY_NAME:
            raise SettingsError(f"--set must be SETTING=VALUE, and there is no {name!r}")
        given[name] = _read_file(value[1:]) if value.startswith("@") else value
        BY_NAME[name].read(Reader({name: given[name]}))
    if options.pixelhub_env:
        given["PIXELHUB_ENV"] = _absolute(options.pixelhub_env)
    return given


def _read_file(path: str) -> str:
    return secret_in(path, f"@{path}")


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""
