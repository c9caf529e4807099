"""What each command of Zapwatch understands, and what its --help says."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypedDict

from zapwatch import __version__

_WIDTH = 78
WRONG_USAGE = "wrong usage or settings"
"""What exit code 2 means, everywhere."""


class Manual(TypedDict):
    """The part of a parser's arguments that is for its help."""

    description: str
    epilog: str
    formatter_class: type[argparse.HelpFormatter]


def manual(
    description: str, *, settings: str, exit_codes: Mapping[int, str], examples: Sequence[str]
) -> Manual:
    """Return what the help of a command says, before and after its options.

    ``settings`` names those that it reads; a name that ends in ``*`` is for all that begin so.
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
    }


def parser(program: str, shown: Manual) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have."""
    made = argparse.ArgumentParser(prog=program, **shown)
    add_common_options(made)
    return made


def add_common_options(made: argparse.ArgumentParser, default: str | None = None) -> None:
    """Let a parser know the options that all programs have; a command's must have no default."""
    made.add_argument("--version", action="version", version=f"zapwatch {__version__}")
    made.add_argument(
        "--env-file",
        metavar="FILE",
        default=default,
        help="settings as KEY=value lines; the environment wins (default: ./.env if it is there)",
    )


def parse_arguments(made: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """Return what was given; where the shell asks what could come next, tell it and end."""
    if "_ARGCOMPLETE" in os.environ:
        # Only then: it takes time that no other start has to.
        import argcomplete  # noqa: PLC0415

        argcomplete.autocomplete(made)
    return made.parse_args(given)
