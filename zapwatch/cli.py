"""Command line: options and help texts shared by all commands, and the entry point ``zapwatch``.

The entry point looks the command up in a table and imports only its module at run time, so that
this module imports no package of a higher layer.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

from zapwatch import __version__

_WIDTH = 78
WRONG_USAGE = "wrong usage or settings"
"""Meaning of exit code 2 for every command."""

COMMANDS: Mapping[str, tuple[str, Sequence[str], str]] = {
    "exporter": ("exporter.__main__", (), "serve the metrics"),
    "hook": ("reconnect_hook.__main__", ("serve",), "accept alerts and repair channels"),
    "check": ("reconnect_hook.__main__", ("check",), "check and repair all channels once"),
    "probe": ("reconnect_hook.__main__", ("probe",), "probe one channel"),
    "audit": ("reconnect_hook.__main__", ("audit",), "list messages that have not arrived"),
    "gateways": ("zapwatch.gateways.__main__", (), "show what a type of gateway can do"),
    "config": ("zapwatch.config.report", (), "show the settings in effect"),
    "init": ("zapwatch.setup.command", (), "set up gateway, messages and notifications"),
    "notify": ("zapwatch.alertmanager", (), "show Alertmanager's receivers, send a test message"),
    "explain": (
        "exporter.__main__",
        ("explain",),
        "print a channel's learned profile and threshold",
    ),
}
"""Commands: module with a ``main``, leading arguments, line of the help."""


def printable(text: str) -> str:
    """Escape control and other unprintable characters, for output on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def manual(
    description: str, *, settings: str, exit_codes: Mapping[int, str], examples: Sequence[str]
) -> dict[str, Any]:
    """Return the arguments of ``ArgumentParser`` for a command's help.

    ``settings`` lists the settings that it reads; a trailing ``*`` is a wildcard.
    """
    codes = (
        textwrap.fill(meaning, _WIDTH, initial_indent=f"  {code}  ", subsequent_indent=5 * " ")
        for code, meaning in exit_codes.items()
    )
    return {
        "description": textwrap.fill(description, _WIDTH),
        "epilog": "\n".join(
            [
                "settings:",
                textwrap.fill(settings, _WIDTH, initial_indent="  ", subsequent_indent="  "),
                "\nexit codes:",
                *codes,
                "\nexamples:",
                *(f"  {example}" for example in examples),
            ]
        ),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        # With abbreviations, a new option could change the meaning of a line in a crontab.
        "allow_abbrev": False,
    }


class _Parser(argparse.ArgumentParser):
    """Parser whose help and errors name commands as the user typed this one."""

    def format_usage(self) -> str:
        self.prog = _as_typed(self.prog)
        return super().format_usage()

    def format_help(self) -> str:
        self.prog = _as_typed(self.prog)
        return _as_typed(super().format_help())

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:  # otherwise the parent parser reports them, under its own name
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _as_typed(text: str) -> str:
    if PurePath(sys.argv[0]).name != "zapwatch":
        return text
    # Longest first, since one command may be the prefix of another.
    for name, (module, first, _) in sorted(COMMANDS.items(), key=lambda one: -len(one[1][1])):
        python = " ".join(("python -m", module.removesuffix(".__main__"), *first))
        text = text.replace(python, f"zapwatch {name}")
    return text


def parser(program: str, shown: Mapping[str, Any]) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    made = _Parser(prog=program, **shown)
    add_common_options(made)
    return made


def add_common_options(made: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options common to all programs.

    For a subcommand's parser, pass ``argparse.SUPPRESS`` as ``default``.
    """
    made.add_argument("--version", action="version", version=f"zapwatch {__version__}")
    made.add_argument(
        "--env-file",
        metavar="FILE",
        default=default,
        help="KEY=value lines, after the environment variables (default: ./.env if it exists)",
    )
    made.add_argument(
        "--pixelhub-env",
        metavar="FILE",
        default=default,
        help="PixelHub's own .env, for what the settings leave out (default: PIXELHUB_ENV)",
    )


def add_config_check(made: argparse.ArgumentParser) -> None:
    """Add the option ``--config.check``, which checks the settings and exits."""
    made.add_argument(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="print the settings in effect and what is unsafe, and exit",
    )


def prepare_signals() -> None:
    """Prepare for slow imports: SIGHUP stays pending, Ctrl-C ends the process without a traceback.

    See zapwatch/reload.py.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    # A shell ignores Ctrl-C for what it starts in the background.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run the command named by the first argument, with the remaining arguments."""
    prepare_signals()
    commands = "\n".join(f"  {name:<10}{about}" for name, (*_, about) in COMMANDS.items())
    made = argparse.ArgumentParser(
        prog="zapwatch",
        description="Keeps WhatsApp sessions connected.",
        epilog=f"commands:\n{commands}\n\n'zapwatch COMMAND --help' shows its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"zapwatch {__version__}")
    made.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND ...", help="one of the commands below"
    )
    word = (sys.argv[1:2] or ["--help"])[0]
    if word.startswith("-") and word not in {"-h", "--help", "--version"}:
        made.error(f"{word} comes after the command: zapwatch COMMAND {word} ...")
    given = made.parse_args([word])
    module, first, _ = COMMANDS[given.command]
    program: Callable[[list[str]], int] = importlib.import_module(module).main
    server = importlib.import_module("zapwatch.server")
    server.run(partial(program, [*first, *sys.argv[2:]]))
