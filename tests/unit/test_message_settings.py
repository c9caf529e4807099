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
from zapwatch.config import MessageSourceKind, SettingsError, parse, read_secrets
from zapwatch.gateways.wrapper import WrapperGateway

_GATEWAY = {
    "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
    "WPP_GATEWAY_SECRET": "not-a-real-secret",
}
_TOKEN = "not-a-real-token"


@pytest.mark.parametrize("source", ["events", "activity", "none"])
def test_another_source_needs_no_database(source: str) -> None:
    [gateway] = parse({**_GATEWAY, "MESSAGE_SOURCE": f" {source.upper()} "}).gateways
    assert gateway.messages is MessageSourceKind(source)
    assert gateway.message_log_url is None


def test_a_log_that_is_none_is_no_source() -> None:
    [gateway] = parse({**_GATEWAY, "MESSAGE_LOG_URL": "none"}).gateways
    assert gateway.messages is MessageSourceKind.NONE


def test_a_source_that_nobody_knows_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        parse({**_GATEWAY, "MESSAGE_SOURCE": "webhook"})
    assert str(caught.value) == (
        "MESSAGE_SOURCE must be one of log, events, activity, none, not 'webhook'"
    )


@pytest.mark.parametrize("source", ["log", "events"])
def test_messages_that_are_counted_teach(source: str) -> None:
    log = {"MESSAGE_LOG_URL": "sqlite:///log", "SILENCE_MODE": "adaptive"}
    [gateway] = parse({**_GATEWAY, **log, "MESSAGE_SOURCE": source}).gateways
    assert gateway.silence_mode == "adaptive"


@pytest.mark.parametrize("source", ["activity", "none"])
def test_nothing_can_be_learned_of_messages_that_are_not_counted(source: str) -> None:
    with pytest.raises(SettingsError, match=f"cannot learn from the message source {source}"):
        parse({**_GATEWAY, "SILENCE_MODE": "adaptive", "MESSAGE_SOURCE": source})


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


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(SettingsError, match="MESSAGES_TOKEN holds characters"):
        parse({**_GATEWAY, "MESSAGE_SOURCE": "none", "MESSAGES_TOKEN": "não"})


def test_the_token_may_be_in_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("secrets") / "token"
    file.write_text(f"{_TOKEN}\n")
    values = read_secrets(
        {**_GATEWAY, "MESSAGE_SOURCE": "events", "MESSAGES_TOKEN_FILE": str(file)}
    )
    assert parse(values).gateways[0].messages_token == _TOKEN


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
