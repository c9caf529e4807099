"""Tells systemd that the program is ready, and again and again that it works.

It is the protocol of sd_notify(3): a datagram each time. Without systemd nobody is told.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import socket
import threading
import time

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
