"""How each program of Zapwatch starts, speaks to its operator, listens and ends."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import waitress
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from zapwatch.config import Listen


_log = logging.getLogger("systemd")

_SEND_SECONDS = 1.0
_ANSWER_SECONDS = 30.0  # where systemd does not say how long it waits
_RETRY_SECONDS = 1.0


def notify(state: str) -> None:
    """Tell systemd a state such as ``READY=1``. Raises nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name that is no file
        address = f"\0{address[1:]}"
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.settimeout(_SEND_SECONDS)
        sender.sendto(state.encode(), address)


def vouch_for(host: str, port: int) -> None:
    """Begin to tell systemd that this program's server answers, for as long as it does.

    A thread asks it for ``/-/healthy`` as anybody would: the first answer makes the program ready,
    each later one keeps systemd's watchdog from restarting it.
    """
    if os.environ.get("NOTIFY_SOCKET"):
        threading.Thread(target=_vouch, args=(host, port), name="systemd", daemon=True).start()


def _vouch(host: str, port: int) -> None:
    limit = _watchdog_seconds()
    # So that a second try is possible before the time is up.
    seconds = _ANSWER_SECONDS if limit is None else limit / 3
    state = "READY=1"
    while True:
        try:
            _ask(host, port, seconds)
        except (OSError, http.client.HTTPException) as error:
            _log.warning("the program does not answer itself: %s", str(error) or type(error))
            time.sleep(min(_RETRY_SECONDS, seconds))
            continue
        notify(state)
        if limit is None:
            return
        state = "WATCHDOG=1"
        time.sleep(seconds)


def _ask(host: str, port: int, seconds: float) -> None:
    """Raise what went wrong, unless the answer is 200."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/-/healthy")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.client.OK:
        raise http.client.HTTPException(f"HTTP {status}")


def _watchdog_seconds() -> float | None:
    """Return after how long a silence systemd restarts this process, None where it never does."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not meant or not microseconds.isdecimal() or not int(microseconds):
        return None
    return int(microseconds) / 1e6


MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""A larger body is answered 413."""

MAX_HEADER_BYTES = 32 * 1024
"""Larger headers are answered 431."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""What every answer of the hook carries."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_FORWARDED = {"x-forwarded-for", "x-forwarded-proto"}
_USAGE_ERROR = 2
_BACKLOG = 1024  # connections that wait to be taken
_CONNECTIONS = 4096
_OTHER_FILES = 128  # that a program has open besides its connections
_REQUEST_SECONDS = 30  # for a request to be complete, or for the next one to begin
_CLEANUP_SECONDS = 5
_AGAIN_SECONDS = 0.01
_END_SECONDS = 1  # for requests under way when a signal ends the program


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program's ``main`` and end the process with its exit code.

    It ends at once, whatever its threads are doing. Python would clear away under them what they
    use, and one that was loading certificates for a connection then crashed the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks must not end the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever read it has gone
            stream.flush()
    os._exit(code)


def fail(program: str, line: str) -> NoReturn:
    """End the program: a setting is wrong, and ``line`` says which and what to do."""
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201 - this is for the operator
    raise SystemExit(_USAGE_ERROR)


def end_on_signals(code: int = 0) -> None:
    """Let SIGTERM and Ctrl-C end the main thread at once, with this exit code."""

    def end(_number: int, _frame: object) -> NoReturn:
        # A second signal while ending must not cut the ending short.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(code)

    def end_all_the_same(lost: sys.UnraisableHookArgs) -> None:
        # Python lets nothing out of a finalizer. If the signal came in the middle of one, what was
        # raised is lost, and nothing would ever end the program any more.
        if lost.exc_type is SystemExit and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = end_all_the_same
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """What waitress answers by itself, in the form that every answer has."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": error.reason}).encode() + b"\n"
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [*SECURITY_HEADERS.items(), ("Content-Type", "application/json")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection on which a request must be complete some time after it began.

    Waitress ends connections on which nothing comes. One on which a byte comes now and then would
    hold its place for ever, and a thousand of them everybody else's.
    """

    error_task_class = _ErrorTask
    last_activity: float

    def handle_read(self) -> None:
        begun = self.last_activity if self.request is not None else None
        super().handle_read()
        if begun is not None and self.request is not None:
            self.last_activity = begun


class Server:
    """Serves one Flask application with waitress; binds at once, so that a bad address shows."""

    def __init__(self, program: str, setting: str, where: Listen, *, threads: int = 4) -> None:
        """Bind to ``where``, the value of ``setting``; end the program where that cannot be."""
        self._threads = threads
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        try:
            self._socket = socket.create_server(
                (where.host, where.port), family=family, backlog=_BACKLOG
            )
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            what = "is in use by another program" if in_use else f"cannot be listened on ({error})"
            fail(program, f"{setting}: {where} {what}; choose another")
        host = f"[{where.host}]" if ":" in where.host else where.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"

    def run(self, app: WSGIApplication, *, trusted_proxy: str | None = None) -> None:
        """Serve until a signal ends it; of ``trusted_proxy``, believe who its client is."""
        server: Any = waitress.create_server(
            app,
            sockets=[self._socket],
            threads=self._threads,
            ident=None,
            trusted_proxy=trusted_proxy,
            trusted_proxy_headers=_FORWARDED if trusted_proxy else set(),
            clear_untrusted_proxy_headers=True,
            # A little more, so that the application sees and answers what is too large.
            max_request_body_size=MAX_REQUEST_BYTES + 65536,
            max_request_header_size=MAX_HEADER_BYTES,
            connection_limit=_connections(),
            channel_timeout=_REQUEST_SECONDS,
            cleanup_interval=_CLEANUP_SECONDS,
            backlog=_BACKLOG,
            asyncore_use_poll=True,
        )
        server.channel_class = _Channel
        # Outside of waitress's own middleware, after which the proxy's address is the client's.
        server.application = _below_prefix(server.application, trusted_proxy)
        # Waitress would wait 5 s. What hangs for longer than this is cut off, and is sent again.
        server.task_dispatcher.shutdown = partial(
            server.task_dispatcher.shutdown, timeout=_END_SECONDS
        )
        vouch_for(*self._socket.getsockname()[:2])
        try:
            server.run()
        finally:
            notify("STOPPING=1")
            self._socket.close()


def _below_prefix(app: WSGIApplication, trusted_proxy: str | None) -> WSGIApplication:
    """Believe ``trusted_proxy`` below which path of its own the application is; nobody else."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        prefix = environ.pop("HTTP_X_FORWARDED_PREFIX", "").rstrip("/")
        if environ["REMOTE_ADDR"] == trusted_proxy and _PREFIX.fullmatch(prefix):
            environ["SCRIPT_NAME"] = prefix
            # Some proxies leave it in the path.
            if environ["PATH_INFO"].startswith(f"{prefix}/"):
                environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix)
        return app(environ, start_response)

    return application


def _connections() -> int:
    """Return how many connections may be open at once, and let the system allow as many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (
        _CONNECTIONS if soft == resource.RLIM_INFINITY else min(_CONNECTIONS, soft - _OTHER_FILES)
    )
