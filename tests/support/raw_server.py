"""A TCP server that answers with any bytes, HTTP or not."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

Talk = Callable[["Conversation"], None]


class Conversation:
    """The server's side of one connection."""

    def __init__(
        self, connection: socket.socket, ending: threading.Event, requests: list[bytes]
    ) -> None:
        self.connection = connection
        self._ending = ending
        self._requests = requests

    def read_request(self) -> bytes:
        """Return a request up to the end of its head, or a part if the client disconnects."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.connection.recv(65536)
            if not part:
                break
            head += part
        if head:
            self._requests.append(head)
        return head

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

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


def silent(conversation: Conversation) -> None:
    """Read a request and answer nothing until the server ends."""
    conversation.read_request()
    conversation.drip(itertools.repeat(b""), 60)


class RawServer(socketserver.ThreadingTCPServer):
    """Runs ``talk`` for each connection in a separate thread; for a ``with`` statement."""

    request_queue_size = 128

    def __init__(self, talk: Talk) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._talk = talk
        self._ending = threading.Event()
        self._open: set[Any] = set()
        self.requests: list[bytes] = []
        """Heads of the requests that ``talk`` reads with read_request()."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):
            self._talk(Conversation(request, self._ending, self.requests))

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def end_connections(self) -> None:
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.shutdown()
        self.end_connections()
        self.server_close()  # joins the connections' threads


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
