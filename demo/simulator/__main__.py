"""`python -m demo.simulator`: runs the simulated gateway as a separate process."""

import argparse
import os
import signal
import sys

from demo.simulator.apis.registry import APIS
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.simulator",
        **manual(
            "Simulates a gateway, with every shape and failure of the real ones, until SIGTERM or "
            "Ctrl-C. It prints its address; /sim/ there controls it.",
            settings="SIMULATOR_SECRET, the gateway's secret; it must be set",
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
        "--message-log",
        metavar="URL",
        help="SQLAlchemy URL of the message log to write to; without it nothing is written",
    )
    parser.add_argument(
        "--traffic-seconds",
        type=float,
        default=3.0,
        metavar="N",
        help="pause between two messages of a channel (3)",
    )
    return parser.parse_args()


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    ending = signal.SIGTERM, signal.SIGINT
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    arguments = _arguments()
    host, port = arguments.listen
    secret = os.environ.get("SIMULATOR_SECRET", "")
    if not secret:
        fail(_PROGRAM, "SIMULATOR_SECRET is not set: put the gateway's secret into it")
    log = arguments.message_log
    try:
        server = SimulatorServer(
            secret,
            api=arguments.api,
            host=host,
            port=port,
            message_log=open_message_log(log) if log else None,
            traffic_seconds=arguments.traffic_seconds,
        )
    except OSError as error:
        fail(_PROGRAM, f"cannot serve on {host}:{port}: {error}")
    with server:
        print(f"simulator listening on {server.url}", flush=True)
        signal.sigwait(ending)
    return 0


if __name__ == "__main__":
    sys.exit(main())
