"""``zapwatch notify``: Alertmanager's receivers, test messages, reload of its file."""

from __future__ import annotations

import argparse
import enum
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from zapwatch.alertmanager import (
    AlertmanagerApi,
    AlertmanagerError,
    Deliveries,
    deliveries_to_expect,
    reload_with,
    ways_to_people,
)
from zapwatch.cli import WRONG_USAGE, manual, parser
from zapwatch.config.load import collect
from zapwatch.config.readers import Reader, SettingsError
from zapwatch.config.settings import BY_NAME
from zapwatch.http import HttpAccess

_SECONDS = 10.0
WAIT_SECONDS = 75.0  # longer than a group_wait of 30 s or a minute
"""Time-out of a test message's delivery."""
_LOOK_SECONDS = 0.2
_NOTHING = Deliveries(0, 0)


class Fate(enum.Enum):
    """Result of a test message."""

    DELIVERED = enum.auto()
    FAILED = enum.auto()
    LATE = enum.auto()
    """Not delivered in time; there may be no route to that receiver."""


_FATES = {
    Fate.DELIVERED: "delivered",
    Fate.FAILED: "failed; see Alertmanager's log (journalctl -u prometheus-alertmanager; with make "
    "run: var/demo/alertmanager.log)",
    Fate.LATE: f"not delivered within {WAIT_SECONDS:g} s; does its route lead to people?",
}
_NO_PEOPLE = (
    "no one is notified: Alertmanager has no receiver for people and only writes the hook's log. "
    "Set one up: zapwatch init"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = collect(options.env_file, pixelhub_env=options.pixelhub_env).values
        read = Reader(settings)
        url, *access = (
            BY_NAME[f"ALERTMANAGER_{name}"].read(read)
            for name in ("URL", "CA_FILE", "USER", "PASSWORD")
        )
        api = AlertmanagerApi(url, HttpAccess(*access))
        file = options.reload or BY_NAME["ALERTMANAGER_FILE"].read(read)
    except SettingsError as error:
        _tell(f"notify: {error}", sys.stderr)
        return 2
    try:
        if options.reload is not None:
            if not file:
                _tell(
                    "notify: which file? Name it: --reload FILE, or set ALERTMANAGER_FILE",
                    sys.stderr,
                )
                return 2
            config = reload_with(Path(file), api, _SECONDS)
            _tell(f"{file} is right, and Alertmanager has read it")
        else:
            config = api.config(_SECONDS)
        ways = ways_to_people(config)
        if not ways:
            _tell(_NO_PEOPLE)
            return 1
        _tell(f"Alertmanager notifies people by {', '.join(ways)}")
        if not options.test:
            return 0
        fates = send_test(api, deliveries_to_expect(config))
        for way, fate in fates.items():
            _tell(f"{way}: {_FATES[fate]}")
        return 0 if set(fates.values()) == {Fate.DELIVERED} else 1
    except AlertmanagerError as error:
        _tell(f"notify: {error}", sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "zapwatch notify",
        manual(
            "Shows how Alertmanager notifies people; sends them a test message; checks its changed "
            "file with amtool and makes it read that file.",
            settings="ALERTMANAGER_*",
            exit_codes={
                0: "people are notified; with --test: the message was delivered",
                1: "no one is notified, a message failed, or the file is wrong and was not loaded",
                2: WRONG_USAGE,
            },
            examples=[
                "zapwatch notify --test",
                "zapwatch notify --reload /etc/prometheus/alertmanager.yml --test",
            ],
        ),
    )
    made.add_argument("--test", action="store_true", help="send a test message, and wait for it")
    made.add_argument(
        "--reload",
        metavar="FILE",
        nargs="?",
        const="",
        help="check Alertmanager's file and make it read the file again "
        "(default: ALERTMANAGER_FILE)",
    )
    return made


def send_test(
    api: AlertmanagerApi, expected: Mapping[str, int], seconds: float = WAIT_SECONDS
) -> dict[str, Fate]:
    """Send a test message and wait until each integration has delivered it as often as expected.

    Returns the result by integration; raises AlertmanagerError if a call to Alertmanager fails.
    """
    before = api.deliveries(_SECONDS)
    api.send_test(_SECONDS)
    fates: dict[str, Fate] = dict.fromkeys(expected, Fate.LATE)
    until = time.monotonic() + seconds
    while Fate.LATE in fates.values() and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        now = api.deliveries(_SECONDS)
        for way, count in expected.items():
            old, new = before.get(way, _NOTHING), now.get(way, _NOTHING)
            if fates[way] is Fate.LATE and new.failed > old.failed:
                fates[way] = Fate.FAILED
            elif fates[way] is Fate.LATE and new.done - old.done >= count:
                fates[way] = Fate.DELIVERED
    return fates


def _tell(line: str, to: TextIO | None = None) -> None:
    print(line, file=to, flush=True)
