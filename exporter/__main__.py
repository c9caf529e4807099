"""``python -m exporter``: polls gateways and message logs, and serves /metrics.

``python -m exporter explain CHANNEL`` prints what was learned about a channel.
"""

from __future__ import annotations

from zapwatch.cli import prepare_signals

if __name__ == "__main__":
    prepare_signals()

import argparse
import gc
import logging
import sys
from functools import partial

from exporter.app import EVENTS_PATH, add_settings, create_app
from exporter.event_buffer import Post, senders_among
from exporter.silence.explain import explain
from exporter.supervisor import Supervisor
from zapwatch.channels import AmbiguousNameError
from zapwatch.cli import (
    WRONG_USAGE,
    add_common_options,
    add_config_check,
    manual,
    parser,
    printable,
)
from zapwatch.config import Settings, SettingsError, describe, load
from zapwatch.config.files import read_web_config
from zapwatch.config.readers import is_loopback
from zapwatch.front import Front, Server
from zapwatch.reload import Reloading, accept_hangup
from zapwatch.server import end_on_signals, fail, log_to_stderr, run

_PROGRAM = "exporter"
# Seconds that a thread may compute while others wait; Python's default is 5 ms. A scrape switches
# threads several times: benchmarks/scrape.py, 10,000 channels: p99 24 ms, 90 ms with the default.
_SWITCH_SECONDS = 0.0005


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        read = partial(load, options.env_file, pixelhub_env=options.pixelhub_env)
        settings = read()
        if options.command == "explain":
            accept_hangup()
            return _explain(settings, options.gateway, options.channel)
        senders_among(settings.gateways)  # raises what apply_config would raise later
        post = Post(settings)
        if options.config_check:
            read_web_config(settings.web_config_file)
            print(describe(settings))  # noqa: T201 - this is for the operator
            return 0
    except SettingsError as error:
        fail(_PROGRAM, str(error))
    log_to_stderr(settings.log_level, settings.log_format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Loaded modules are permanent: scanning them for garbage would stop all threads for 50 ms.
    gc.freeze()
    end_on_signals()
    try:
        server = Server(
            _PROGRAM, "EXPORTER_LISTEN", settings.exporter_listen, settings.web_config_file
        )
        log = logging.getLogger(_PROGRAM)
        log.info("metrics at %s/metrics", server.url)
        for line in describe(settings).unsafe:
            log.warning("unsafe: %s", line)
        supervisor = Supervisor(settings, post)
        supervisor.apply_config(settings.gateways)
        supervisor.page.start()
        reloading = Reloading(read, settings, supervisor.apply_config, supervisor.reload_metrics)
        reloading.start()
        pages = create_app(supervisor.page, lambda: supervisor.waiting)
        if is_loopback(settings.exporter_listen.host):
            add_settings(pages, reloading.reload, lambda: describe(reloading.settings))
        receiver = post.receiver(pages, supervisor.hurry)
        front = Front(receiver, auth=receiver, urgent=EVENTS_PATH)
        front.cached_metrics = supervisor.page.cached
        server.run(front)
    except SettingsError as error:
        fail(_PROGRAM, str(error))
    finally:
        # SQLite then merges everything into one file, which may be all that a backup has.
        post.close()
    return 0


def _explain(settings: Settings, name: str | None, channel: str) -> int:
    """Print what is known of a channel, at each gateway or only at the named one.

    Returns 1 if none of them knows it, or if the name may mean several.
    """
    gateways = [gateway for gateway in settings.gateways if name in {None, gateway.name}]
    if not gateways:
        names = ", ".join(gateway.name for gateway in settings.gateways)
        fail(_PROGRAM, f"--gateway: there is no gateway {name}, only {names}")
    try:
        told = {gateway.name: explain(settings, gateway, channel) for gateway in gateways}
    except AmbiguousNameError as error:
        fail(_PROGRAM, str(error), code=1)
    if not any(told.values()):
        fail(_PROGRAM, f"{channel}: no gateway lists such a channel", code=1)
    for at, lines in told.items():
        if lines and len(settings.gateways) > 1:
            print(f"{at}:")  # noqa: T201 - this is for the operator
        for line in lines:
            print(printable(line))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "python -m exporter",
        manual(
            "Polls WhatsApp gateways and their message logs, and serves metrics for "
            "Prometheus, until SIGTERM or Ctrl-C. SIGHUP makes it read the settings again.",
            settings="GATEWAYS_FILE or WPP_GATEWAY_*, MESSAGE_LOG_URL or DB_*, MESSAGE_*, "
            "MESSAGES_*, SILENT_*, SILENCE_*, PROBE*, IGNORE_*, EXPORTER_*, WEB_CONFIG_FILE, "
            "LOG_LEVEL, LOG_FORMAT",
            exit_codes={0: "stopped by a signal", 2: f"{WRONG_USAGE}, such as a port in use"},
            examples=[
                "python -m exporter",
                "python -m exporter --env-file /etc/zapwatch/zapwatch.env",
            ],
        ),
    )
    add_config_check(made)
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    explained = commands.add_parser(
        "explain",
        help="print a channel's learned profile and threshold, and exit",
        **manual(
            "Prints how long a channel may be silent now and why, and its learned week.",
            settings="those of the exporter, SILENCE_STATE_FILE above all",
            exit_codes={
                0: "printed",
                1: "no gateway lists the channel, or the name may mean several",
                2: f"{WRONG_USAGE}, such as an unknown gateway",
            },
            examples=["python -m exporter explain 'Loja Centro'"],
        ),
    )
    explained.add_argument(
        "channel", metavar="CHANNEL", help="name; letter case and blanks may differ"
    )
    explained.add_argument(
        "--gateway", metavar="NAME", help="only at this gateway (default: at each)"
    )
    add_common_options(explained, default=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    run(main)
