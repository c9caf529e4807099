"""Formats common to posted events and rows of ``webhook_raw_logs``: echo tokens, Whapi's lists.

A token is part of an echo, a message between two of the operator's channels, and identifies the
receiver. So a row of the log shows by itself, for any type of event, whether it is an echo that its
channel has received or the sender's copy.

Whapi posts several messages in one body: ``{"channel_id", "event": {"type": "messages", "event":
"post"}, "messages": [{"id", "from_me", "source", "timestamp"}]}``; the log's ``event_type`` is
``whapi_messages_post``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zapwatch.channels import channel_key

MARK = "zapwatch-echo-"
"""Prefix of all tokens, without characters that JSON, HTML or a chat would change."""

TOKEN_LENGTH = len(MARK) + 8 + 1 + 16
"""Characters."""

MOST_BYTES = 65536
"""Limit of an echo's payload; larger payloads, which may have 16 MB of media, are not searched."""

_TOKEN = re.compile(rf"{MARK}([0-9a-f]{{8}})-[0-9a-f]{{16}}")
_TOKEN_IN_BYTES = re.compile(_TOKEN.pattern.encode())


def make_token(receiver: str) -> str:
    """Return a new token for an echo to the channel ``receiver`` (an id or a key)."""
    return f"{MARK}{_short(receiver)}-{secrets.token_hex(8)}"


def is_token(text: str) -> bool:
    """Whether the whole text is a token."""
    return _TOKEN.fullmatch(text) is not None


def find_token(payload: bytes) -> str | None:
    """Return the first token in a payload, None without one."""
    if len(payload) > MOST_BYTES:
        return None
    found = _TOKEN_IN_BYTES.search(payload)
    return found[0].decode() if found else None


def is_for(token: str, key: str) -> bool:
    """Whether the receiver of an echo with this token is the channel ``key``."""
    found = _TOKEN.fullmatch(token)
    return found is not None and found[1] == _short(key)


def _short(channel: str) -> str:
    # A hash, since readers of the chat need not know the channels' names.
    return hashlib.sha256(channel_key(channel).encode()).hexdigest()[:8]


WHAPI_EVENT_TYPE = "whapi_messages_post"
"""``event_type`` of the log's rows with messages of Whapi."""

WHAPI_CHANNEL_PATH = "$.channel_id"
"""Path of the channel's name in their payloads."""


@dataclass(frozen=True, slots=True)
class WhapiMessage:
    """Message of Whapi; ``at`` and ``id`` are unparsed, ``heard`` is as in event_parser.py."""

    out: bool
    heard: bool
    at: object
    id: object
    entry: object = field(repr=False)


def is_whapi_event(event: Mapping[str, Any]) -> bool:
    """Whether an event of Whapi reports new messages."""
    about = event.get("event")
    return isinstance(about, dict) and (about.get("type"), about.get("event")) == (
        "messages",
        "post",
    )


def whapi_messages(event: Mapping[str, Any]) -> list[WhapiMessage]:
    """Return the messages of an event of Whapi.

    Messages sent by Whapi's own API are not heard: they only record that call. Nor are own
    messages that WhatsApp has not taken.
    """
    entries = event.get("messages")
    return [
        WhapiMessage(
            # Some databases return a boolean as a number.
            out=(out := one.get("from_me") in (True, 1)),
            heard=not (
                out and (one.get("source") == "api" or one.get("status") in ("pending", "failed"))
            ),
            at=one.get("timestamp"),
            id=one.get("id"),
            entry=one,
        )
        for one in (entries if isinstance(entries, list) else [])
        if isinstance(one, dict)
    ]
