"""The settings that say from where it is known when channels had messages."""

from __future__ import annotations

import pytest

from exporter.event_buffer import senders_among
from exporter.event_receiver import Sender
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
