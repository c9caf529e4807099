"""How each program of Zapwatch starts, speaks to its operator, listens and ends."""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import waitress

from whatsapp import __version__

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from whatsapp.settings import Listen

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""A larger body is answered 413."""

_USAGE_ERROR = 2


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have."""
    made = argparse.ArgumentParser(prog=program, description=description)
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


def fail(program: str, line: str) -> NoReturn:
    """End the program: a setting is wrong, and ``line`` says which and what to do."""
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201 - this is for the operator
    raise SystemExit(_USAGE_ERROR)


def log_to_stderr() -> None:
    """Let what the program has to say go to stderr, one line each, with the local time."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    # Waitress warns of each request that waits for a thread, be it a moment: that is no event.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def end_on_signals(code: int = 0) -> None:
    """Let SIGTERM and Ctrl-C end the main thread at once, with this exit code."""

    def end(_number: int, _frame: object) -> NoReturn:
        # A second signal while ending must not cut the ending short.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


class Server:
    """Serves one Flask application with waitress; binds at once, so that a bad address shows."""

    def __init__(self, program: str, setting: str, where: Listen, *, threads: int = 4) -> None:
        """Bind to ``where``, the value of ``setting``; end the program where that cannot be."""
        self._threads = threads
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        try:
            self._socket = socket.create_server((where.host, where.port), family=family)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            what = "is in use by another program" if in_use else f"cannot be listened on ({error})"
            fail(program, f"{setting}: {where} {what}; choose another")
        host = f"[{where.host}]" if ":" in where.host else where.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"

    def run(self, app: WSGIApplication) -> None:
        """Serve until a signal ends it."""
        server: Any = waitress.create_server(
            app,
            sockets=[self._socket],
            threads=self._threads,
            ident=None,
            clear_untrusted_proxy_headers=True,
            # A little more, so that the application sees and answers what is too large.
            max_request_body_size=MAX_REQUEST_BYTES + 65536,
            connection_limit=1000,
            asyncore_use_poll=True,
        )
        try:
            server.run()
        finally:
            self._socket.close()
