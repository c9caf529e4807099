"""A server that gives recorded answers, and the shape of a JSON value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.http_servers import HttpServer

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


class ReplayServer(HttpServer):
    """Answers each method and path, without its query, as was recorded; and notes what is asked."""

    def __init__(self, *calls: dict[str, Any]) -> None:
        self._answers = {
            (call["request"]["method"], call["request"]["path"].partition("?")[0]): call
            for call in calls
        }
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        super().__init__()
        self.url = f"http://{self.at}"

    def answer(
        self, asked: tuple[str, str], body: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        method, path = asked
        self.asked.append((method, path.partition("?")[0]))
        self.headers.append(headers)
        self.bodies.append(body)
        call = self._answers.get(self.asked[-1], {"status": 204, "content_type": "", "body": ""})
        answer = call["body"]
        raw = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        return call["status"], call["content_type"], raw
