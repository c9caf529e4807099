"""Responses of the two HTTP APIs, and aborted connections."""

import json
import socket
import struct
from typing import Any, NamedTuple

from flask import Response

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class HttpAnswer(NamedTuple):
    """An HTTP status, and the body: JSON, or a PNG image in bytes."""

    status: int
    body: Any


def as_json(status: int, body: Any) -> Response:
    """Return a JSON response in UTF-8, or a PNG image if the body is bytes."""
    if isinstance(body, bytes):
        return Response(body, status, mimetype="image/png")
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(text, status, mimetype="application/json")


def cut_off() -> Response:
    """Return a response that closes the connection before its first byte."""
    return Response(map(_abort, (b"",)))


def reset_on_close(connection: socket.socket) -> None:
    """Make the connection close with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def resets_on_close(connection: socket.socket) -> bool:
    """Whether `reset_on_close` was called for this connection."""
    size = len(_RESET_ON_CLOSE)
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, size) == _RESET_ON_CLOSE


def _abort(_: bytes) -> bytes:
    raise ConnectionAbortedError
