"""A server that gives recorded answers, and the shape of a JSON value."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

_FOLDER = Path(__file__).parent


def recorded(name: str) -> dict[str, dict[str, Any]]:
    """Return the calls of a recording by their names, in their order."""
    calls = json.loads((_FOLDER / f"{name}.json").read_text())["calls"]
    return {call["name"]: call for call in calls}


def posts() -> list[dict[str, Any]]:
    """Return what the servers posted to their webhooks."""
    found: list[dict[str, Any]] = json.loads((_FOLDER / "webhooks.json").read_text())["posts"]
    return found


def shape(value: object) -> object:
    """Return the keys and types of a JSON value; those of the first entry stand for a list."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return type(value).__name__


class ReplayServer:
    """Answers each method and path, without its query, as was recorded; and notes what is asked."""

    def __init__(self, *calls: dict[str, Any]) -> None:
        answers = {
            (call["request"]["method"], call["request"]["path"].partition("?")[0]): call
            for call in calls
        }
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Log nothing."""

            def handle_call(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.bodies.append(self.rfile.read(length))
                outer.headers.append(dict(self.headers))
                asked = (self.command, self.path.partition("?")[0])
                outer.asked.append(asked)
                call = answers.get(asked, {"status": 204, "content_type": "", "body": ""})
                body = call["body"]
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(call["status"])
                self.send_header("Content-Type", call["content_type"])
                if call["status"] != 204:
                    self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = handle_call  # noqa: N815 - the library's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
