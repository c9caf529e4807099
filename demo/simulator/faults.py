"""The catalogue of shapes and failures, and the record of those that are switched on."""

import json
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from demo.simulator import rules
from demo.simulator.apis import wrapper_answers as answers
from demo.simulator.rules import Refused

OPERATIONS = (
    "list",
    "qr",
    "start_session",
    "delete",
    "create",
    "send",
    # Not calls of the wrapper.
    "status",
    "row",
    "restart",
    "close_session",
    "token",
    "number",
    "query",
    "take_back",
    "pairing_code",
    "chats",
    "messages",
    "media",
    "webhook",
)
"""Names of the gateways' calls in faults and journal."""

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"


class Canned(NamedTuple):
    """A constant answer."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Fault:
    """One named shape or failure.

    A fault `in_front` comes from the network or a proxy, before the secret is checked; the others
    come from the gateway, which answers 401 to a wrong secret first.
    """

    name: str
    operations: tuple[str, ...] = OPERATIONS
    in_front: bool = False
    canned: Canned | None = None


def _json(
    name: str, body: object, status: int = 200, operations: tuple[str, ...] = OPERATIONS
) -> Fault:
    return Fault(name, operations, canned=Canned(status, _JSON, json.dumps(body).encode()))


def _html(name: str, status: int, title: str) -> Fault:
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Fault(name, in_front=True, canned=Canned(status, _HTML, page.encode()))


def _body(name: str, body: bytes) -> Fault:
    return Fault(name, in_front=True, canned=Canned(200, _JSON, body))


_FAULTS = (
    # Network and proxies in front of the gateway.
    Fault("hang", in_front=True),  # no answer until released
    Fault("slow", in_front=True),  # the usual answer after `seconds` (5)
    Fault("drip", in_front=True),  # a byte of the body every `seconds` (1), without end
    Fault("reset", in_front=True),  # a closed connection instead of an answer
    Fault("truncated", in_front=True),  # the promise of a longer body than is sent
    Fault("huge", in_front=True),  # a JSON object of `megabytes` (16)
    Fault("redirect", in_front=True),  # 302 to a place that notes whether it was sent the secret
    _html("html_502", 502, "502 Bad Gateway"),
    _html("html_504", 504, "504 Gateway Time-out"),
    _html("html_200", 200, "Please log in"),
    _body("empty_body", b""),
    _body("not_json", b'{"success": true, "channels": [oops'),
    _body(
        "invalid_utf8",
        b'{"success": true, "qr": null, "status": "\xff\xfe",'
        b' "channels": [{"id": "\xff\xfe", "status": "connected"}]}',
    ),
    # The gateway's own refusals.
    _json("unauthorized", answers.UNAUTHORIZED.body, 401),
    _json(
        "chat_not_open",  # as WPPConnect Server says of a chat that it does not know
        {"status": "error", "response": "Error on open list"},
        401,
        operations=("messages",),
    ),
    _json("not_found", answers.NOT_FOUND.body, 404),
    _json("http_429", {"error": "slower"}, 429),
    _json("http_500_json", {"success": False, "error": "Internal server error"}, 500),
    _json("success_false_text", {"success": False, "error": "WPPConnect does not answer"}),
    _json(
        "success_false_object",
        {"success": False, "error": {"code": "ECONNREFUSED", "message": "WPPConnect is away"}},
    ),
    _json("success_false_bare", {"success": False}),
    # Valid JSON of the wrong shape.
    _json("wrong_shape_list", [{"id": "stray", "status": "connected"}]),
    _json("wrong_shape_number", 42),
    _json("wrong_shape_string", "connected"),
    _json("wrong_shape_null", None),
    _json(
        "wrong_shape_nested",
        {"success": True, "channels": {"id": "stray"}, "qr": {"code": 1}, "data": 7, "status": []},
    ),
    # Lists.
    _json("empty_list", answers.channel_list([]).body, operations=("list",)),
)

CATALOGUE = {fault.name: fault for fault in _FAULTS}
"""All faults by name."""


@dataclass
class SwitchedOn:
    """A fault that is switched on, for all or the next `times` matching calls.

    `channel` limits it to calls about that channel. `seconds` is the delay of the answer, for
    `drip` the pause after each byte. With `effect` the call does its work despite the faulty
    answer.
    """

    fault: Fault
    operation: str
    released: threading.Event
    channel: str | None = None
    times: int | None = None
    seconds: float = 0.0
    megabytes: float = 16.0
    effect: bool = False

    def snapshot(self) -> dict[str, Any]:
        """Describe the fault for the control API."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return settings | {"operation": self.operation, "fault": self.fault.name}


_SETTINGS = {
    name: hint
    for name, hint in get_type_hints(SwitchedOn).items()
    if name not in {"fault", "operation", "released"}
}
_DEFAULT_SECONDS = {"slow": 5.0, "drip": 1.0}


class FaultBook:
    """The faults that are switched on; thread-safe.

    Each operation has at most one fault for all channels and one per channel, which has priority.
    """

    def __init__(self) -> None:
        self._on: dict[tuple[str, str | None], SwitchedOn] = {}
        self._release = {operation: threading.Event() for operation in OPERATIONS}
        self._lock = threading.Lock()

    def switch_on(self, operation: str, spec: object) -> dict[str, Any]:
        """Switch on a fault, replacing the previous one; raise Refused for an invalid one."""
        _known_operation(operation)
        values = rules.check(spec, {**_SETTINGS, "fault": str}, f"fault of {operation}")
        fault = CATALOGUE.get(values.pop("fault", None))
        if fault is None or operation not in fault.operations:
            raise Refused(400, f"fault of {operation}: there is no such fault")
        if values.get("seconds") is None:
            values["seconds"] = _DEFAULT_SECONDS.get(fault.name, 0.0)
        with self._lock:
            on = SwitchedOn(fault, operation, self._release[operation], **values)
            self._on[operation, on.channel] = on
            return on.snapshot()

    def take(self, operation: str, channel: str | None, *, trusted: bool) -> SwitchedOn | None:
        """Return this call's fault, None without one, and decrement its `times`.

        A call with a wrong secret (not `trusted`) gets only faults in front of the gateway.
        """
        keys = [(operation, None)] if channel is None else [(operation, channel), (operation, None)]
        with self._lock:
            for key in keys:
                on = self._on.get(key)
                if on is None or not (trusted or on.fault.in_front):
                    continue
                if on.times is not None:
                    on.times -= 1
                    if on.times == 0:
                        del self._on[key]
                return on
        return None

    def clear(self, operation: str | None = None) -> None:
        """Switch off the faults of one operation or of all, and release the calls on hold."""
        if operation is not None:
            _known_operation(operation)
        with self._lock:
            for one in OPERATIONS if operation is None else (operation,):
                for key in [key for key in self._on if key[0] == one]:
                    del self._on[key]
                self._release[one].set()
                self._release[one] = threading.Event()

    def snapshot(self) -> list[dict[str, Any]]:
        """Describe the active faults for the control API."""
        with self._lock:
            return [on.snapshot() for on in self._on.values()]


def _known_operation(operation: str) -> None:
    if operation not in OPERATIONS:
        raise Refused(404, f"unknown operation {operation!r}; known are {', '.join(OPERATIONS)}")
