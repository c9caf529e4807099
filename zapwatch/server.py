"""Process life cycle: log, threads, systemd readiness and watchdog, exit codes, signals."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from zapwatch.cli import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_log = logging.getLogger("systemd")
_threads = logging.getLogger("server")

_SEND_SECONDS = 1.0
_ANSWER_SECONDS = 30.0  # without a watchdog limit from systemd
_RETRY_SECONDS = 1.0


class EventFormatter(logging.Formatter):
    """Formats a record's local time, level, logger, message and traceback as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line without a line end."""
        event = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return self.write(event)

    def write(self, event: dict[str, str]) -> str:
        """Return the event as JSON."""
        return json.dumps(event)


class LogfmtFormatter(EventFormatter):
    """Formats records as ``key=value``, with quotes and escapes where needed."""

    def write(self, event: dict[str, str]) -> str:
        """Return the event as logfmt."""
        return logfmt_line(event)


def logfmt_line(values: Mapping[str, object]) -> str:
    """Return ``name=value`` pairs; None values are left out."""
    pairs = ((name, value) for name, value in values.items() if value is not None)
    return " ".join(f"{name}={logfmt(str(value))}" for name, value in pairs)


def logfmt(value: str) -> str:
    """Return a value for a logfmt line: unchanged, or a JSON string of printable characters."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


FORMATTERS = {"logfmt": LogfmtFormatter, "json": EventFormatter}


def log_to_stderr(level: str = "info", format_: str = "logfmt") -> None:
    """Configure logging to stderr; the arguments are LOG_LEVEL and LOG_FORMAT."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[format_]())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # At debug level it logs paths, and some of them contain WPPConnect Server's secret.
    logging.getLogger("urllib3").setLevel(logging.INFO)


dead_threads: list[str] = []
"""Names of the threads that have failed, which only a restart brings back."""


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread; dead_threads lists it if it fails."""

    def run() -> None:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a thread has no caller
            dead_threads.append(name)
            _threads.exception("the thread %s has died of an internal error", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def health(program: str) -> tuple[str, int]:
    """Return text and status of ``/-/healthy``: 503 with the names of failed threads."""
    if dead_threads:
        return f"No longer at work: {' and '.join(dead_threads)}.\n", 503
    return f"{program} runs.\n", 200


def notify(state: str) -> None:
    """Send systemd a state such as ``READY=1``. Raises nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.settimeout(_SEND_SECONDS)
        sender.sendto(state.encode(), address)


def vouch_for(host: str, port: int, *, tls: bool = False) -> None:
    """Start a thread that requests ``/-/healthy`` and reports success to systemd.

    The first success reports readiness, each later one resets systemd's watchdog.
    """
    if os.environ.get("NOTIFY_SOCKET"):
        start_thread("systemd", lambda: _vouch(host, port, tls=tls))


def _vouch(host: str, port: int, *, tls: bool) -> None:
    limit = _watchdog_seconds()
    # A third of the limit leaves time for a second try.
    seconds = _ANSWER_SECONDS if limit is None else limit / 3
    state = "READY=1"
    while True:
        try:
            check_health(host, port, seconds, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            _log.warning("the program's own server does not answer: %s", str(error) or type(error))
            time.sleep(min(_RETRY_SECONDS, seconds))
            continue
        notify(state)
        if limit is None:
            return
        state = "WATCHDOG=1"
        time.sleep(seconds)


def check_health(host: str, port: int, seconds: float, *, tls: bool) -> None:
    """Request ``/-/healthy`` from a server on this machine.

    Raises OSError or HTTPException unless it answers 200, or requires a client certificate.
    """
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    if tls:
        # The certificate has another host name.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
    try:
        connection.request("GET", "/-/healthy")
        status = connection.getresponse().status
    except ssl.SSLError as error:
        # A request for a client certificate shows that the server runs.
        if "CERTIFICATE_REQUIRED" not in str(error):
            raise
        return
    finally:
        connection.close()
    if status != http.client.OK:
        raise http.client.HTTPException(f"HTTP {status}")


def _watchdog_seconds() -> float | None:
    """Return the time limit of systemd's watchdog in seconds, None without one."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not meant or not microseconds.isdecimal() or not int(microseconds):
        return None
    return int(microseconds) / 1e6


_CUT_SHORT = 1
_USAGE_ERROR = 2
_AGAIN_SECONDS = 0.01
_ENDING = signal.SIGTERM, signal.SIGINT


class _Output(io.TextIOWrapper):
    """Output stream that keeps an error instead of raising it.

    A repair goes on although the reader of its lines has ended or the disk is full.
    """

    error: OSError | None = None

    @classmethod
    def of(cls, stream: TextIO | None) -> _Output:
        """Return the output to a stream; None is one that is closed.

        A character outside its encoding becomes an escape.
        """
        if not isinstance(stream, io.TextIOWrapper):
            return cls(Path(os.devnull).open("wb"))
        return cls(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.error = error
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.error = error


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program's ``main`` and exit with its code, without waiting for other threads.

    Python's shutdown frees what running threads still use: one that was loading certificates for a
    connection crashed the process.
    """
    sys.stdout, sys.stderr = output, errors = _Output.of(sys.stdout), _Output.of(sys.stderr)
    try:
        code = main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    output.flush()
    if output.error is not None:
        code = code or _CUT_SHORT
        if not isinstance(output.error, BrokenPipeError):  # a reader such as head has ended
            print(f"the output is incomplete: {output.error.strerror}", file=errors)
    errors.flush()
    os._exit(code)


def fail(program: str, line: str, code: int = _USAGE_ERROR) -> NoReturn:
    """Exit with ``code`` after printing ``line``: the wrong setting and the remedy."""
    print(f"{program}: {printable(line)}", file=sys.stderr)  # noqa: T201 - this is for the operator
    raise SystemExit(code)


def end_on_signals(code: int = 0) -> None:
    """Make SIGTERM and Ctrl-C end the main thread immediately with ``code``."""

    def end(_number: int, _frame: object) -> NoReturn:
        ignore_further_signals()
        raise SystemExit(code)

    def end_all_the_same(lost: sys.UnraisableHookArgs) -> None:
        # Python discards exceptions in a finalizer. A SystemExit raised there is lost, so an alarm
        # raises it again.
        if lost.exc_type is SystemExit and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = end_all_the_same
    for number in _ENDING:
        signal.signal(number, end)


def ignore_further_signals() -> None:
    """Ignore SIGTERM and Ctrl-C, which would interrupt a shutdown that has begun."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
