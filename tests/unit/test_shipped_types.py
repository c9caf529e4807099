"""The descriptions that Zapwatch brings, against what is known of their gateways, row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.simulator.apis.openwa import openwa_id
from demo.simulator.event_shapes import MESSAGES, OTHERS
from demo.simulator.messages import SimulatedMessage
from zapwatch.channels import Channel, Status
from zapwatch.gateways.base import (
    GatewayError,
    GatewayErrorKind,
    GatewayResponse,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.declared import shipped
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.messages.event_parser import EventError, Message, parse
from zapwatch.messages.payloads import make_token
from zapwatch.messages.webhook_log import Direction

TYPES = shipped()
NOW = 1_770_000_000.0
_UP, _DOWN = Status.CONNECTED, Status.DISCONNECTED
_CODE, _STARTS, _UNKNOWN = Status.QR_REQUIRED, Status.INITIALIZING, Status.UNKNOWN
Answers = dict[str, tuple[int, Any]]


def _user(*, connected: bool, logged_in: bool, qrcode: str = "") -> dict[str, Any]:
    flags = {"connected": connected, "loggedIn": logged_in, "qrcode": qrcode}
    return {
        "id": "0f",
        "name": "loja",
        "token": "t0k3n",
        "jid": "5500000000001.0:52@s.whatsapp.net",
        **flags,
    }


def _ask(kind: str, monkeypatch: pytest.MonkeyPatch, answers: Answers) -> tuple[Any, list[str]]:
    """Return an adapter for a gateway that answers each request as it is told, and what it asks."""
    gateway = ADAPTERS[kind]("http://127.0.0.1:9", "not-a-real:secret")
    asked: list[str] = []

    def answer(method: str, path: str, *_: object, **__: object) -> GatewayResponse:
        asked.append(f"{method} {path}")
        status, body = answers[f"{method} {path}"]
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return GatewayResponse(status, "application/json", raw)

    monkeypatch.setattr(gateway._http, "request", answer)
    return gateway, asked


# What the list says, with what is asked besides.
_LISTS: dict[str, tuple[Answers, Any]] = {
    "gowa": ({}, lambda word: ("GET /devices", {"results": [{"id": "loja", "state": word}]})),
    "openwa": (
        {},
        lambda word: ("GET /api/sessions", [{"id": "u-1", "name": "loja", "status": word}]),
    ),
    "wuzapi": ({}, lambda user: ("GET /admin/users", {"code": 200, "data": [user]})),
    "wwebjs-api": (
        {"GET /session/getSessions": (200, {"success": True, "result": ["loja"]})},
        lambda state: ("GET /session/status/loja", state),
    ),
}


def _state(state: str | None, message: str) -> dict[str, Any]:
    return {"success": state == "CONNECTED", "state": state, "message": message}


@pytest.mark.parametrize(
    ("kind", "said", "status"),
    [
        ("gowa", "logged_in", _UP),
        ("gowa", "connected", _CODE),
        ("gowa", "connecting", _STARTS),
        ("gowa", "disconnected", _DOWN),
        ("gowa", "something new", _UNKNOWN),
        ("openwa", "created", _DOWN),
        ("openwa", "initializing", _STARTS),
        ("openwa", "qr_ready", _CODE),
        ("openwa", "authenticating", _STARTS),
        ("openwa", "ready", _UP),
        ("openwa", "disconnected", _DOWN),
        ("openwa", "action_required", _UNKNOWN),
        ("openwa", "failed", _DOWN),
        ("wuzapi", _user(connected=True, logged_in=True), _UP),
        ("wuzapi", _user(connected=True, logged_in=False, qrcode="data:image/png"), _CODE),
        ("wuzapi", _user(connected=True, logged_in=False), _STARTS),
        ("wuzapi", _user(connected=False, logged_in=False), _DOWN),
        ("wuzapi", {"name": "loja", "token": "t0k3n"}, _UNKNOWN),
        ("wwebjs-api", _state("CONNECTED", "session_connected"), _UP),
        ("wwebjs-api", _state(None, "session_not_connected"), _STARTS),
        ("wwebjs-api", _state("OPENING", "session_not_connected"), _STARTS),
        ("wwebjs-api", _state("PAIRING", "session_not_connected"), _STARTS),
        ("wwebjs-api", _state("UNPAIRED", "session_not_connected"), _STARTS),
        ("wwebjs-api", _state("UNPAIRED_IDLE", "session_not_connected"), _STARTS),
        ("wwebjs-api", _state("CONFLICT", "session_not_connected"), _DOWN),
        ("wwebjs-api", _state("TOS_BLOCK", "session_not_connected"), _UNKNOWN),
        ("wwebjs-api", _state(None, "browser tab closed"), _DOWN),
        ("wwebjs-api", _state(None, "session closed"), _DOWN),
        ("wwebjs-api", _state(None, "Protocol error: target closed"), _DOWN),
        ("wwebjs-api", {"success": False, "state": None, "message": ""}, _UNKNOWN),
    ],
)
def test_each_status_has_its_meaning(
    monkeypatch: pytest.MonkeyPatch, kind: str, said: Any, status: Status
) -> None:
    others, of = _LISTS[kind]
    request, body = of(said)
    gateway, _ = _ask(kind, monkeypatch, others | {request: (200, body)})
    (channel,) = gateway.list_channels().channels
    assert (channel.id, channel.status) == ("loja", status)


def test_wuzapis_older_list_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [_user(connected=True, logged_in=True)]
    gateway, _ = _ask("wuzapi", monkeypatch, {"GET /admin/users": (200, listed)})
    (channel,) = gateway.list_channels().channels
    assert (channel.status, channel.number) == (_UP, "5500000000001")


def test_openwas_list_tells_more(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"phone": "5500000000001", "lastActive": "2026-06-25T09:01:55.000Z"}
    entry = {"id": "u-1", "name": "loja", "status": "ready", **told}
    gateway, _ = _ask("openwa", monkeypatch, {"GET /api/sessions": (200, [entry])})
    (channel,) = gateway.list_channels().channels
    assert channel == Channel(
        "loja", _UP, number="5500000000001", activity=1782378115.0, alias="u-1"
    )


_OPENWA: Answers = {"GET /api/sessions": (200, [{"id": "u-1", "name": "loja", "status": "x"}])}
_RESTARTED = ["POST /api/sessions/u-1/stop", "POST /api/sessions/u-1/start"]
_USERS: Answers = {"GET /admin/users": (200, {"data": [_user(connected=False, logged_in=False)]})}
_SHOWS: Answers = {
    "GET /admin/users": (200, {"data": [_user(connected=True, logged_in=False, qrcode="x")]})
}
_PNG = b"\x89PNG\r\n\x1a\n..."


@pytest.mark.parametrize(
    ("kind", "call", "answers", "outcome"),
    [
        # GOWA
        (
            "gowa",
            "qr",
            {
                "GET /devices": (200, {"results": [{"id": "loja", "state": "connected"}]}),
                "GET /devices/loja/login": (200, {"results": {"qr_link": "http://x/qr.png"}}),
            },
            QrKind.QR,
        ),
        ("gowa", "list", {"GET /devices": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        (
            "gowa",
            "reconnect",
            {
                "GET /devices": (200, {"results": [{"id": "loja", "state": "disconnected"}]}),
                "POST /devices/loja/reconnect": (500, {"message": "never paired"}),
            },
            GatewayErrorKind.HTTP,
        ),
        # OpenWA
        ("openwa", "list", {"GET /api/sessions": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("openwa", "list", {"GET /api/sessions": (403, {})}, GatewayErrorKind.UNAUTHORIZED),
        ("openwa", "list", {"GET /api/sessions": (429, {})}, GatewayErrorKind.LIMIT),
        (
            "openwa",
            "reconnect",
            {
                "GET /api/sessions/u-1": (200, {"status": "disconnected"}),
                "POST /api/sessions/u-1/stop": (400, {"message": "not started"}),
                "POST /api/sessions/u-1/start": (200, {"status": "initializing"}),
            },
            QrKind.INITIALIZING,
        ),
        (
            "openwa",
            "reconnect",
            {
                "GET /api/sessions/u-1": (200, {"status": "failed"}),
                "POST /api/sessions/u-1/stop": (200, {}),
                "POST /api/sessions/u-1/start": (400, {"message": "already started"}),
            },
            GatewayErrorKind.HTTP,
        ),
        (
            "openwa",
            "reconnect",
            {"GET /api/sessions/u-1": (200, {"status": "action_required"})},
            GatewayErrorKind.INVALID,
        ),
        (
            "openwa",
            "qr",
            {
                "GET /api/sessions/u-1": (200, {"status": "qr_ready"}),
                "GET /api/sessions/u-1/qr": (200, {"qrCode": "data:image/png;base64,iVBORw0KGgo"}),
            },
            QrKind.QR,
        ),
        (
            "openwa",
            "qr",
            {
                "GET /api/sessions/u-1": (200, {"status": "qr_ready"}),
                "GET /api/sessions/u-1/qr": (400, {"message": "not ready"}),
            },
            QrKind.INITIALIZING,
        ),
        # wuzapi
        ("wuzapi", "list", {"GET /admin/users": (401, {})}, GatewayErrorKind.UNAUTHORIZED),
        (
            "wuzapi",
            "reconnect",
            {**_USERS, "POST /session/connect": (200, {"data": {"details": "Connected!"}})},
            QrKind.INITIALIZING,
        ),
        (
            "wuzapi",
            "reconnect",
            {**_USERS, "POST /session/connect": (500, {"error": "already connected"})},
            QrKind.INITIALIZING,
        ),
        (
            "wuzapi",
            "reconnect",
            {**_USERS, "POST /session/connect": (400, {"error": "could not decode Payload"})},
            GatewayErrorKind.HTTP,
        ),
        (
            "wuzapi",
            "qr",
            {**_SHOWS, "GET /session/qr": (200, {"data": {"QRCode": "data:image/png;base64,iV"}})},
            QrKind.QR,
        ),
        (
            "wuzapi",
            "qr",
            {**_SHOWS, "GET /session/qr": (500, {"error": "not connected"})},
            QrKind.INITIALIZING,
        ),
        (
            "wuzapi",
            "qr",
            {**_SHOWS, "GET /session/qr": (500, {"error": "already logged in"})},
            QrKind.ACCEPTED,
        ),
        # wwebjs-api
        (
            "wwebjs-api",
            "list",
            {"GET /session/getSessions": (403, {"success": False})},
            GatewayErrorKind.UNAUTHORIZED,
        ),
        (
            "wwebjs-api",
            "reconnect",
            {"GET /session/status/loja": (200, _state(None, "session_not_found"))},
            GatewayErrorKind.INVALID,
        ),
        (
            "wwebjs-api",
            "reconnect",
            {
                "GET /session/status/loja": (200, _state(None, "session closed")),
                "GET /session/restart/loja": (200, _state(None, "session_not_found")),
            },
            GatewayErrorKind.INVALID,
        ),
        (
            "wwebjs-api",
            "qr",
            {
                "GET /session/status/loja": (200, _state(None, "session_not_connected")),
                "GET /session/qr/loja/image": (200, _PNG),
            },
            QrKind.QR,
        ),
        (
            "wwebjs-api",
            "qr",
            {
                "GET /session/status/loja": (200, _state(None, "session_not_connected")),
                "GET /session/qr/loja/image": (200, {"success": False, "message": "not ready"}),
            },
            QrKind.INITIALIZING,
        ),
    ],
)
def test_each_answer_has_its_meaning(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    call: str,
    answers: Answers,
    outcome: QrKind | GatewayErrorKind,
) -> None:
    known = _OPENWA if kind == "openwa" else {}
    gateway, _ = _ask(kind, monkeypatch, {**known, **answers})
    calls = {
        "list": gateway.list_channels,
        "qr": lambda: gateway.qr("loja"),
        "reconnect": lambda: gateway.reconnect(Channel("loja", _DOWN), silent=False),
    }
    found: object
    try:
        answer = calls[call]()
        found = answer.kind if isinstance(answer, QrAnswer) else answer
    except GatewayError as error:
        found = error.reason
    assert found is outcome


def test_what_keeps_the_pairing_is_all_that_a_repair_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        **_OPENWA,
        "GET /api/sessions/u-1": (200, {"status": "ready"}),
        **dict.fromkeys(_RESTARTED, (200, {})),
    }
    gateway, asked = _ask("openwa", monkeypatch, answers)
    gateway.reconnect(Channel("loja", _UP), silent=True)
    assert asked[-2:] == _RESTARTED


def test_a_sent_text_without_an_id_is_sent_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """WhatsApp Web of July 2026 hides the ids from whatsapp-web.js."""
    answers: Answers = {"POST /client/sendMessage/loja": (200, {"success": True})}
    gateway, _ = _ask("wwebjs-api", monkeypatch, answers)
    assert gateway.send_text(Channel("loja", _UP), "5500000000001", "hello") is None


def test_of_two_users_of_one_name_the_first_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _user(connected=True, logged_in=True)
    second = {**_user(connected=False, logged_in=False), "token": "another"}
    answers: Answers = {
        "GET /admin/users": (200, {"data": [first, second]}),
        "POST /chat/send/text": (200, {"data": {"Id": "3EB0"}}),
    }
    gateway, _ = _ask("wuzapi", monkeypatch, answers)
    original, tokens = gateway._http.request, []

    def note(*arguments: Any, headers: dict[str, str], **options: Any) -> GatewayResponse:
        tokens.append(headers.get("token"))
        answer: GatewayResponse = original(*arguments, headers=headers, **options)
        return answer

    monkeypatch.setattr(gateway._http, "request", note)

    (channel,) = gateway.list_channels().channels
    assert channel.status is _UP
    assert gateway.send_text(channel, "5500000000001", "hello") == "3EB0"
    assert tokens == [None, "t0k3n"]


def test_an_id_that_no_path_can_hold_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"id": "..", "name": "loja", "status": "disconnected"}]
    gateway, asked = _ask("openwa", monkeypatch, {"GET /api/sessions": (200, listed)})
    with pytest.raises(GatewayError):
        gateway.reconnect(Channel("loja", _DOWN), silent=False)
    assert asked == ["GET /api/sessions"]


def _read(kind: str, event: Any) -> list[Message]:
    return parse(kind, json.dumps(event).encode(), NOW, TYPES[kind].events)


_KEYS = {"openwa": openwa_id("Loja 1")}
_SILENT_ABOUT_ITS_OWN = {"openwa", "wwebjs-api"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("outgoing", [True, False])
def test_a_message_is_read_by_its_own_time(kind: str, *, outgoing: bool) -> None:
    born = SimulatedMessage("Loja 1", outgoing=outgoing, id="3EB0")
    (found,) = _read(kind, MESSAGES[kind](born, NOW - 3))

    assert found.key == _KEYS.get(kind, "loja1")
    assert found.direction is (Direction.OUT if outgoing else Direction.IN)
    assert found.at == NOW - 3
    assert found.heard is not (outgoing and kind in _SILENT_ABOUT_ITS_OWN)
    assert "3EB0" in str(found.id)


@pytest.mark.parametrize("kind", TYPES)
def test_an_echo_is_told_by_its_token(kind: str) -> None:
    key = _KEYS.get(kind, "loja1")
    token = make_token(key)
    born = SimulatedMessage("Loja 1", outgoing=False, words=f"Zapwatch {token}")
    assert [one.echo for one in _read(kind, MESSAGES[kind](born, NOW))] == [token]


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_told_besides_messages_proves_nothing(kind: str) -> None:
    assert _read(kind, OTHERS[kind]("loja")) == []


@pytest.mark.parametrize(
    ("kind", "event", "messages"),
    [
        ("gowa", {"event": "message", "session_id": "loja", "payload": None}, 0),
        ("gowa", {"event": "message", "session_id": "loja", "payload": {}}, 1),
        ("openwa", {"event": "message.received", "sessionId": "u-1", "data": {}}, 1),
        ("openwa", {"event": "message.failed", "sessionId": "u-1", "data": {}}, 0),
        ("openwa", {"event": "session.status", "sessionId": "u-1", "data": {}}, 0),
        ("wuzapi", {"type": "Message", "instanceName": "loja", "event": {}}, 1),
        ("wuzapi", {"type": "Connected", "instanceName": "loja", "event": {}}, 0),
        ("wwebjs-api", {"dataType": "message", "sessionId": "l", "data": {"message": {}}}, 1),
        ("wwebjs-api", {"dataType": "message_create", "sessionId": "l", "data": {}}, 0),
        ("wwebjs-api", {"dataType": "ready", "sessionId": "l"}, 0),
    ],
)
def test_each_event_has_its_meaning(kind: str, event: Any, messages: int) -> None:
    assert len(_read(kind, event)) == messages


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        # Only a phone number, where the device has no id.
        ("gowa", b'{"event": "message", "device_id": "5500000000001", "payload": {}}'),
        # A form, where WEBHOOK_FORMAT is not json.
        ("wuzapi", b"jsonData=%7B%22type%22%3A%22Message%22%7D&userID=0f"),
    ],
)
def test_an_event_that_cannot_be_read_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(EventError):
        parse(kind, body, NOW, TYPES[kind].events)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("gowa", "X-Hub-Signature-256"),
        ("openwa", "X-OpenWA-Signature"),
        ("wuzapi", "x-hmac-signature"),
        ("wwebjs-api", None),
    ],
)
def test_events_are_signed_as_the_gateway_signs_them(kind: str, header: str | None) -> None:
    events = TYPES[kind].events
    assert events is not None
    assert events.signature == header
