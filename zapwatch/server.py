"""How each program of Zapwatch starts, speaks to its operator, listens and ends."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


_log = logging.getLogger("systemd")
_threads = logging.getLogger("server")

_SEND_SECONDS = 1.0
_ANSWER_SECONDS = 30.0  # where systemd does not say how long it waits
_RETRY_SECONDS = 1.0


_dead: list[str] = []


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a thread that works until the program ends; should it fail, dead_threads() names it."""

    def run() -> None:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a thread has nobody to tell
            _dead.append(name)
            _threads.exception("the thread %s has died, a fault of the program itself", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def dead_threads() -> list[str]:
    """Return the names of the threads that have died: only a restart brings them back."""
    return _dead.copy()


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


def vouch_for(host: str, port: int, *, tls: bool = False) -> None:
    """Begin to tell systemd that this program's server answers, for as long as it does.

    A thread asks it for ``/-/healthy`` as anybody would: the first answer makes the program ready,
    each later one keeps systemd's watchdog from restarting it.
    """
    if os.environ.get("NOTIFY_SOCKET"):
        start_thread("systemd", lambda: _vouch(host, port, tls=tls))


def _vouch(host: str, port: int, *, tls: bool) -> None:
    limit = _watchdog_seconds()
    # So that a second try is possible before the time is up.
    seconds = _ANSWER_SECONDS if limit is None else limit / 3
    state = "READY=1"
    while True:
        try:
            _ask(host, port, seconds, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            _log.warning("the program does not answer itself: %s", str(error) or type(error))
            time.sleep(min(_RETRY_SECONDS, seconds))
            continue
        notify(state)
        if limit is None:
            return
        state = "WATCHDOG=1"
        time.sleep(seconds)


def _ask(host: str, port: int, seconds: float, *, tls: bool) -> None:
    """Raise what went wrong, unless the answer is 200."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    if tls:
        # It is this very process: its certificate is for another name.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
    try:
        connection.request("GET", "/-/healthy")
        status = connection.getresponse().status
    except ssl.SSLError as error:
        # It wants a client's certificate, and so it is there.
        if "CERTIFICATE_REQUIRED" not in str(error):
            raise
        return
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


_USAGE_ERROR = 2
_AGAIN_SECONDS = 0.01


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
