"""Fake of the operator's system: a webhook that keeps its events."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class ConsumerWebhook:
    """Answers each post with ``status``, after a call of ``on_post`` with its event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        """All posted events, whatever the answer."""
        self.headers: list[dict[str, str]] = []
        self.status = 204
        self.on_post: Callable[[dict[str, Any]], object] = lambda _event: None
        handler = type("Handler", (_Handler,), {"webhook": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    webhook: ConsumerWebhook

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.webhook.events.append(event)
        self.webhook.headers.append(dict(self.headers))
        self.webhook.on_post(event)
        self.send_response(self.webhook.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""
