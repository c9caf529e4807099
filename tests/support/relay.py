"""A network link between two programs that tests can cut: TCP and UDP on one port."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from zapwatch.config import Listen

_DATAGRAM = 65536  # bytes at most
_HOST = "127.0.0.1"


class Relay:
    """Forwards traffic from ``at`` to ``port`` of this machine; for a ``with`` statement.

    While the link is cut, datagrams are lost and connections are closed, new ones at once.
    """

    def __init__(self, port: int) -> None:
        self._target = (_HOST, port)
        self._tcp, self._udp = _on_one_port()
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.at = Listen(*self._tcp.getsockname())
        self._whole = True
        self._ending = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def cut(self) -> None:
        """Cut the link and close its connections."""
        with self._lock:
            self._whole = False
            for connection in self._open:
                _end(connection)

    def mend(self) -> None:
        """Restore the link."""
        with self._lock:
            self._whole = True

    def __enter__(self) -> Self:
        self._begin(self._accept)
        self._begin(self._hand_on_datagrams)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self.cut()
        _end(self._tcp)
        self._out.sendto(b"", self._udp.getsockname())  # wakes the thread that reads datagrams
        for thread in self._threads:
            thread.join()
        for one in (self._tcp, self._udp, self._out):
            one.close()

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending:
            try:
                caller, _ = self._tcp.accept()
            except OSError:
                return
            self._begin(self._connect, caller)

    def _connect(self, caller: socket.socket) -> None:
        with caller, socket.socket() as called, contextlib.suppress(OSError):
            called.connect(self._target)
            with self._lock:
                if not self._whole:
                    return
                self._open |= {caller, called}
            back = threading.Thread(target=_pump, args=(called, caller), daemon=True)
            back.start()
            _pump(caller, called)
            back.join()
            with self._lock:
                self._open -= {caller, called}

    def _hand_on_datagrams(self) -> None:
        while True:
            datagram, _ = self._udp.recvfrom(_DATAGRAM)
            if self._ending:
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
    _end(source)
    _end(sink)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _on_one_port() -> tuple[socket.socket, socket.socket]:
    while True:
        tcp = socket.create_server((_HOST, 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return tcp, udp
