"""``POST /messages/<gateway>``: who may post, what is taken, and what is answered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from exporter.__main__ import main
from exporter.app import EventResult, Receiver, Sender
from exporter.event_buffer import Inbox, Post, senders_among
from zapwatch.config import SettingsError, parse
from zapwatch.front import MAX_REQUEST_BYTES
from zapwatch.gateways.registry import ADAPTERS
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.messages.message import Message

_TOKEN = "not-a-real-token/+?&"
_BEARER = {"Authorization": f"Bearer {_TOKEN}"}
_MESSAGE = {"event": "onmessage", "session": "Loja 1"}
_WAHA = {"event": "message", "session": "Loja 1", "payload": {}}
_BODY = json.dumps(_WAHA).encode()


class World:
    """A receiver with two gateways, what it has taken, and what it has counted."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []
        self.counted: list[tuple[str, str]] = []
        self.unlisted: set[str] = set()
        behind = Flask("behind")
        behind.add_url_rule("/metrics", view_func=lambda: "behind")
        senders = {
            "wpp": Sender(ADAPTERS["wppconnect"], _TOKEN),
            "ação/2": Sender(ADAPTERS["evolution"], _TOKEN),
            "waha": Sender(ADAPTERS["waha"], _TOKEN),
            "whapi": Sender(ADAPTERS["whapi"], _TOKEN),
            "wrapper": Sender(ADAPTERS["wrapper"], _TOKEN),
        }
        self.hurried: list[str] = []
        self.client = Client(
            Receiver(behind, senders, self._take, self._count, self.hurried.append)
        )

    def _take(self, gateway: str, message: Message) -> bool:
        self.taken.append((gateway, message.key))
        return message.key in self.unlisted

    def _count(self, gateway: str, result: str) -> None:
        self.counted.append((gateway, result))

    def post(self, path: str, event: object = _MESSAGE, **headers: str) -> TestResponse:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=body, headers=named)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("event", "status", "result"),
    [
        (_MESSAGE, 202, "message"),
        ({**_MESSAGE, "type": "ciphertext"}, 204, "undecryptable"),
        ({"event": "onpresencechanged", "session": "a"}, 204, "other"),
    ],
)
def test_an_event_is_taken_where_it_is_a_message(
    world: World, event: object, status: int, result: str
) -> None:
    answer = world.post("/messages/wpp", event, **_BEARER)
    assert (answer.status_code, answer.data) == (status, b"")
    assert world.taken == [("wpp", "Loja 1")] * (result != "other")
    assert world.counted == [("wpp", result)]


@pytest.mark.parametrize(
    ("gateway", "event", "hurried"),
    [
        ("wpp", {"event": "status-find", "status": "notLogged"}, True),
        ("wpp", {"event": "onpresencechanged"}, False),
        ("waha", {"event": "session.status", "payload": {"status": "FAILED"}}, True),
        ("waha", {"event": "message", "session": "a", "payload": {}}, False),
        ("ação/2", {"event": "connection.update", "data": {"state": "close"}}, True),
        ("ação/2", {"event": "presence.update"}, False),
        ("whapi", {"event": {"type": "channel", "event": "post"}}, True),
        ("whapi", {"event": {"type": "channel", "event": "patch"}, "qr": {}}, True),
        ("whapi", {"event": {"type": "users", "event": "post"}}, True),
        ("whapi", {"event": {"type": "users", "event": "delete"}}, True),
        ("whapi", {"event": {"type": "statuses", "event": "post"}}, False),
        ("whapi", {"event": {"type": "chats", "event": "post"}}, False),
        # Its connection.update is presence under another name.
        ("wrapper", {"event": "connection.update"}, False),
    ],
)
def test_what_a_session_says_of_its_state_makes_the_list_be_asked(
    world: World, gateway: str, event: dict[str, object], hurried: bool
) -> None:
    world.post(f"/messages/{gateway}", event, **_BEARER)
    assert world.hurried == [gateway] * hurried
    world.post(f"/messages/{gateway}", {"event": "status-find"}, Authorization="Bearer wrong")
    assert world.hurried == [gateway] * hurried, "nobody else can have it asked for"


def test_a_channel_that_is_not_listed_is_said_and_is_no_message(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.unlisted = {"Loja 1"}
    for _ in range(2):
        answer = world.post("/messages/wpp", **_BEARER)
        assert answer.status_code == 202
        assert "lists no channel of this name" in answer.text
    assert world.taken == [("wpp", "Loja 1")] * 2, "the list may be late"
    assert world.counted == [("wpp", "unlisted")] * 2
    [line] = caplog.messages
    assert line.startswith("events of gateway wpp name a channel that it does not list: 'Loja 1'")


_READABLE = {"key": {"id": "A"}}
_STUB = {"key": {"id": "B"}, "messageStubType": 2}


@pytest.mark.parametrize(
    ("messages", "unlisted", "status", "result"),
    [
        ([_STUB, _READABLE], set(), 202, "message"),
        ([_STUB, _STUB], set(), 204, "undecryptable"),
        ([_STUB, _READABLE], {"Loja 1"}, 202, "unlisted"),
    ],
)
def test_each_message_of_an_event_is_taken_and_the_event_is_counted_once(
    world: World, messages: list[object], unlisted: set[str], status: int, result: str
) -> None:
    world.unlisted = unlisted
    event = {"event": "messages.upsert", "instance": "Loja 1", "data": messages}
    answer = world.post("/messages/ação/2", event, **_BEARER)
    assert answer.status_code == status
    assert world.taken == [("ação/2", "Loja 1")] * 2
    assert world.counted == [("ação/2", result)]


def test_evolution_may_add_the_events_name_to_the_path(world: World) -> None:
    event = {"event": "messages.upsert", "instance": "Loja 1", "data": {}}
    for path in ("/messages/ação/2", "/messages/ação/2/messages-upsert"):
        assert world.post(path, event, **_BEARER).status_code == 202
    assert world.taken == [("ação/2", "Loja 1")] * 2


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"zapwatch:{password}".encode()).decode()


def signed(body: bytes, key: str = _TOKEN) -> str:
    return hmac.new(key.encode(), body, hashlib.sha512).hexdigest()


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Authorization": f"bearer  {_TOKEN} "}),
        ("", {"Authorization": basic(_TOKEN)}),
        ("?token=not-a-real-token/%2B%3F%26", {}),
        ("?a=1&token=not-a-real-token%2F%2B%3F%26", {}),
        # Evolution's "webhook by events" puts the event's name behind whatever the URL is.
        ("?token=not-a-real-token/%2B%3F%26/messages-upsert", {}),
        ("", {"X_Webhook_Hmac": signed(_BODY)}),
        ("", {"X_Webhook_Hmac": signed(_BODY).upper(), "X_Webhook_Hmac_Algorithm": "sha512"}),
    ],
)
def test_whoever_knows_the_token_may_post(
    world: World, query: str, headers: dict[str, str]
) -> None:
    assert world.post(f"/messages/waha{query}", _WAHA, **headers).status_code == 202


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("", {"Authorization": ""}),
        ("", {"Authorization": "Bearer"}),
        ("", {"Authorization": f"Bearer {_TOKEN}x"}),
        ("", {"Authorization": f"Token {_TOKEN}"}),
        ("", {"Authorization": basic("")}),
        ("", {"Authorization": "Basic é"}),
        ("", {"Authorization": "Basic " + base64.b64encode(_TOKEN.encode()).decode()}),
        ("?token=", {}),
        ("?token", {}),
        ("?token=/messages-upsert", {}),
        ("?token=another/messages-upsert", {}),
        ("?Token=not-a-real-token/%2B%3F%26", {}),
        ("?" + "&" * 5000, {}),
        # Whoever signs must sign rightly, whatever else there is.
        ("", {**_BEARER, "X_Webhook_Hmac": signed(b"another body")}),
        ("", {"X_Webhook_Hmac": signed(_BODY, "another key")}),
        ("", {"X_Webhook_Hmac": "é"}),
        ("", {"X_Webhook_Hmac": signed(_BODY), "X_Webhook_Hmac_Algorithm": "sha1"}),
    ],
)
def test_whoever_does_not_may_not(world: World, query: str, headers: dict[str, str]) -> None:
    answer = world.post(f"/messages/waha{query}", _WAHA, **headers)
    assert answer.status_code == 401
    # The three ways, for whoever sets up the webhook; an older WAHA knows only the last of them.
    for way in ("MESSAGES_TOKEN", "Authorization: Bearer", "HMAC", "?token="):
        assert way in answer.text
    assert world.taken == []
    assert world.counted == [("waha", "unauthorized")]


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("", {"Authorization": "Bearer wrong"}),
        ("", {"X_Webhook_Hmac": "wrong"}),
        ("?%74oken=wrong", {}),
    ],
)
def test_wrong_tokens_are_limited_and_the_right_one_is_not(
    world: World, query: str, wrong: dict[str, str]
) -> None:
    # A request without a token is no guess, and is not counted.
    assert {world.post("/messages/waha", _WAHA).status_code for _ in range(6)} == {401}
    for status in [401] * 5 + [429] * 2:
        answer = world.post(f"/messages/waha{query}", _WAHA, **wrong)
        assert answer.status_code == status
        assert "MESSAGES_TOKEN" in answer.text
        # The address may be a proxy's, so a right token resets nothing.
        assert world.post("/messages/waha", _WAHA, **_BEARER).status_code == 202
    assert answer.headers["Retry-After"] == "60"
    assert world.counted.count(("waha", "unauthorized")) == 13


def test_the_log_tells_once_and_never_the_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        world.post("/messages/wpp?token=a-secret-of-somebody-else")
        world.post("/messages/wpp", b"{", **_BEARER)
        world.post("/messages/wpp?token=not-a-real-token/%2B%3F%26")
    assert [one.split(":")[0] for one in caplog.messages] == [
        "an event of gateway wpp was refused"
    ] * 2
    assert "secret-of" not in caplog.text
    assert "not-a-real" not in caplog.text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "this is not JSON"),
        (b"", "this is not JSON"),
        (b"[]", "an object was expected"),
        (b'{"event": "onmessage"}', "names no channel"),
    ],
)
def test_what_is_no_event_is_refused(world: World, body: bytes, why: str) -> None:
    answer = world.post("/messages/wpp", body, **_BEARER)
    assert answer.status_code == 400
    assert why in answer.text
    assert world.counted == [("wpp", "invalid")]


def test_what_is_too_large_is_refused_unread(world: World) -> None:
    class Unreadable:
        def read(self, _size: int) -> bytes:
            raise AssertionError

    environ: dict[str, Any] = {
        "wsgi.input": Unreadable(),
        "CONTENT_LENGTH": str(MAX_REQUEST_BYTES + 1),
    }
    stranger = world.client.post("/messages/wpp", environ_overrides=environ)
    assert stranger.status_code == 401
    sender = world.client.post("/messages/wpp", environ_overrides=environ, headers=_BEARER)
    assert sender.status_code == 413
    assert world.counted == [("wpp", "unauthorized"), ("wpp", "too_large")]


def test_media_of_megabytes_is_taken(world: World) -> None:
    media = {**_MESSAGE, "body": "A" * (MAX_REQUEST_BYTES - 1000)}
    assert world.post("/messages/wpp", media, **_BEARER).status_code == 202


@pytest.mark.parametrize("path", ["/messages/", "/messages/none", "/messages/a/wpp", "/messages//"])
def test_no_other_gateway_has_a_place(world: World, path: str) -> None:
    answer = world.post(path, **_BEARER)
    assert answer.status_code == 404
    assert world.counted == []


def test_events_are_only_posted(world: World) -> None:
    answer = world.client.get("/messages/wpp", headers=_BEARER)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_everything_else_goes_to_the_pages_behind(world: World) -> None:
    assert world.client.get("/metrics").text == "behind"
    assert world.client.get("/messages").status_code == 404


_GATEWAY = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "not-a-real-secret",
}


def test_the_token_is_a_secret_that_an_exporter_needs_for_events() -> None:
    for token, why in (
        ("", "is not set: choose a long random text"),
        ("fifteen-letters", "of gateway wpp can be guessed"),
        ("abc" * 20, "of gateway wpp can be guessed"),
    ):
        weak = parse({**_GATEWAY, "MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": token})
        with pytest.raises(SettingsError, match=f"^MESSAGES_TOKEN {why}"):
            senders_among(weak.gateways)
    with_token = parse({**_GATEWAY, "MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": _TOKEN})
    assert senders_among(with_token.gateways) == {"wpp": Sender(WrapperGateway, _TOKEN)}
    assert _TOKEN not in repr(with_token)
    assert "messages.sqlite3" not in repr(with_token)


def test_what_is_delivered_again_is_trusted_as_the_gateways_own_events_are(world: World) -> None:
    for gateway, kind, event in (("wpp", "wppconnect", _MESSAGE), ("waha", "waha", _WAHA)):
        headers = ADAPTERS[kind].event_headers(_TOKEN, json.dumps(event).encode())
        assert world.post(f"/messages/{gateway}", event, **headers).status_code == 202
        other = ADAPTERS[kind].event_headers("another-token", json.dumps(event).encode())
        assert world.post(f"/messages/{gateway}", event, **other).status_code == 401


def test_events_are_counted_of_a_gateway_that_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inbox, "start", lambda _: None)
    settings = parse({**_GATEWAY, "MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": _TOKEN})
    post = Post(settings)
    client = Client(post.receiver(Flask("pages"), lambda _: None))

    def counted() -> dict[str, float]:
        [family] = post.events.collect()
        return {one.labels["result"]: one.value for one in family.samples}

    assert counted() == {}
    post.follow(settings.gateways)
    assert client.post("/messages/wpp").status_code == 401
    assert client.post("/messages/wpp", query_string={"token": _TOKEN}).status_code == 400
    post.follow(settings.gateways)
    none: dict[str, float] = dict.fromkeys(EventResult, 0)
    assert counted() == {**none, "unauthorized": 1, "invalid": 1}
    post.follow([])
    assert counted() == {}


def test_a_check_of_the_settings_writes_no_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the store would show a receiver that does not run."""
    monkeypatch.chdir(tmp_path)
    values = {**_GATEWAY, "MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": _TOKEN}
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    before = set(threading.enumerate())
    assert main(["--env-file", str(file), "--config.check"]) == 0
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()
