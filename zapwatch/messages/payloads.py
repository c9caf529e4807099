"""What is read alike in a posted event and in a row of ``webhook_raw_logs``: tokens, Whapi's lists.

The token is in a message that one of the operator's channels writes to another, to hear it there.
It tells whose ears the message is for. So a row of the log shows by itself whether it is an echo
that its channel has received, or only the sender's own note of it, in whatever event that came.

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
"""What all tokens begin with: nothing in it that JSON, HTML or a chat would write differently."""

TOKEN_LENGTH = len(MARK) + 8 + 1 + 16
"""Characters."""

MOST_BYTES = 65536
"""That the payload of an echo has at most: it is short, and others may hold 16 MB of media."""

_TOKEN = re.compile(rf"{MARK}([0-9a-f]{{8}})-[0-9a-f]{{16}}")
_TOKEN_IN_BYTES = re.compile(_TOKEN.pattern.encode())


def make_token(receiver: str) -> str:
    """Return a new token for an echo that the channel ``receiver`` (an id or a key) is to hear."""
    return f"{MARK}{_short(receiver)}-{secrets.token_hex(8)}"


def is_token(text: str) -> bool:
    """Whether a text is a token, and not only begins like one."""
    return _TOKEN.fullmatch(text) is not None


def find_token(payload: bytes) -> str | None:
    """Return the first token in what a gateway tells of a message, None where there is none."""
    if len(payload) > MOST_BYTES:
        return None
    found = _TOKEN_IN_BYTES.search(payload)
    return found[0].decode() if found else None


def is_for(token: str, key: str) -> bool:
    """Whether an echo with this token was meant for the ears of the channel ``key``."""
    found = _TOKEN.fullmatch(token)
    return found is not None and found[1] == _short(key)


def _short(channel: str) -> str:
    # No channel's name in a chat: whoever reads it there needs not know what channels there are.
    return hashlib.sha256(channel_key(channel).encode()).hexdigest()[:8]


WHAPI_EVENT_TYPE = "whapi_messages_post"
"""The ``event_type`` of the log's rows that hold messages of Whapi."""

WHAPI_CHANNEL_PATH = "$.channel_id"
"""Where the only name of the channel is in them."""


@dataclass(frozen=True, slots=True)
class WhapiMessage:
    """A message of Whapi; ``at`` and ``id`` as they stand there, ``heard`` as in event_parser."""

    out: bool
    heard: bool
    at: object
    id: object
    entry: object = field(repr=False)


def is_whapi_event(event: Mapping[str, Any]) -> bool:
    """Whether an event of Whapi tells of new messages."""
    about = event.get("event")
    return isinstance(about, dict) and (about.get("type"), about.get("event")) == (
        "messages",
        "post",
    )


def whapi_messages(event: Mapping[str, Any]) -> list[WhapiMessage]:
    """Return the messages of an event of Whapi.

    One that Whapi's own API has sent is only its note of that call, and was not heard.
    """
    entries = event.get("messages")
    return [
        WhapiMessage(
            # Some databases write a boolean as a number.
            out=(out := one.get("from_me") in (True, 1)),
            heard=not (out and one.get("source") == "api"),
            at=one.get("timestamp"),
            id=one.get("id"),
            entry=one,
        )
        for one in (entries if isinstance(entries, list) else [])
        if isinstance(one, dict)
    ]
