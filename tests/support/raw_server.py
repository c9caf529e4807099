"""A TCP server that answers with any bytes, HTTP or not."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

Talk = Callable[["Conversation"], None]


class Conversation:
    """The server's side of one connection."""

    def __init__(self, connection: socket.socket, ending: threading.Event) -> None:
        self._connection = connection
        self._ending = ending

    def read_request(self) -> bytes:
        """Return a request up to the end of its head, or a part if the client disconnects."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = self._connection.recv(65536)
            if not part:
                break
            head += part
        return head

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self._connection.sendall(data)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def drip(self, parts: Iterable[bytes], seconds: float) -> None:
        """Send the parts with a pause after each, until the server ends."""
        for part in parts:
            self.send(part)
            if self._ending.wait(seconds):
                return


def reset(conversation: Conversation) -> None:
    """Read a request and close the connection with a TCP reset."""
    conversation.read_request()
    conversation.reset()


class RawServer:
    """Runs ``talk`` for each connection in a separate thread; for a ``with`` statement."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []
        """Heads of the requests that ``talk`` reads with read_request()."""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._hold, connection)

    def _hold(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        with connection, contextlib.suppress(OSError):
            self._talk(_Noted(connection, self._ending, self.requests))
        with self._lock:
            self._open.discard(connection)


class _Noted(Conversation):
    def __init__(
        self, connection: socket.socket, ending: threading.Event, requests: list[bytes]
    ) -> None:
        super().__init__(connection, ending)
        self._requests = requests

    def read_request(self) -> bytes:
        head = super().read_request()
        if head:
            self._requests.append(head)
        return head


@contextmanager
def deaf_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that neither accepts nor refuses connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield int(full.getsockname()[1])


def answering(
    body: bytes | object,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: str = "",
) -> Talk:
    """Answer every request with this body over HTTP/1.1, as JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(raw)}\r\n{headers}\r\n"
    )

    def talk(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.send(head.encode() + raw)

    return talk
