"""Small HTTP servers of other systems, each in a thread of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class HttpServer:
    """Serves what ``answer`` returns, from its creation to close() or the end of ``with``."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = (self.command, self.path)
                status, content_type, content = outer.answer(asked, body, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.at = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def answer(
        self, asked: tuple[str, str], body: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body of the answer to a method and path."""
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Exposition(HttpServer):
    """Serves ``text``, which may change at any time, as an exporter's metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__()

    def answer(self, *_: object) -> tuple[int, str, bytes]:
        return 200, "text/plain; version=0.0.4", self.text.encode()


class ConsumerWebhook(HttpServer):
    """The operator's system: answers an event with ``status``, after a call of ``on_post``."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        """All posted events, whatever the answer."""
        self.headers: list[dict[str, str]] = []
        self.status = 204
        self.on_post: Callable[[dict[str, Any]], object] = lambda _event: None
        super().__init__()
        self.url = f"http://{self.at}/hook"

    def answer(self, _: object, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        event = json.loads(body)
        self.events.append(event)
        self.headers.append(headers)
        self.on_post(event)
        return self.status, "text/plain", b""


class Heartbeat(HttpServer):
    """The external service of the dead man's switch: counts requests to ``url``."""

    def __init__(self) -> None:
        self.beats = 0
        self.status = 200
        self._last = time.monotonic()
        super().__init__()
        self.url = f"http://{self.at}/beat"

    def silent_for(self) -> float:
        return time.monotonic() - self._last

    def answer(self, *_: object) -> tuple[int, str, bytes]:
        self.beats += 1
        self._last = time.monotonic()
        return self.status, "text/plain", b""
