"""`python -m demo.simulator`: runs the simulated gateway as a separate process."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from demo.simulator.apis.registry import APIS
from demo.simulator.rules import POSITIVE_AMOUNT
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from zapwatch.cli import WRONG_USAGE, manual
from zapwatch.server import fail

_PROGRAM = "simulator"


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _pace(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if POSITIVE_AMOUNT.accepts(seconds):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not {POSITIVE_AMOUNT.expects}")


def _message_log(url: str) -> Engine:
    try:
        return open_message_log(url)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        # Without the URL: it may contain a password.
        raise argparse.ArgumentTypeError("it is not a SQLAlchemy URL that can be used") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.simulator",
        **manual(
            "Simulates a gateway, with every shape and failure of the real ones, until SIGTERM or "
            "Ctrl-C. It prints its address; /sim/ there controls it.",
            settings="SIMULATOR_SECRET, or the variable that --secret-env names; it must be set",
            exit_codes={0: "stopped by a signal", 2: WRONG_USAGE},
            examples=[
                "SIMULATOR_SECRET=x python -m demo.simulator --listen 127.0.0.1:8443",
                "SIMULATOR_SECRET=x python -m demo.simulator --api evolution",
            ],
        ),
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where to listen; port 0, the default, takes any free one",
    )
    parser.add_argument(
        "--api",
        choices=APIS,
        default="wrapper",
        metavar="TYPE",
        help=f"whose API to speak: {', '.join(APIS)} (%(default)s)",
    )
    parser.add_argument(
        "--secret-env",
        default="SIMULATOR_SECRET",
        metavar="NAME",
        help="environment variable that holds the gateway's secret (%(default)s)",
    )
    parser.add_argument(
        "--message-log",
        type=_message_log,
        metavar="URL",
        help="SQLAlchemy URL of the message log to write to; without it nothing is written",
    )
    parser.add_argument(
        "--traffic-seconds",
        type=_pace,
        default=3.0,
        metavar="N",
        help="pause between two messages of a channel (3)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, to serve https")
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="the certificate's private key"
    )
    return parser.parse_args()


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    arguments = _arguments()
    host, port = arguments.listen
    secret = os.environ.get(arguments.secret_env, "")
    if not secret:
        fail(_PROGRAM, f"{arguments.secret_env} is not set: put the gateway's secret into it")
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        fail(_PROGRAM, "--tls-cert and --tls-key go together")
    tls = None if arguments.tls_cert is None else (arguments.tls_cert, arguments.tls_key)
    try:
        server = SimulatorServer(
            secret,
            api=arguments.api,
            host=host,
            port=port,
            message_log=arguments.message_log,
            traffic_seconds=arguments.traffic_seconds,
            tls=tls,
        )
    except OSError as error:
        fail(_PROGRAM, f"cannot serve on {host}:{port}: {error}")
    with server:
        print(f"simulator listening on {server.url}", flush=True)
        stopping.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
