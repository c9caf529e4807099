# PYTHON_ARGCOMPLETE_OK
"""``python -m reconnect_hook``: ``serve`` takes alerts for ever, ``check`` and ``probe`` do not."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from dataclasses import replace

from reconnect_hook.check import Options, run_check
from reconnect_hook.fleet import Fleet
from reconnect_hook.metrics import Metrics
from reconnect_hook.page.site import add_page
from reconnect_hook.probes.command import run_probe
from reconnect_hook.service import open_store
from reconnect_hook.web import create_app
from whatsapp.probe_settings import ProbeKind
from whatsapp.program import (
    Server,
    add_common_options,
    end_on_signals,
    fail,
    log_to_stderr,
    parse_arguments,
    parser,
    run,
)
from whatsapp.reload import Reloading
from whatsapp.settings import Settings, SettingsError, load

_PROGRAM = "reconnect_hook"
_SWITCH_SECONDS = 0.0002
_STOP_SECONDS = 2.0  # for repairs under way


def main(arguments: list[str] | None = None) -> int:
    """Run the command that was asked for and return the exit code."""
    options = parse_arguments(_parser(), arguments)
    try:
        settings = load(options.env_file)
        if options.command == "serve":
            return _serve(settings, options.env_file)
        if options.command == "probe":
            end_on_signals(code=1)
            kind = None if options.kind is None else ProbeKind(options.kind)
            return run_probe(settings, options.channel, kind, dry_run=options.dry_run)
        if options.silent_hours is not None:
            gateways = (
                replace(gateway, silent_hours=options.silent_hours) for gateway in settings.gateways
            )
            settings = replace(settings, gateways=tuple(gateways))
        # A check that was cut short has not found out that all is well.
        end_on_signals(code=1)
        return run_check(settings, Options(options.dry_run, options.verbose))
    except SettingsError as error:
        fail(_PROGRAM, str(error))


def _parser() -> argparse.ArgumentParser:
    made = parser("python -m reconnect_hook", "Repairs WhatsApp channels that need it.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="take Alertmanager's alerts and repair channels, for ever",
        description="Takes Alertmanager's alerts at POST /alerts and repairs channels.",
    )
    check = commands.add_parser(
        "check",
        help="check and repair all channels once, without Prometheus",
        description=(
            "Lists the channels once, calls getQr for those that are disconnected or silent, and "
            "waits for the outcomes. Prints and logs nothing where all is well. Exit code 0: all "
            "is well or every repair was accepted; 1: the gateway or the database could not be "
            "read, or a repair failed; 2: wrong usage or settings."
        ),
    )
    check.add_argument(
        "--dry-run", action="store_true", help="say what would be done, change nothing"
    )
    check.add_argument(
        "--verbose", action="store_true", help="show every channel, and why a list fails"
    )
    check.add_argument(
        "--silent-hours",
        type=_hours,
        metavar="N",
        help="instead of SILENT_HOURS; SILENT_HOURS_OVERRIDES still count",
    )
    probe = commands.add_parser(
        "probe",
        help="ask one channel whether it is alive",
        description=(
            "Asks a channel now, by a query or an echo as the settings say, and repairs nothing. "
            "Exit code 0: it is alive; 1: it is not, or could not be asked; 2: wrong usage."
        ),
    )
    probe.add_argument("channel", metavar="CHANNEL", help="in any spelling")
    probe.add_argument("--kind", choices=[ProbeKind.QUERY, ProbeKind.ECHO], type=str)
    probe.add_argument("--dry-run", action="store_true", help="say what would be done, ask nothing")
    for command in (serve, check, probe):
        add_common_options(command, default=argparse.SUPPRESS)
    return made


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not math.isfinite(hours) or hours <= 0:
        raise argparse.ArgumentTypeError(f"must be a number of hours above 0, not {text!r}")
    return hours


def _serve(settings: Settings, env_file: str | None) -> int:
    if not settings.hook_token:
        raise SettingsError(
            "HOOK_TOKEN is not set: choose a long random text, and put the same one into the file "
            "that alertmanager.yml names (alertmanager/hook-token)"
        )
    log_to_stderr()
    # Many short turns: with the usual 5 ms, an answer waits for each thread that is computing.
    sys.setswitchinterval(_SWITCH_SECONDS)
    metrics = Metrics()
    fleet = Fleet(settings, open_store(settings), metrics)
    server = Server(_PROGRAM, "HOOK_LISTEN", settings.hook_listen, threads=8)
    end_on_signals()
    logging.getLogger(_PROGRAM).info("page at %s/, alerts at %s/alerts", server.url, server.url)
    fleet.follow(settings.gateways)
    Reloading(env_file, settings, fleet.follow).start()
    app = create_app(fleet, metrics, token=settings.hook_token)
    add_page(app, fleet, settings)
    try:
        server.run(app, trusted_proxy=settings.hook_trusted_proxy)
    finally:
        fleet.stop(_STOP_SECONDS)
    return 0


if __name__ == "__main__":
    run(main)
