"""Descriptions of gateways: what is read of one, and the one line that a wrong one gives."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.simulator.apis.registry import APIS
from demo.simulator.messages import SimulatedMessage
from exporter.event_buffer import senders_among
from tests.support.raw_server import Conversation, RawServer, answering
from zapwatch.channels import Channel, Status
from zapwatch.config import MessageSourceKind, SettingsError, parse
from zapwatch.gateways import declared
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, QrKind
from zapwatch.gateways.declaration import DeclarationError, read_file
from zapwatch.gateways.declared import DeclaredGateway, adapter_for
from zapwatch.gateways.registry import ADAPTERS, make_gateway
from zapwatch.messages.message import Wanted, parse_event

_NOW = 1_770_000_000.0
_LOJA = Channel("loja", Status.CONNECTED)
_OWN = """
types:
  own:
    auth: {header: X-Key}
    list: {call: GET /list, items: sessions, id: name, status: state}
    statuses: {up: connected, code: qr_required, boot: initializing, down: disconnected}
    repair: {disconnected: start}
    calls:
      start: [{call: "POST /stop/{id}", may_fail: true}, "POST /start/{id}"]
      qr: [{call: "GET /qr/{id}", value: qr}]
      send: [{call: POST /send, body: {to: "{number}", list: ["{text}"]}, value: id}]
      lose_pairing: ["POST /logout/{id}"]
    answers:
      - {http: 409, call: qr, means: accepted}
      - {http: 404, means: unauthorized}
      - {when: "sent == `false`", means: failed}
      - {http: 202, means: ok}
"""

_LIST = """
    received:
      chats: {call: "GET /c", items: chats, id: id, at: at}
      call: GET /m/{chat}?n={limit}
      items: "@"
      id: id
      at: at
      out: own
      chat: chat
      page: 2
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "types.yaml"
    path.write_text(text)
    return path


def _gateway(folder: Path, url: str, text: str = _OWN) -> DeclaredGateway:
    return adapter_for(read_file(_file(folder, text))["own"])(url, "not-a-real-secret")


def _outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the kind of its failure."""
    try:
        return call()
    except GatewayError as error:
        return error.reason


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (_OWN, "types: {", ", line 1: "),
        (_OWN, "[]", "must have keys: types"),
        (_OWN, "types: " + "[" * 100_000, ": its brackets nest too deeply"),
        (_OWN, "a: &a {b: 1}\ntypes: *a", ", line 2: an alias cannot be used here"),
        (_OWN, "types: {}", "types must have a key for each type"),
        (_OWN, "types: {Own: {}}", "Own: a type's name must be small letters"),
        ("    auth:", "    auht:", "own: 'auht' is not known; known: answers, auth"),
        ("    auth: {header: X-Key}\n", "", "own: auth is missing"),
        ("{header: X-Key}", "{}", "own: auth must have one of header, bearer and basic"),
        ("{header: X-Key}", "{header: X Key}", "own: auth: header must be a header's name"),
        ("{header: X-Key}", "{basic: 1}", "own: auth: basic must be true or false, not 1"),
        ("{header: X-Key}", "{basic: false}", "own: auth: basic must be true, not False"),
        ("/send, body", "/send, headers: {X Y: a}, body", "headers must be names of headers with"),
        ("id: name, ", "", "own: list: id is missing"),
        (", status: state", "", "own: list: status is missing, or a call for it beside list"),
        ("items: sessions", "items: 'sess['", "items: 'sess[' is not a JMESPath expression: "),
        ("items: sessions", "items: '[@,@]|[@,@]|[@,@]'", "items: the expression has more than"),
        ("items: sessions", f"items: {'.'.join('a' * 90)}", "items: the expression has more than"),
        ("up: connected", "up: fine", "own: statuses: up must be one of connected"),
        ("up: connected", "up: [x]", "own: statuses: ['x'] is not a text: put quotes"),
        ("up: connected", "on: connected", "own: statuses: True is not a text: put quotes"),
        ("{disconnected: start}", "{}", "own: repair: disconnected is missing"),
        ("{disconnected: start}", "{disconnected: x}", "disconnected: there is no call 'x'"),
        ("{disconnected: start}", "{x: start}", "own: repair: 'x' is not a status"),
        ("repair: {disconnected: start", "repair: {disconnected: lose_pairing", "loses the pair"),
        ("POST /stop/{id}", "POST stop/{id}", "own: calls: start: call must be like GET /dev"),
        ("POST /stop/{id}", "POST /../{id}", "own: calls: start: call must be a path without .."),
        ("POST /stop/{id}", "POST /%2e%2e/{id}", "calls: start: call must be a path without .. "),
        ("POST /stop/{id}", "POST //x/{id}", "own: calls: start: call must be a path without .."),
        ("POST /stop/{id}", "POST /stop/{number}", "{number} is not allowed here; only {id}"),
        ("GET /list", "'GET /list?of={id}'", "list: {id} is not allowed here; only {limit}"),
        ('"{number}"', '"{secret}"', "own: calls: send: {secret} is not allowed here; only"),
        ('["{text}"]', '["{x}"]', "own: calls: send: {x} is not allowed here; only {id}"),
        ("may_fail: true", "may_fail: perhaps", "calls: start: may_fail must be true or false"),
        (", value: qr}", "}", "own: calls: qr: value is missing: where is the code"),
        ("      qr:", "      code: [POST /c]\n      qr:", "own: calls: code: value is missing"),
        ("    auth:", "    number: GET /me/{id}\n    auth:", "own: number: value is missing"),
        ("    auth:", "    status: GET /one/{id}\n    auth:", "own: status: value is missing"),
        ("id: name,", "id: name, secret: token,", "auth: channel_header and list: secret go tog"),
        ("X-Key}", "X-Key, channel_header: X}", "auth: channel_header and list: secret go tog"),
        ("id: name,", "id: name, alias: x,", "own: list: 'alias' is not known; known: activity"),
        ("value: qr", "value: qr, as: x", "own: calls: qr: as must be one of base64, data_url"),
        ('      lose_pairing: ["POST /logout/{id}"]\n', "", "calls: lose_pairing is missing"),
        ("means: ok", "means: well", "answers, rule 4: means must be one of unauthorized"),
        ("{http: 202, means: ok}", "{means: ok}", "answers, rule 4: http or when is missing"),
        ("call: qr, means", "call: x, means", "answers, rule 1: there is no call 'x'"),
        ("{http: 404,", "{http: x,", "answers, rule 2: http must be an HTTP status from 100"),
        ("{http: 404,", "{http: 4040,", "rule 2: http must be an HTTP status from 100 to 599"),
        ("X-Key}", "X-Key", ", line 5: expected ',' or '}', but got ':'; look at brackets"),
        ('to: "{number}"', "to: {number}", 'calls: send: body: {number} needs quotes: "{number}"'),
        ('to: "{number}"', "to: .nan", "calls: send: body must be an object of JSON"),
        ("POST /stop/{id}", "POST /stop/{id", "call must be a path whose { and } are pairs"),
        ("sent == `false`", "sent == false", "compares two fields: a text is in '...', a num"),
        ("sent == `false`", "sent == 0", "is not a JMESPath expression: invalid token"),
        ("    auth:", "    port: -1\n    auth:", "own: port must be a number, 0 or more"),
        ("    auth:", "    events: {}\n    auth:", "own: events: channel is missing"),
        ("    auth:", "    auth: {}\n    auth:", ", line 5: the key 'auth' is there twice"),
        (
            "    auth:",
            "    yes: 1\n    true: 2\n    auth:",
            ", line 5: the key 'true' is there twice",
        ),
        ("    auth:", "    received: {}\n    auth:", "own: received: at is missing"),
        ("    auth:", f"{_LIST.replace('{chat}', 'x')}    auth:", "received: {chat} in a call and"),
        ("    auth:", f"{_LIST.replace('/c', '/{chat}')}    auth:", "{chat} is not allowed here"),
        ("    auth:", f"{_LIST.replace(': 2', ': 0')}    auth:", "page must be a number from 1"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in _OWN
    path = _file(tmp_path, _OWN.replace(old, new, 1))
    with pytest.raises(DeclarationError) as caught:
        read_file(path)
    line = str(caught.value)
    assert line.removeprefix("types_file: ").startswith(str(path))
    assert words in line
    assert line.isprintable()


_ODD: tuple[Any, ...] = (
    *(None, 7, -1.5, True, "", "x: y", dt.date.min),
    *([], [7], [{}], [[]], {}, {7: 7}, {"x": [None]}),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return each mapping and list of a file with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def test_whatever_stands_in_a_file_is_read_or_is_one_line(tmp_path: Path) -> None:
    read = yaml.safe_load(_OWN)
    errors = []
    for place, key in _places(read):
        right = place[key]
        for odd in _ODD:
            place[key] = odd
            try:
                read_file(_file(tmp_path, yaml.safe_dump(read)))
            except DeclarationError as error:
                errors.append(str(error))
        place[key] = right
    assert len(errors) > 400
    assert not [error for error in errors if len(error.splitlines()) != 1]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("starts_with(x, 'a')", {"x": None}),
        ("merge(x, y)", {"x": 1, "y": []}),
        ("floor(to_number(x))", {"x": "1e999"}),
        ("sort_by(@, &x)", [{"x": 1}, {"x": "a"}]),
        ("sum(x)", {"x": ["a"]}),
    ],
)
def test_an_expression_that_does_not_fit_an_answer_finds_nothing(
    tmp_path: Path, expression: str, value: object
) -> None:
    text = _OWN.replace("items: sessions", f'items: "{expression}"')
    declared = read_file(_file(tmp_path, text))["own"]
    assert declared.listing.items.of(value) is None


@pytest.mark.parametrize(
    ("name", "why"), [("nothing.yaml", "No such file"), ("\0", "no such name")]
)
def test_a_file_that_is_not_there_is_said(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(DeclarationError, match=f"cannot be read: {why}"):
        read_file(tmp_path / name)


_GATEWAYS = """
types_file: {file}
gateways:
  - {{name: mine, type: {type}, url: "{url}", secret: not-a-real-secret, messages: {messages}}}
"""


def _settings(folder: Path, text: str = _OWN, **changed: str) -> str:
    names = {"type": "own", "url": "http://127.0.0.1:9", "messages": "none", **changed}
    file = folder / "gateways.yaml"
    file.write_text(_GATEWAYS.format(file=_file(folder, text), **names))
    return str(file)


def test_a_user_watches_a_gateway_by_a_file_of_their_own(tmp_path: Path) -> None:
    listed = {"sessions": [{"name": "loja", "state": "up"}, {"name": "obra", "state": "down"}]}
    with RawServer(answering(listed)) as server:
        file = _settings(tmp_path, url=server.url)
        (gateway,) = parse({"GATEWAYS_FILE": file}).gateways
        client = make_gateway(gateway, observe=lambda *_: None)
        channels = client.list_channels().channels

    assert channels == (_LOJA, Channel("obra", Status.DISCONNECTED))
    assert client.planned_call(channels[1], silent=False) == "POST /stop/{id}, POST /start/{id}"
    assert client.planned_call(channels[0], silent=True) == "nothing"
    unpaired, odd = (Channel("a", one) for one in (Status.QR_REQUIRED, Status.UNKNOWN))
    assert client.planned_call(unpaired, silent=False) == "GET /qr/{id}"
    assert client.planned_call(odd, silent=False).startswith("nothing, unless")
    assert gateway == parse({"GATEWAYS_FILE": file}).gateways[0], "a reload changes nothing"
    posts = replace(gateway, messages=MessageSourceKind.EVENTS, messages_token="not-a-real-token/+")
    with pytest.raises(SettingsError, match="gateway mine: type own describes no events"):
        senders_among([posts])
    _settings(tmp_path, _OWN.replace("/start/", "/begin/"), url=server.url)
    assert gateway != parse({"GATEWAYS_FILE": file}).gateways[0]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (_OWN.replace("auth", "auht"), "own", "own: 'auht' is not known"),
        (_OWN, "other", "gateway mine: type must be one of wrapper, wppconnect"),
        (
            _OWN.replace('["{text}"]', "[not-a-real-secret]"),
            "own",
            "part of a call of the type own",
        ),
        (_OWN.replace("  own:", "  waha:"), "waha", "waha is a type that Zapwatch has"),
    ],
)
def test_a_wrong_types_file_is_one_line_at_the_start(
    tmp_path: Path, text: str, kind: str, words: str
) -> None:
    file = _settings(tmp_path, text, type=kind)
    with pytest.raises(SettingsError, match=words):
        parse({"GATEWAYS_FILE": file})


@pytest.mark.parametrize("auth", ["{bearer: true}", "{basic: true}", "{header: Authorization}"])
def test_a_proxys_user_needs_a_header_that_the_secret_leaves_free(
    tmp_path: Path, auth: str
) -> None:
    proxy = {"WPP_GATEWAY_USER": "proxy", "WPP_GATEWAY_PASSWORD": "not-a-real-password"}
    assert parse({"GATEWAYS_FILE": _settings(tmp_path), **proxy}).gateways[0].user == "proxy"
    file = _settings(tmp_path, _OWN.replace("{header: X-Key}", auth))
    with pytest.raises(SettingsError, match="whose secret needs the same header"):
        parse({"GATEWAYS_FILE": file, **proxy})


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (404, {"error": "no such token"}, GatewayErrorKind.UNAUTHORIZED),
        (200, {"sent": False}, GatewayErrorKind.INVALID),
        (200, {"id": None}, GatewayErrorKind.INVALID),
        (500, {"error": "x"}, GatewayErrorKind.HTTP),
        # It would be a failure without the rule.
        (202, {"success": False, "id": "A1"}, "A1"),
    ],
)
def test_rules_say_what_an_answer_means(
    tmp_path: Path, status: int, body: object, meaning: object
) -> None:
    with RawServer(answering(body, status=status)) as server:
        gateway = _gateway(tmp_path, server.url)
        found = _outcome(lambda: gateway.send_text(_LOJA, "5500000000001", "hello"))
    assert found == meaning


@pytest.mark.parametrize(("status", "found"), [(200, None), (500, GatewayErrorKind.HTTP)])
def test_what_needs_no_answer_may_have_an_empty_one(
    tmp_path: Path, status: int, found: GatewayErrorKind | None
) -> None:
    with RawServer(answering(b"", status=status)) as server:
        assert _outcome(lambda: _gateway(tmp_path, server.url).delete("loja")) is found


def test_one_that_needs_nobody_is_left_alone_and_a_zombie_without_a_call_is_told(
    tmp_path: Path,
) -> None:
    with RawServer(answering({"sessions": [{"name": "loja", "state": "up"}]})) as server:
        gateway = _gateway(tmp_path, server.url)
        assert gateway.reconnect(_LOJA, silent=False).kind is QrKind.ACCEPTED
        with pytest.raises(GatewayError, match="own has no call for a channel that is silent"):
            gateway.reconnect(_LOJA, silent=True)


@pytest.mark.parametrize("at", ["2026-02-02", "soon", "2026-02-02T02:40:00", "9" * 5000, None, [1]])
def test_a_time_that_cannot_be_read_gives_way_to_the_arrivals(at: object) -> None:
    event = APIS["gowa"].event(SimulatedMessage("loja", outgoing=False, at=_NOW))
    event["payload"]["timestamp"] = at
    body = json.dumps(event).encode()
    assert [one.at for one in parse_event(ADAPTERS["gowa"].read_event, body, _NOW)] == [_NOW]


_BY_CALL = """
types:
  own:
    auth: {bearer: true}
    list: {call: GET /names, items: result, id: "@"}
    status: {call: "GET /status/{id}", value: state || message}
    statuses: {CONNECTED: connected, gone: disconnected, code: qr_required}
    repair: {disconnected: start}
    calls:
      start: ["POST /start/{id}"]
      create: ["POST /create/{id}"]
      qr: [{call: "GET /qr/{id}", value: qr, as: data_url}]
      send: [POST /send]
      lose_pairing: ["POST /logout/{id}"]
    answers:
      - {call: status, when: "success == `false`", means: ok}
      - {http: 429, means: limit}
      - {http: 425, call: qr, means: starting}
"""


class Server(RawServer):
    """Answers each path as it is told, else with 500, and notes what was asked."""

    def __init__(self, answers: Mapping[str, tuple[int, object]]) -> None:
        self.asked: list[str] = []
        self.tokens: set[str] = set()

        def talk(conversation: Conversation) -> None:
            head = conversation.read_request().decode()
            method, path, _ = head.split(" ", 2)
            self.asked.append(f"{method} {path}")
            self.tokens |= set(re.findall(r"^Authorization: (.*)\r$", head, re.MULTILINE))
            status, body = answers.get(path, (500, {"error": "not this one"}))
            raw = json.dumps(body).encode()
            start = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            conversation.send(f"{start}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)

        super().__init__(talk)


_NAMES: tuple[int, object] = (200, {"result": ["up", "down", "odd", 7, "São/1"]})


def test_a_status_may_be_a_call_for_each_channel(tmp_path: Path) -> None:
    answers = {
        "/names": _NAMES,
        "/status/up": (200, {"success": True, "state": "CONNECTED"}),
        # An answer that says no is a status here, and no failure.
        "/status/down": (200, {"success": False, "message": "gone"}),
        "/status/S%C3%A3o%2F1": (200, {"success": True, "state": "something new"}),
    }
    text = _BY_CALL.replace("{disconnected: start}", "{disconnected: start, gone: create}")
    with Server(answers) as server:
        gateway = _gateway(tmp_path, server.url, text)
        listed = gateway.list_channels()

    down = Channel("down", Status.DISCONNECTED)
    assert gateway.planned_call(down, silent=False) == "POST /create/{id}"
    assert {channel.id: channel.status for channel in listed.channels} == {
        "up": Status.CONNECTED,
        "down": Status.DISCONNECTED,
        "odd": Status.UNKNOWN,
        "São/1": Status.UNKNOWN,
    }
    assert sum(listed.left_out.values()) == 1
    assert server.tokens == {"Bearer not-a-real-secret"}


def test_where_no_channel_tells_its_status_the_gateway_fails(tmp_path: Path) -> None:
    with (
        Server({"/names": _NAMES}) as server,
        pytest.raises(GatewayError, match="not this one") as caught,
    ):
        _gateway(tmp_path, server.url, _BY_CALL).list_channels()
    assert caught.value.reason is GatewayErrorKind.HTTP


def test_a_session_is_created_by_a_call_of_its_own_where_there_is_one(tmp_path: Path) -> None:
    with Server({"/create/loja": (201, {})}) as server:
        _gateway(tmp_path, server.url, _BY_CALL).create("loja")
    assert server.asked == ["POST /create/loja"]


@pytest.mark.parametrize(
    ("text", "answer", "kind"),
    [
        (_OWN, (409, {"error": "paired"}), QrKind.ACCEPTED),
        (_OWN, (200, {"qr": "iVBORw0KGgo"}), QrKind.QR),
        (_OWN, (200, {"qr": ""}), GatewayErrorKind.INVALID),
        (_BY_CALL, (200, {"qr": "data:image/png;base64,iVBORw0KGgo"}), QrKind.QR),
        (_BY_CALL, (425, {"error": "soon"}), QrKind.INITIALIZING),
        (_BY_CALL, (429, {"error": "slower"}), GatewayErrorKind.LIMIT),
        (_BY_CALL, (200, {"qr": 7}), GatewayErrorKind.INVALID),
        (_BY_CALL, (200, {"qr": "http://127.0.0.1/qr.png"}), GatewayErrorKind.INVALID),
        (_BY_CALL, (200, {}), GatewayErrorKind.INVALID),
    ],
)
def test_a_call_for_a_code_is_answered_in_one_of_several_ways(
    tmp_path: Path, text: str, answer: tuple[int, object], kind: QrKind | GatewayErrorKind
) -> None:
    state = (200, {"success": True, "state": "code"})
    listed = (200, {"sessions": [{"name": "loja", "state": "code"}]})
    with Server({"/status/loja": state, "/list": listed, "/qr/loja": answer}) as server:
        gateway = _gateway(tmp_path, server.url, text)
        assert _outcome(lambda: gateway.qr("loja").kind) is kind


@pytest.mark.parametrize("lists_qr", [True, False])
def test_a_step_that_may_fail_does_not_end_a_repair(tmp_path: Path, lists_qr: bool) -> None:
    text = _OWN if lists_qr else _OWN.replace("code: qr_required, ", "")
    listed = (200, {"sessions": [{"name": "loja", "state": "down"}]})
    with Server({"/list": listed, "/start/loja": (200, {})}) as server:
        down = Channel("loja", Status.DISCONNECTED)
        answer = _gateway(tmp_path, server.url, text).reconnect(down, silent=False)
    assert answer.kind is QrKind.INITIALIZING
    assert server.asked == ["GET /list", "POST /stop/loja", "POST /start/loja"]


def _message(number: int, **more: object) -> dict[str, object]:
    return {"id": f"A{number}", "at": _NOW + number, "own": False, "chat": "5511@c.us"} | more


_CHATS = {"chats": [{"id": "5511@c.us", "at": _NOW + 9}, {"id": "5522@c.us", "at": _NOW - 9}]}
_FEW = [_message(number) for number in range(3)]
_MANY = [*_FEW, _message(-1)]


@pytest.mark.parametrize(
    ("chats", "pages", "ids", "words"),
    [
        (_CHATS, {2: _FEW[:1]}, {"A0"}, ""),
        (_CHATS, {2: _FEW[1:], 8: _MANY}, {"A0", "A1", "A2"}, ""),
        ({"chats": [{"id": "5522@c.us", "at": _NOW - 9}]}, {}, set(), ""),
        ({"chats": []}, {}, set(), "lists no message of this channel"),
        ({"chats": [{"id": "5511@c.us"}]}, {}, set(), "lists no message of this channel"),
        (_CHATS, {2: [_message(1, own=None)]}, set(), "without an id or a direction"),
        (_CHATS, {2: [_message(1, id="#")]}, set(), "without an id or a direction"),
        (_CHATS, {2: [_FEW[0], _message(1, id="#")], 8: _FEW}, {"A0", "A1", "A2"}, "without an id"),
        (_CHATS, {2: [_message(1, at=None)]}, set(), "without their time"),
        (_CHATS, {2: _FEW[1:], 8: _FEW[1:]}, {"A1", "A2"}, "2 messages of a chat are listed"),
        (_CHATS, {2: {}}, None, "JSON without a list at @"),
        ({}, {}, None, "JSON without a list at chats"),
    ],
)
def test_messages_are_listed_or_it_is_said_why_not(
    tmp_path: Path, chats: object, pages: dict[int, object], ids: set[str] | None, words: str
) -> None:
    answers = {f"/m/5511%40c.us?n={limit}": (200, page) for limit, page in pages.items()}
    with Server({"/c": (200, chats)} | answers) as server:
        text = _OWN.replace("    answers:", f"{_LIST}    answers:")
        gateway = _gateway(tmp_path, server.url, text)
        if ids is None:
            with pytest.raises(GatewayError, match=words):
                gateway.received(_LOJA, Wanted(_NOW, _NOW + 99))
            return
        received = gateway.received(_LOJA, Wanted(_NOW, _NOW + 99))
    assert {one.id for one in received.messages} == ids
    assert words in received.cannot_know
    assert bool(words) == bool(received.cannot_know)
    assert len(server.asked) == 1 + len(pages)


def test_a_list_of_chats_without_an_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "_MOST_PAGES", 3)
    text = _OWN.replace("    answers:", f"{_LIST.replace('/c', '/c?from={offset}')}    answers:")
    pages = {
        f"/c?from={100 * n}": (200, {"chats": [{"id": f"{n}@c.us", "at": _NOW}]}) for n in range(9)
    }
    with Server(pages) as server, pytest.raises(GatewayError, match="list has no end"):
        _gateway(tmp_path, server.url, text).received(_LOJA, Wanted(_NOW, _NOW + 99))
    assert len(server.asked) == 4
