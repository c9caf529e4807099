"""The catalogue of shapes and failures, and the record of those that are switched on."""

import json
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

from demo.simulator import rules
from demo.simulator.apis import wrapper_answers as answers
from demo.simulator.errors import Refused

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
    what: str
    operations: tuple[str, ...] = OPERATIONS
    in_front: bool = False
    canned: Canned | None = None


def _json(
    name: str,
    what: str,
    body: object,
    status: int = 200,
    operations: tuple[str, ...] = OPERATIONS,
) -> Fault:
    return Fault(name, what, operations, canned=Canned(status, _JSON, json.dumps(body).encode()))


def _html(name: str, what: str, status: int, title: str) -> Fault:
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Fault(name, what, in_front=True, canned=Canned(status, _HTML, page.encode()))


_FAULTS = (
    # Network and proxies in front of the gateway.
    Fault("hang", "accepts the call and never answers, until released", in_front=True),
    Fault("slow", "answers as usual, but only after `seconds` (5)", in_front=True),
    Fault("drip", "sends a byte of the body every `seconds` (1), without end", in_front=True),
    Fault("reset", "closes the connection without an answer", in_front=True),
    Fault("truncated", "promises a longer body than it sends, then closes", in_front=True),
    Fault("huge", "answers a JSON object of `megabytes` (16)", in_front=True),
    Fault(
        "redirect", "302 to `location`, which notes whether it was sent the secret", in_front=True
    ),
    _html("html_502", "502 with a proxy's HTML page", 502, "502 Bad Gateway"),
    _html("html_504", "504 with a proxy's HTML page", 504, "504 Gateway Time-out"),
    _html("html_200", "200 with an HTML page, as another web site would", 200, "Please log in"),
    Fault("empty_body", "200 with no body at all", in_front=True, canned=Canned(200, _JSON, b"")),
    Fault(
        "not_json",
        "200 that claims to be JSON and is not",
        in_front=True,
        canned=Canned(200, _JSON, b'{"success": true, "channels": [oops'),
    ),
    Fault(
        "invalid_utf8",
        "200 with JSON that is not valid UTF-8",
        in_front=True,
        canned=Canned(
            200,
            _JSON,
            b'{"success": true, "qr": null, "status": "\xff\xfe",'
            b' "channels": [{"id": "\xff\xfe", "status": "connected"}]}',
        ),
    ),
    # The gateway's own refusals.
    _json("unauthorized", "401 JSON, as for a wrong secret", answers.UNAUTHORIZED.body, 401),
    _json(
        "chat_not_open",
        "401, as WPPConnect Server says of a chat that it does not know",
        {"status": "error", "response": "Error on open list"},
        401,
        operations=("messages",),
    ),
    _json("not_found", "404 JSON", answers.NOT_FOUND.body, 404),
    _json("http_429", "429 JSON", {"error": "slower"}, 429),
    _json("http_500_json", "500 JSON", {"success": False, "error": "Internal server error"}, 500),
    _json(
        "success_false_text",
        "200, success false, the error a string",
        {"success": False, "error": "WPPConnect does not answer"},
    ),
    _json(
        "success_false_object",
        "200, success false, the error an object",
        {"success": False, "error": {"code": "ECONNREFUSED", "message": "WPPConnect is away"}},
    ),
    _json("success_false_bare", "200, success false, no error", {"success": False}),
    # Valid JSON of the wrong shape.
    _json(
        "wrong_shape_list", "200 with a bare JSON list", [{"id": "stray", "status": "connected"}]
    ),
    _json("wrong_shape_number", "200 with a JSON number", 42),
    _json("wrong_shape_string", "200 with a JSON string", "connected"),
    _json("wrong_shape_null", "200 with JSON null", None),
    _json(
        "wrong_shape_nested",
        "200 with objects where lists and strings belong",
        {"success": True, "channels": {"id": "stray"}, "qr": {"code": 1}, "data": 7, "status": []},
    ),
    # Lists.
    _json(
        "empty_list", "a list of no channels", answers.channel_list([]).body, operations=("list",)
    ),
    Fault("data_channels", "the list under `data.channels`", ("list",)),
    Fault(
        "entries_without_id", "the list, with entries that have no usable id among it", ("list",)
    ),
    Fault("entries_not_objects", "the list, with entries that are no objects among it", ("list",)),
    # Messages.
    Fault("id_as_messageId", "the message's id in `messageId`", ("send",)),
    Fault("id_as_message_id", "the message's id in `message_id`", ("send",)),
    Fault("without_id", "no word of the message's id", ("send",)),
    # QR codes.
    _json(
        "invalid_qr",
        "500 'Invalid QR code response from server', as an older wrapper",
        answers.INVALID_QR.body,
        500,
        ("qr",),
    ),
)

CATALOGUE = {fault.name: fault for fault in _FAULTS}
"""All faults by name."""

RULES = {
    "fault": rules.one_of(*CATALOGUE),
    "times": rules.or_null(rules.POSITIVE_COUNT),
    "channel": rules.or_null(rules.TEXT),
    "seconds": rules.or_null(rules.AMOUNT),
    "megabytes": rules.POSITIVE_AMOUNT,
    "location": rules.URL,
    "effect": rules.SWITCH,
}
"""Validation rules of the settings of `PUT /sim/faults/{operation}`."""


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
    location: str = "/sim/elsewhere"
    effect: bool = False

    def snapshot(self) -> dict[str, Any]:
        """Describe the fault for the control API."""
        settings = {name: getattr(self, name) for name in RULES}
        return settings | {"operation": self.operation, "fault": self.fault.name}


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
        values = rules.check(spec, RULES, f"fault of {operation}")
        if "fault" not in values:
            raise Refused(400, f"fault of {operation}: the setting 'fault' is missing")
        fault = CATALOGUE[values.pop("fault")]
        if operation not in fault.operations:
            raise Refused(400, f"fault {fault.name} is only for {', '.join(fault.operations)}")
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
