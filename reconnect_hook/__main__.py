"""``python -m reconnect_hook``: the daemon ``serve`` and the commands check, probe and audit.

Commands import their modules when they run: ``--help`` loads neither Flask nor the migrations.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from zapwatch.cli import prepare_signals

if __name__ == "__main__":
    prepare_signals()

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from zapwatch.cli import WRONG_USAGE, add_common_options, add_config_check, manual, parser
from zapwatch.config import Settings, SettingsError, describe, hook_link, load
from zapwatch.config.files import read_web_config
from zapwatch.config.readers import MOST_HOURS, ProbeKind, check_strength, parse_number
from zapwatch.reload import Reloading, accept_hangup
from zapwatch.server import end_on_signals, fail, log_to_stderr, run

_PROGRAM = "reconnect_hook"
_log = logging.getLogger(_PROGRAM)
_STOP_SECONDS = 2.0  # for repairs in progress
_MOST_AUDITED_HOURS = 168


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        read = partial(load, options.env_file, pixelhub_env=options.pixelhub_env)
        # check can repair disconnected channels without a message log, as the cron script does.
        settings = read(needs_log=options.command != "check")
        if options.command == "serve":
            return _serve(settings, read, config_check=options.config_check)
        accept_hangup()
        # An interrupted command has failed.
        end_on_signals(code=1)
        if options.command == "probe":
            from reconnect_hook.commands import run_probe

            kind = None if options.kind is None else ProbeKind(options.kind)
            return run_probe(settings, options.channel, kind, dry_run=options.dry_run)
        if options.command == "audit":
            from reconnect_hook.commands import run_audit

            return run_audit(
                settings,
                options.channel,
                options.gateway,
                options.since,
                as_json=options.json,
                replay=options.replay,
            )
        if options.env_file and not options.dry_run:
            _tell_new_state(settings, options.env_file)
        if options.silent_hours is not None:
            gateways = (
                replace(gateway, silent_hours=options.silent_hours) for gateway in settings.gateways
            )
            settings = replace(settings, gateways=tuple(gateways))
        from reconnect_hook.check import run_check

        return run_check(settings, dry_run=options.dry_run, verbose=options.verbose)
    except SettingsError as error:
        fail(_PROGRAM, str(error))


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "python -m reconnect_hook",
        manual(
            "Repairs WhatsApp channels that are disconnected or silent. COMMAND --help shows more.",
            settings="GATEWAYS_FILE or WPP_GATEWAY_*, MESSAGE_LOG_URL or DB_*, those of COMMAND",
            exit_codes={0: "done", 1: "not all could be done", 2: WRONG_USAGE},
            examples=[
                "python -m reconnect_hook serve",
                "python -m reconnect_hook check --dry-run --verbose",
            ],
        ),
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="accept Alertmanager's alerts and repair channels until stopped",
        **manual(
            "Accepts Alertmanager's alerts at POST /alerts, repairs and probes the channels that "
            "they name, and serves the operators' page, until SIGTERM or Ctrl-C. SIGHUP makes "
            "it read the settings again.",
            settings="HOOK_TOKEN (it must be set), HOOK_*, RECONNECT_*, PROBE*, PROMETHEUS_*, "
            "ALERTMANAGER_*, HEARTBEAT_URL, GATEWAYS_FILE or WPP_GATEWAY_*, MESSAGE_LOG_URL or "
            "DB_*, MESSAGE_*, MESSAGES_STATE_URL, SILENT_*, IGNORE_*, WEB_CONFIG_FILE, LOG_LEVEL, "
            "LOG_FORMAT",
            exit_codes={
                0: "stopped by a signal",
                2: f"{WRONG_USAGE}, such as a port in use or a state that cannot be written",
            },
            examples=[
                "python -m reconnect_hook serve",
                "python -m reconnect_hook serve --env-file /etc/zapwatch/zapwatch.env",
            ],
        ),
    )
    add_config_check(serve)
    check = commands.add_parser(
        "check",
        help="check and repair all channels once, without Prometheus",
        **manual(
            "Lists the channels once, reconnects those that are disconnected or silent, and waits "
            "for the outcomes. Prints and logs nothing if there is no fault.",
            settings="SILENT_*, RECONNECT_*, HOOK_STATE_URL, HOOK_LOG_FILE, GATEWAYS_FILE or "
            "WPP_GATEWAY_*, MESSAGE_LOG_URL or DB_*, MESSAGE_*, MESSAGES_STATE_URL",
            exit_codes={
                0: "no fault, or every repair was accepted",
                1: "a gateway or database could not be read, a repair failed, or it was cut short",
                2: f"{WRONG_USAGE}, such as a state or a log that cannot be written",
            },
            examples=[
                "python -m reconnect_hook check --dry-run --verbose",
                "*/15 * * * * cd /path/to/zapwatch && .venv/bin/python -m reconnect_hook check",
            ],
        ),
    )
    check.add_argument(
        "--dry-run", action="store_true", help="print what would be done, change nothing"
    )
    check.add_argument(
        "--verbose", action="store_true", help="show every channel, and why a list fails"
    )
    check.add_argument(
        "--silent-hours",
        type=_hours,
        metavar="N",
        help="instead of SILENT_HOURS; SILENT_HOURS_OVERRIDES still apply",
    )
    probe = commands.add_parser(
        "probe",
        help="probe one channel",
        **manual(
            "Probes a channel now, in the way that the settings choose, and repairs nothing.",
            settings="PROBE*, HOOK_STATE_URL, HOOK_LOG_FILE, GATEWAYS_FILE or WPP_GATEWAY_*, "
            "MESSAGE_LOG_URL or DB_*, MESSAGE_SOURCE, MESSAGES_STATE_URL",
            exit_codes={
                0: "the channel works; with --dry-run: it can be probed",
                1: "it does not respond, or could not be probed",
                2: WRONG_USAGE,
            },
            examples=[
                "python -m reconnect_hook probe loja",
                "python -m reconnect_hook probe loja --kind query --dry-run",
            ],
        ),
    )
    probe.add_argument("channel", metavar="CHANNEL", help="name; letter case and blanks may differ")
    probe.add_argument(
        "--kind",
        choices=[kind.value for kind in ProbeKind if kind is not ProbeKind.OFF],
        type=str,
        help="kind of the probe; echo only if PROBE allows it",
    )
    probe.add_argument(
        "--dry-run", action="store_true", help="print what would be done, call nothing"
    )
    audit = commands.add_parser(
        "audit",
        help="list messages that have not arrived",
        **manual(
            "Compares the messages that a channel has received, as its gateway lists them, with "
            "those that arrived, and repairs nothing. No text is read from the log, shown or kept.",
            settings="HOOK_STATE_URL, HOOK_LOG_FILE, GATEWAYS_FILE or WPP_GATEWAY_*, "
            "MESSAGE_LOG_URL or DB_*, MESSAGE_SOURCE, MESSAGES_STATE_URL, MESSAGE_REPLAY_*",
            exit_codes={
                0: "no message is missing (with --replay: none is left)",
                1: "something could not be read, or the result is unknown",
                2: WRONG_USAGE,
                3: "messages are missing",
            },
            examples=[
                "python -m reconnect_hook audit",
                "python -m reconnect_hook audit loja --since 6 --json",
                "python -m reconnect_hook audit loja --replay",
            ],
        ),
    )
    audit.add_argument(
        "channel",
        nargs="?",
        metavar="CHANNEL",
        help="name; letter case and blanks may differ (default: all)",
    )
    audit.add_argument("--gateway", metavar="NAME", help="only channels of this gateway")
    audit.add_argument(
        "--since",
        type=partial(_hours, most=_MOST_AUDITED_HOURS),
        default=24.0,
        metavar="HOURS",
        help="how far back, 168 at most (default: 24)",
    )
    audit.add_argument("--json", action="store_true", help="print JSON")
    audit.add_argument(
        "--replay",
        action="store_true",
        help="deliver missing messages to MESSAGE_REPLAY_URL again, then audit once more",
    )
    for command in (serve, check, probe, audit):
        add_common_options(command, default=argparse.SUPPRESS)
    return made


def _tell_new_state(settings: Settings, env_file: str) -> None:
    """Warn that a check outside the settings' folder creates a new state, without history."""
    home, state = Path(env_file).resolve().parent, settings.hook_state_url
    try:
        if (
            state.drivername != "sqlite"
            or home == Path.cwd()
            or Path(state.database or "").exists()
        ):
            return
    except OSError:
        return  # the check itself fails, and tells why
    print(  # noqa: T201 - for the operator, or cron's mail
        f"check: the state is new: {Path(state.database or '').resolve()}. To use another one, run "
        f"this in its folder ({home}?) or set HOOK_STATE_URL and HOOK_LOG_FILE with full paths",
        file=sys.stderr,
    )


def _hours(text: str, most: float = MOST_HOURS) -> float:
    hours = parse_number(text)
    if not 0 < hours <= most:
        limits = f"above 0, {most} at most"
        raise argparse.ArgumentTypeError(f"must be a number of hours {limits}, not {text!r}")
    return hours


def _serve(settings: Settings, read: Callable[[], Settings], *, config_check: bool) -> int:
    if not settings.hook_token:
        raise SettingsError(
            "HOOK_TOKEN is not set: choose a long random text, and put the same one into the file "
            "that alertmanager.yml names (alertmanager/hook-token)"
        )
    check_strength("HOOK_TOKEN", settings.hook_token)
    if config_check:
        read_web_config(settings.web_config_file)
        print(describe(settings))  # noqa: T201 - for the operator
        return 0
    from reconnect_hook.app import (
        ANSWER_TOGETHER,
        AUTH,
        Heartbeat,
        add_heartbeat,
        add_settings,
        create_app,
    )
    from reconnect_hook.dashboard.register import add_page
    from reconnect_hook.metrics import HookMetrics
    from reconnect_hook.supervisor import HookSupervisor, open_store
    from zapwatch.front import Front, Server

    log_to_stderr(settings.log_level, settings.log_format)
    metrics = HookMetrics()
    store = open_store(settings)
    supervisor = HookSupervisor(settings, store, metrics)
    end_on_signals()
    try:
        server = Server(_PROGRAM, "HOOK_LISTEN", settings.hook_listen, settings.web_config_file)
        page = hook_link(settings) if settings.hook_external_url else f"{server.url}/"
        metrics.show_page(hook_link(settings, ""))
        _log.info("page at %s, alerts at %s/alerts", page, server.url)
        for line in describe(settings).unsafe:
            _log.warning("unsafe: %s", line)
        supervisor.apply_config(settings.gateways)
        reloading = Reloading(read, settings, supervisor.apply_config, metrics.reloads)
        reloading.start()
        app = create_app(supervisor, metrics, token=settings.hook_token)
        add_settings(app, reloading.reload, lambda: describe(reloading.settings))
        heartbeat = Heartbeat(settings.heartbeat_url)
        add_heartbeat(app, heartbeat)
        add_page(app, supervisor, settings, heartbeat)
        server.run(
            Front(
                app,
                auth=app.extensions[AUTH],
                urgent="/alerts",
                answer_together=app.extensions[ANSWER_TOGETHER],
                external_url=settings.hook_external_url,
                keyed="/scan/",
                trusted_proxy=settings.hook_trusted_proxy,
                ping=store.database.ping,
            )
        )
    finally:
        supervisor.stop(_STOP_SECONDS)
        # Closing makes SQLite merge its WAL into the main file, which may be all that a backup has.
        store.database.close()
    return 0


if __name__ == "__main__":
    run(main)
