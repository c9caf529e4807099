"""The external service that receives the dead man's switch."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Heartbeat:
    """Counts POST and GET requests to ``url``; for a ``with`` statement."""

    def __init__(self) -> None:
        self.beats = 0
        self.status = 200
        self._last = time.monotonic()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_GET(self) -> None:
                outer.beats += 1
                outer._last = time.monotonic()
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/beat"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def silent_for(self) -> float:
        """Return the seconds since the last beat."""
        return time.monotonic() - self._last

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
