"""``python -m exporter``: polls the gateway and the message log, and serves /metrics.

``python -m exporter explain CHANNEL`` prints what it has learned of a channel.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys

from exporter.messages.post import Post
from exporter.metrics import Metrics
from exporter.pollers import GatewayPoller, LogPoller
from exporter.silence.explain import explain
from exporter.silence.learner import Learner
from exporter.silence.reading import histories_of
from exporter.silence.thresholds import Thresholds, bounds_of
from exporter.snapshot import Board
from exporter.web import create_app
from whatsapp.gateways.registry import make_gateway
from whatsapp.message_sources import Messages
from whatsapp.program import (
    Server,
    add_common_options,
    end_on_signals,
    fail,
    log_to_stderr,
    parser,
    run,
)
from whatsapp.settings import (
    GatewaySettings,
    MessageSource,
    Settings,
    SettingsError,
    SilenceMode,
    load,
)

_PROGRAM = "exporter"
# So long a thread may compute while others wait (Python's own default is 5 ms). A scrape changes
# hands some ten times, which shows while the pages of thousands of channels are being written.
_SWITCH_SECONDS = 0.0005


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.env_file)
        post = Post(settings)
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
    [gateway] = settings.gateways
    messages = post.messages(gateway, board)
    metrics = _start_pollers(settings, gateway, messages, board)
    pages = create_app(board, metrics, with_log=messages is not None)
    server.run(post.open_for_events(pages, metrics.count_event))
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


def _start_pollers(
    settings: Settings, gateway: GatewaySettings, messages: Messages | None, board: Board
) -> Metrics:
    bounds = bounds_of(settings)
    pause = settings.exporter_poll_seconds
    metrics = Metrics(
        board,
        gateway.name,
        Thresholds(gateway, bounds).of,
        with_log=messages is not None,
        with_events=gateway.messages is MessageSource.EVENTS,
    )
    client = make_gateway(gateway, connections=1, observe=metrics.gateway_calls.observe)
    if messages is None:
        GatewayPoller(client, board, pause).start()
        return metrics
    log_poller = LogPoller(messages, board, pause, metrics.log_seconds.observe)
    # The first look back for a channel begins when it is first listed, not a pause later.
    GatewayPoller(client, board, pause, on_new_channels=log_poller.hurry).start()
    log_poller.start()
    if gateway.silence_mode is SilenceMode.ADAPTIVE:
        Learner(gateway, bounds, histories_of(settings, gateway), board).start()
    return metrics


if __name__ == "__main__":
    run(main)
