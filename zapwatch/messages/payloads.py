"""Formats common to posted events and rows of ``webhook_raw_logs``: echo tokens, messages.

A token is part of an echo, a message between two of the operator's channels, and identifies the
receiver. So a row of the log shows by itself, for any type of event, whether it is an echo that its
channel has received or the sender's copy.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zapwatch.channels import folded

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
    return hashlib.sha256(folded(channel).encode(errors="surrogatepass")).hexdigest()[:8]


CIPHERTEXT = "ciphertext"
"""WhatsApp Web's ``type`` of a message that is not decrypted, or not yet."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """Message of a gateway's event before validation; ``at`` and ``ack`` are in its own format.

    ``heard`` is as in event_parser.py, before ``ack`` is considered.
    """

    channel: object
    at: object
    id: object
    out: bool = False
    heard: bool = True
    ack: object = None
    readable: bool = True
    entry: object = field(default=None, repr=False)
    """The message itself, if the event has several."""


def is_stub(message: Mapping[str, Any]) -> bool:
    """Whether this is Baileys' placeholder for a message that it could not decrypt."""
    return message.get("messageStubType") in (2, "CIPHERTEXT")


def is_from_me(message: Mapping[str, Any], *, default: bool = False) -> bool:
    """Return the direction in ``fromMe``, or the default if it is not a boolean."""
    value = message.get("fromMe")
    return value if isinstance(value, bool) else default


def message_id(value: object) -> str | None:
    """Return a message's id; WPPConnect's may be an object."""
    if isinstance(value, dict):
        value = value.get("_serialized")
    return value if isinstance(value, str) and value else None
