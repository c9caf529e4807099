"""What is understood of the events that gateways post."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.simulator.apis.registry import APIS
from demo.simulator.messages import SimulatedMessage as Born
from demo.simulator.payloads import PLACES, message_payload, other_payload
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.messages.message import Direction, EventError, Message, make_token, parse_event
from zapwatch.messages.webhook_log import ID_PATHS, MESSAGE_EVENTS

_NOW = 1_770_000_000.0
_KINDS = ("wrapper", "wppconnect", "evolution", "waha")


def read(kind: str, event: object, now: float = _NOW) -> Message | None:
    found = parse_event(ADAPTERS[kind].read_event, json.dumps(event).encode(), now)
    assert len(found) <= 1
    return found[0] if found else None


def message(kind: str, event: object) -> Message:
    found = read(kind, event)
    assert found is not None
    return found


def wppconnect(**more: Any) -> dict[str, Any]:
    return {"event": "onmessage", "session": "Loja 1", "fromMe": False, "t": _NOW - 3} | more


def evolution(**more: Any) -> dict[str, Any]:
    key = {"remoteJid": "5500000000001@s.whatsapp.net", "fromMe": False, "id": "3A01"}
    data = {"key": key, "messageTimestamp": int(_NOW) - 3}
    return {"event": "messages.upsert", "instance": "Loja 1", "data": data, "apikey": "k"} | more


def waha(**more: Any) -> dict[str, Any]:
    payload = {"id": "false_1@c.us_AA", "fromMe": False, "timestamp": int(_NOW) - 9}
    payload |= more.pop("payload", {})
    event = {"event": "message", "session": "Loja 1", "timestamp": int(_NOW - 3) * 1000}
    return event | {"payload": payload} | more


def wrapper(**more: Any) -> dict[str, Any]:
    return {"event": "onmessage", "sessionId": "Loja 1", "timestamp": _NOW - 3} | more


_INCOMING = {"wrapper": wrapper, "wppconnect": wppconnect, "evolution": evolution, "waha": waha}


@pytest.mark.parametrize("kind", _KINDS)
def test_what_only_resembles_an_echo_is_a_message(kind: str) -> None:
    like = APIS[kind].event(Born("Loja 1", outgoing=False, words="zapwatch-echo-1234", at=_NOW))
    assert message(kind, like).echo is None
    large = {**_INCOMING[kind](), "media": make_token("Loja 1") + "A" * 65536}
    assert message(kind, large).echo is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("event_type", sorted(MESSAGE_EVENTS))
def test_the_wrappers_payload_names_its_channel_in_any_place(place: str, event_type: str) -> None:
    payload = message_payload("Loja 1", event_type, place=place, outgoing=False)
    assert message("wrapper", payload).key == "Loja 1"


def test_the_first_place_of_the_wrappers_payload_counts() -> None:
    payload = {"event": "message", "data": {"channel": "b"}, "session": {"id": "a"}}
    assert message("wrapper", payload).key == "a"
    assert message("wrapper", {**payload, "sessionId": 7}).key == "7"
    assert message("wrapper", {**payload, "sessionId": ""}).key == "a"


@pytest.mark.parametrize("path", ID_PATHS)
def test_the_wrappers_payload_names_its_message_in_any_place(path: str) -> None:
    id_: Any = "3EB0"
    for name in reversed(path.split(".")[1:]):
        id_ = {name: id_}
    assert message("wrapper", wrapper(**id_)).id == "3EB0"


_OWN = {"key": {"fromMe": True}}
_OWN_APP, _OWN_API = ({"fromMe": True, "source": source} for source in ("app", "api"))


@pytest.mark.parametrize(
    ("kind", "event", "direction", "heard"),
    [
        # What the phone has sent came through WhatsApp; what the gateway notes of itself did not.
        ("wppconnect", wppconnect(event="onselfmessage", fromMe=True), Direction.OUT, True),
        ("wrapper", wrapper(event="onselfmessage"), Direction.OUT, True),
        ("wrapper", wrapper(event="message.sent"), Direction.OUT, False),
        ("wrapper", wrapper(event="message", fromMe=True), Direction.OUT, True),
        ("wrapper", wrapper(event="message", data={"fromMe": True}), Direction.OUT, True),
        ("evolution", evolution(data=_OWN), Direction.OUT, True),
        ("evolution", evolution(event="send.message", data=_OWN), Direction.OUT, False),
        ("waha", waha(event="message.any", payload=_OWN_APP), Direction.OUT, True),
        ("waha", waha(event="message.any", payload=_OWN_API), Direction.OUT, False),
        ("waha", waha(event="message.any", payload={"fromMe": True}), Direction.OUT, True),
        # What others have sent has come, whatever its ack is; and what tells no direction.
        ("wppconnect", wppconnect(ack=0), Direction.IN, True),
        ("waha", waha(payload={"ack": 0, "ackName": "PENDING"}), Direction.IN, True),
        ("wrapper", wrapper(ack=0), Direction.IN, True),
        ("evolution", evolution(data={}), Direction.IN, True),
        ("waha", waha(payload={"fromMe": 1}), Direction.IN, True),
    ],
)
def test_a_message_is_heard_where_it_travelled(
    kind: str, event: dict[str, Any], direction: Direction, heard: bool
) -> None:
    found = message(kind, event)
    assert (found.direction, found.heard) == (direction, heard)


@pytest.mark.parametrize(
    ("kind", "event", "field", "not_taken", "taken"),
    [
        ("wppconnect", wppconnect(event="onselfmessage", fromMe=True), "ack", [0, -1], [1, 3]),
        ("wppconnect", wppconnect(fromMe=True), "ack", [0], [1]),
        ("wrapper", wrapper(event="onselfmessage"), "ack", [0, "0", -7], [1, "1", "x", None]),
        ("wrapper", wrapper(fromMe=True), "data", [{"ack": 0}], [{"ack": 1}, {}]),
        ("wrapper", wrapper(fromMe=True), "raw", [{"payload": {"ack": 0}}], [{"payload": 1}]),
        ("waha", waha(event="message.any"), "payload", [{"ack": 0}, {"ackName": "PENDING"}], []),
        ("waha", waha(event="message.any"), "payload", [{"ack": -1, "ackName": "ERROR"}], []),
        ("waha", waha(), "payload", [], [{"ack": 1, "ackName": "SERVER"}, {"ack": 3}]),
        ("evolution", evolution(), "data", [{"status": "PENDING"}, {"status": "ERROR"}], []),
        ("evolution", evolution(), "data", [{"status": 0}, {"status": 1}], [{"status": 2}]),
        ("evolution", evolution(), "data", [], [{"status": "SERVER_ACK"}, {"status": "READ"}]),
    ],
)
def test_an_own_message_is_heard_once_whatsapp_has_taken_it(
    kind: str, event: dict[str, Any], field: str, not_taken: list[Any], taken: list[Any]
) -> None:
    own: dict[str, Any] = {"payload": _OWN_APP, "data": _OWN}
    for values, heard in ((not_taken, False), (taken, True)):
        for value in values:
            more = own.get(field, {}) | value if isinstance(value, dict) else value
            found = message(kind, event | {field: more})
            assert (found.direction, found.heard) == (Direction.OUT, heard), value


def test_an_echo_to_oneself_is_heard_as_soon_as_it_is_reported() -> None:
    token = make_token("Loja 1")
    own = wppconnect(event="onselfmessage", fromMe=True, ack=0, body=token)
    found = message("wppconnect", own)
    assert (found.heard, found.echo) == (True, token)


_STUB = {
    "key": {"fromMe": False, "id": "A"},
    "messageStubType": 2,
    "messageStubParameters": ["No session found to decrypt message"],
}
_EMPTY = {"key": {"fromMe": False, "id": "A"}, "message": {}}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("evolution", evolution(data=_STUB)),
        ("evolution", evolution(data=[_STUB])),
        ("evolution", evolution(data=_STUB | {"messageStubType": "CIPHERTEXT"})),
        ("evolution", evolution(data=_EMPTY)),
        ("wppconnect", wppconnect(type="ciphertext")),
        ("wrapper", wrapper(type="ciphertext")),
        ("wrapper", wrapper(raw={"payload": {"type": "ciphertext"}})),
        ("waha", waha(payload={"_data": _STUB})),
        ("waha", waha(payload={"_data": _EMPTY})),
        ("waha", waha(payload={"_data": {"type": "ciphertext"}})),
    ],
)
def test_what_could_not_be_decrypted_is_told_apart(kind: str, event: dict[str, Any]) -> None:
    found = message(kind, event)
    assert (found.key, found.readable) == ("Loja 1", False)
    assert message(kind, _INCOMING[kind]()).readable


@pytest.mark.parametrize("kind", _KINDS)
def test_the_simulators_ciphertext_cannot_be_read(kind: str) -> None:
    event = APIS[kind].event(Born("Loja 1", outgoing=False, kind="ciphertext", at=_NOW))
    assert not message(kind, event).readable


def test_each_of_several_says_whether_it_can_be_read_and_was_taken() -> None:
    readable = {"key": {"id": "B"}, "messageTimestamp": int(_NOW) - 60}
    pending = {"key": {"id": "C", "fromMe": True}, "status": "PENDING"}
    event = evolution(data=[readable, _STUB, pending])
    found = parse_event(ADAPTERS["evolution"].read_event, json.dumps(event).encode(), _NOW)
    assert [(one.id, one.readable, one.heard) for one in found] == [
        ("B", True, True),
        ("A", False, True),
        ("C", True, False),
    ]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "name",
    [
        *("connection.update", "presence.update", "onack", "onpresencechanged", "status-find"),
        *("session.status", "qrcode.updated", "messages.update", "message.ack"),
        *("message.reaction", "", None, 7, ["message"], {"message": 1}),
    ],
)
def test_events_of_no_message_prove_nothing(kind: str, name: object) -> None:
    assert read(kind, {**_INCOMING[kind](), "event": name}) is None


def test_what_the_simulators_webhook_writes_besides_messages_is_none() -> None:
    assert read("wrapper", other_payload("loja", "connection.update")) is None


@pytest.mark.parametrize(
    ("written", "at"),
    [
        (_NOW - 3, _NOW - 3),
        (str(int(_NOW - 3)), _NOW - 3),
        ((_NOW - 3) * 1000, _NOW - 3),
        (_NOW - 86_400 * 20, _NOW - 86_400 * 20),
        (_NOW + 1, _NOW),
        (_NOW * 1000 + 5000, _NOW),
        (0, _NOW),
        (-5, _NOW),
        (12_345, _NOW),
        (None, _NOW),
        (True, _NOW),
        ("yesterday", _NOW),
        ("9" * 400, _NOW),
        (10**400, _NOW),
        (float("nan"), _NOW),
        (float("inf"), _NOW),
        ([], _NOW),
        ({"low": 5}, _NOW),
    ],
)
@pytest.mark.parametrize("kind", ["wrapper", "wppconnect"])
def test_a_time_that_cannot_be_true_gives_way_to_the_arrivals(
    kind: str, written: object, at: float
) -> None:
    event = _INCOMING[kind]() | {"timestamp": written}
    event.pop("t", None)
    assert message(kind, event).at == at


def test_evolutions_long_numbers_and_lists_are_read() -> None:
    long = {"low": int(_NOW) - 5, "high": 0, "unsigned": True}
    assert message("evolution", evolution(data={"messageTimestamp": long})).at == _NOW - 5
    several = [{"messageTimestamp": int(_NOW) - age} for age in (90, 7, 60)]
    event = evolution(data=[*several, "stray"])
    found = parse_event(ADAPTERS["evolution"].read_event, json.dumps(event).encode(), _NOW)
    assert [one.at for one in found] == [_NOW - 90, _NOW - 7, _NOW - 60]
    assert message("evolution", evolution(data=[])).at == _NOW


def whapi(*messages: Any, **more: Any) -> dict[str, Any]:
    event = {"type": "messages", "event": "post"}
    return {"messages": list(messages), "event": event, "channel_id": "ABCDEF-12345"} | more


def test_each_of_whapis_messages_has_a_direction_of_its_own() -> None:
    event = whapi(
        {"id": "a", "from_me": False, "timestamp": _NOW - 3, "source": "mobile"},
        "stray",
        {"id": "b", "from_me": True, "timestamp": _NOW - 2, "source": "mobile"},
        {"id": "c", "from_me": True, "timestamp": _NOW - 1, "source": "api"},
        {"id": "d", "from_me": False, "timestamp": _NOW, "source": "api"},
        {"id": "e", "from_me": True, "timestamp": _NOW, "source": "mobile", "status": "pending"},
        {"id": "f", "from_me": True, "timestamp": _NOW, "source": "mobile", "status": "failed"},
        {"id": "g", "from_me": True, "timestamp": _NOW, "source": "mobile", "status": "sent"},
        {"id": "h", "from_me": False, "timestamp": _NOW, "source": "mobile", "status": "pending"},
    )
    found = parse_event(ADAPTERS["whapi"].read_event, json.dumps(event).encode(), _NOW)
    assert [(one.id, one.direction, one.at - _NOW, one.heard) for one in found] == [
        ("a", Direction.IN, -3, True),
        ("b", Direction.OUT, -2, True),
        ("c", Direction.OUT, -1, False),
        ("d", Direction.IN, 0, True),
        ("e", Direction.OUT, 0, False),
        ("f", Direction.OUT, 0, False),
        ("g", Direction.OUT, 0, True),
        ("h", Direction.IN, 0, True),
    ]
    assert {one.key for one in found} == {"ABCDEF-12345"}


def test_an_echo_among_several_messages_is_that_message_alone() -> None:
    token = make_token("ABCDEF-12345")
    event = whapi(
        {"id": "a", "from_me": False, "text": {"body": "hello"}},
        {"id": "b", "from_me": False, "text": {"body": f"Zapwatch {token}"}},
        {"id": "c", "from_me": True, "source": "api", "text": {"body": f"Zapwatch {token}"}},
    )
    found = parse_event(ADAPTERS["whapi"].read_event, json.dumps(event).encode(), _NOW)
    assert [(one.id, one.echo) for one in found] == [("a", None), ("b", token)]


@pytest.mark.parametrize(
    "event",
    [
        whapi(event={"type": "statuses", "event": "post"}),
        *(
            whapi({"id": "a"}, event={"type": "messages", "event": verb})
            for verb in ("put", "patch", "delete")
        ),
        whapi({"id": "a"}, event={"type": "chats", "event": "post"}),
        whapi({"id": "a"}, event={"type": "channel", "event": "post"}),
        whapi({"id": "a"}, event={"type": ["messages"], "event": "post"}),
        whapi({"id": "a"}, event="messages"),
        whapi({"id": "a"}, event=None),
        whapi(messages={"id": "a"}),
        whapi(),
        {"event": {"type": "users", "event": "delete"}, "user": {"id": "5500000000001"}},
    ],
)
def test_what_whapi_tells_besides_new_messages_proves_nothing(event: dict[str, Any]) -> None:
    assert parse_event(ADAPTERS["whapi"].read_event, json.dumps(event).encode(), _NOW) == []


def test_wahas_event_says_when_it_was_heard_and_its_message_when_it_was_written() -> None:
    assert message("waha", waha()).at == _NOW - 3
    late = waha()
    del late["timestamp"]
    assert message("waha", late).at == _NOW - 9


@pytest.mark.parametrize(
    ("kind", "event", "known"),
    [
        ("waha", waha(), "false_1@c.us_AA"),
        ("evolution", evolution(), "3A01"),
        ("wppconnect", wppconnect(id="AA"), "AA"),
        ("wppconnect", wppconnect(id={"_serialized": "AA"}), "AA"),
        ("wppconnect", wppconnect(id=["AA"]), None),
        ("wrapper", wrapper(message={"id": "AA"}), "AA"),
    ],
)
def test_a_message_is_known_again_by_its_id(kind: str, event: object, known: str | None) -> None:
    assert message(kind, event).id == known


@pytest.mark.parametrize("kind", [*_KINDS, "whapi"])
@pytest.mark.parametrize("name", [None, "", "   ", ["x"], {"code": "x"}, "x" * 256])
def test_a_message_without_a_usable_channel_is_refused(kind: str, name: object) -> None:
    places = {"wrapper": "sessionId", "evolution": "instance", "whapi": "channel_id"}
    event = whapi({"id": "a"}) if kind == "whapi" else _INCOMING[kind]()
    with pytest.raises(EventError, match="names no channel"):
        read(kind, event | {places.get(kind, "session"): name})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"event=onmessage", b'{"t": ' + b"9" * 5000]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(EventError, match="not JSON"):
        parse_event(ADAPTERS["waha"].read_event, body, _NOW)


@pytest.mark.parametrize("event", [None, [], "message", 7, [{"event": "message"}]])
def test_json_that_is_no_event_is_refused(event: object) -> None:
    with pytest.raises(EventError, match="an object was expected"):
        read("waha", event)
