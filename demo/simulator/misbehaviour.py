"""Implementation of the faults that are more than a constant answer."""

import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flask import Response

from demo.simulator.faults import SwitchedOn
from demo.simulator.responses import HttpAnswer, as_json, cut_off, reset_on_close

_LOOK_SECONDS = 0.2
_BLOCK = b"x" * 65536
_MEGABYTE = 1 << 20


class CallOutcome(NamedTuple):
    """The response, and the status for the journal: None if the client receives none."""

    response: Response
    status: int | None


def carry_out(
    on: SwitchedOn, ordinary: Callable[[], HttpAnswer], connection: socket.socket
) -> CallOutcome:
    """Answer a call with the fault.

    `ordinary` does the work of the call. It runs before the delay if the fault has `effect`,
    afterwards if the usual answer is needed, and otherwise not at all.
    """
    done = ordinary() if on.effect else None
    name = on.fault.name
    if name == "hang":
        if not _released(on.released, connection):
            return CallOutcome(cut_off(), None)
    elif name != "drip" and on.seconds:
        on.released.wait(on.seconds)
    if name in _WAYS:
        return _WAYS[name](on, connection)
    if on.fault.canned is not None:
        canned = on.fault.canned
        response = Response(canned.body, canned.status, content_type=canned.content_type)
        return CallOutcome(response, canned.status)
    answer = done or ordinary()
    return CallOutcome(as_json(*answer), answer.status)


def _released(released: threading.Event, connection: socket.socket) -> bool:
    """Wait until the call is released (True) or the client has disconnected (False)."""
    gone = select.poll()
    gone.register(connection, select.POLLRDHUP)
    while not released.wait(_LOOK_SECONDS):
        if gone.poll(0):
            return False
    return True


def _reset(_: SwitchedOn, connection: socket.socket) -> CallOutcome:
    reset_on_close(connection)
    return CallOutcome(cut_off(), None)


def _drip(on: SwitchedOn, _: socket.socket) -> CallOutcome:
    def body() -> Iterator[bytes]:
        for byte in itertools.chain(b'{"success": true, "channels": [', itertools.repeat(0x20)):
            yield bytes((byte,))
            if on.released.wait(on.seconds):
                return

    return CallOutcome(Response(body(), mimetype="application/json"), 200)


def _truncated(_on: SwitchedOn, _: socket.socket) -> CallOutcome:
    part = b'{"success": true, "channels": ['
    response = Response(iter((part,)), mimetype="application/json")
    response.headers["Content-Length"] = str(len(part) + 1000)
    return CallOutcome(response, 200)


def _huge(on: SwitchedOn, _: socket.socket) -> CallOutcome:
    head, tail = b'{"success": true, "padding": "', b'"}'
    size = int(on.megabytes * _MEGABYTE)

    def body() -> Iterator[bytes]:
        yield head
        for sent in range(0, size, len(_BLOCK)):
            yield _BLOCK[: size - sent]
        yield tail

    response = Response(body(), mimetype="application/json")
    response.headers["Content-Length"] = str(len(head) + size + len(tail))
    return CallOutcome(response, 200)


def _redirect(_on: SwitchedOn, _: socket.socket) -> CallOutcome:
    return CallOutcome(Response(b"", 302, {"Location": "/sim/elsewhere"}), 302)


_WAYS: dict[str, Callable[[SwitchedOn, socket.socket], CallOutcome]] = {
    "reset": _reset,
    "drip": _drip,
    "truncated": _truncated,
    "huge": _huge,
    "redirect": _redirect,
}
