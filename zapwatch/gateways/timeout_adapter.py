"""HTTP connections for one answer each, which must be complete by a deadline."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class _UntilDeadline(io.RawIOBase):
    """Reads a socket, and lets each read wait no longer than what is left."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._raw = raw
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, seconds))

    def begin(self) -> None:
        super().begin()
        # Servers close idle connections after seconds, Node's after 5: a call that is made in that
        # very moment would fail although the gateway is well. So none is used twice.
        self.will_close = True


class _DeadlineHttp(HTTPConnection):
    response_class = _DeadlineResponse


class _DeadlineHttps(HTTPSConnection):
    response_class = _DeadlineResponse


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHttp


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHttps


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class DeadlineAdapter(HTTPAdapter):
    """Makes a read time-out bound the whole answer, head and body, and keeps no connection.

    A socket's own time-out begins anew with each byte that arrives, so that a server which sends
    one now and then could hold its caller for ever.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS
