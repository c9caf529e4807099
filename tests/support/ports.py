"""Ports for programs that tests start later, or restart."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

from zapwatch.config import Listen


def free() -> Listen:
    """Return an address that is free.

    Linux assigns ports from 32768 on to outgoing connections, which could take such a port before
    the program does.
    """
    while True:
        at = Listen("127.0.0.1", 20000 + secrets.randbelow(12768))
        with suppress(OSError), socket.create_server((at.host, at.port)):
            return at


def free_port() -> int:
    return free().port
