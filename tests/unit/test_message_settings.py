"""The settings that say from where it is known when channels had messages."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import Client

from exporter.__main__ import main
from exporter.app import EventResult, Sender
from exporter.event_buffer import Inbox, Post, senders_among
from zapwatch.config import SettingsError, parse
from zapwatch.gateways.wrapper import WrapperGateway

_GATEWAY = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "not-a-real-secret",
}
_TOKEN = "not-a-real-token"


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
