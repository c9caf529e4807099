"""A network link between two programs that tests can cut: TCP and UDP on one port."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from tests.support.raw_server import Conversation, RawServer
from zapwatch.config import Listen

_DATAGRAM = 65536  # bytes at most


class Relay(RawServer):
    """Forwards traffic from ``at`` to ``port`` of this machine; for a ``with`` statement.

    While the link is cut, datagrams are lost and connections are closed, new ones at once.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._udp, self._out = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._whole = True
        self._datagrams = threading.Thread(target=self._hand_on_datagrams, daemon=True)
        while True:
            super().__init__(self._connect)
            try:
                self._udp.bind(self.server_address)
                break
            except OSError:  # only TCP's port of this number is free
                self.server_close()
        self.at = Listen(*self._udp.getsockname())

    def cut(self) -> None:
        """Cut the link and close its connections."""
        self._whole = False
        self.end_connections()

    def mend(self) -> None:
        self._whole = True

    def __enter__(self) -> Self:
        self._datagrams.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self._whole = False
        super().__exit__(*error)
        self._out.sendto(b"", self._udp.getsockname())  # wakes the thread that reads datagrams
        self._datagrams.join()
        self._udp.close()
        self._out.close()

    def _connect(self, conversation: Conversation) -> None:
        caller = conversation.connection
        with socket.socket() as called:
            called.connect(self._target)
            if not self._whole:  # later, cut() ends the caller's connection
                return
            back = threading.Thread(target=_pump, args=(called, caller), daemon=True)
            back.start()
            _pump(caller, called)
            back.join()

    def _hand_on_datagrams(self) -> None:
        while True:
            datagram, _ = self._udp.recvfrom(_DATAGRAM)
            if self._ending.is_set():
                return
            if self._whole:
                # Without a listener the datagram is lost, as usual.
                with contextlib.suppress(OSError):
                    self._out.sendto(datagram, self._target)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Forward data until either side is closed, then close both."""
    with contextlib.suppress(OSError):
        while data := source.recv(_DATAGRAM):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
