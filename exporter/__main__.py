"""``python -m exporter``: polls the gateway and the message log, and serves /metrics.

``python -m exporter explain CHANNEL`` prints what it has learned of a channel.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys

from exporter.metrics import Metrics
from exporter.pollers import GatewayPoller, LogPoller
from exporter.silence.explain import explain
from exporter.silence.learner import Learner
from exporter.silence.thresholds import Thresholds
from exporter.snapshot import Board
from exporter.web import create_app
from whatsapp.gateways.wrapper import WrapperGateway
from whatsapp.last_messages import LastMessages
from whatsapp.message_log import MessageLog
from whatsapp.program import (
    Server,
    add_common_options,
    end_on_signals,
    fail,
    log_to_stderr,
    parser,
    run,
)
from whatsapp.settings import Settings, SettingsError, SilenceMode, load

_PROGRAM = "exporter"
# So long a thread may compute while others wait (Python's own default is 5 ms). A scrape changes
# hands some ten times, which shows while the pages of thousands of channels are being written.
_SWITCH_SECONDS = 0.0005


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.env_file)
    except SettingsError as error:
        fail(_PROGRAM, str(error))
    if options.command == "explain":
        print("\n".join(explain(settings, options.channel)))  # noqa: T201 - this is for the operator
        return 0
    log_to_stderr()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What was loaded stays: looking through it for garbage would stop all threads for 50 ms.
    gc.freeze()
    end_on_signals()
    server = Server(_PROGRAM, "EXPORTER_LISTEN", settings.exporter_listen)
    logging.getLogger(_PROGRAM).info("metrics at %s/metrics", server.url)
    board = Board()
    metrics = _start_pollers(settings, board)
    with_log = settings.message_log_url is not None
    server.run(create_app(board, metrics, with_log=with_log))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "python -m exporter",
        "Polls the WhatsApp gateway and the message log, and serves Prometheus metrics.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    explained = commands.add_parser(
        "explain",
        help="print what was learned of a channel, instead of running",
        description="Prints a channel's week as it was learned, its present threshold, and why.",
    )
    explained.add_argument("channel", metavar="CHANNEL", help="in any spelling")
    add_common_options(explained, default=argparse.SUPPRESS)
    return made


def _start_pollers(settings: Settings, board: Board) -> Metrics:
    log_url = settings.message_log_url
    pause = settings.exporter_poll_seconds
    thresholds = Thresholds(settings)
    metrics = Metrics(
        board,
        settings.gateway_name,
        thresholds.of,
        thresholds.suspicion,
        with_log=log_url is not None,
    )
    client = WrapperGateway(
        settings.gateway_base_url,
        settings.gateway_secret,
        list_timeout=settings.gateway_timeout,
        ca_file=settings.gateway_ca_file,
        observe=metrics.gateway_calls.observe,
    )
    if log_url is None:
        GatewayPoller(client, board, pause).start()
        return metrics
    messages = LastMessages(MessageLog(log_url), settings.message_lookback_hours * 3600)
    log_poller = LogPoller(messages, board, pause, metrics.log_seconds.observe)
    # The first look back for a channel begins when it is first listed, not a pause later.
    GatewayPoller(client, board, pause, on_new_channels=log_poller.hurry).start()
    log_poller.start()
    if settings.silence_mode is SilenceMode.ADAPTIVE:
        # On connections of its own: a poll must not wait for one of them.
        Learner(settings, MessageLog(log_url), board).start()
    return metrics


if __name__ == "__main__":
    run(main)
