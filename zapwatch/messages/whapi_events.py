"""What Whapi posts of messages, to the exporter or into ``webhook_raw_logs``: several in one body.

``{"channel_id", "event": {"type": "messages", "event": "post"}, "messages": [{"id", "from_me",
"source", "timestamp"}]}``; the log's ``event_type`` is ``whapi_messages_post``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVENT_TYPE = "whapi_messages_post"
"""The ``event_type`` of the log's rows that hold messages."""

CHANNEL_PATH = "$.channel_id"
"""Where the only name of the channel is."""


@dataclass(frozen=True, slots=True)
class WhapiMessage:
    """One message; ``at`` and ``id`` are as they stand there, ``heard`` as in event_parser."""

    out: bool
    heard: bool
    at: object
    id: object
    entry: object = field(repr=False)


def is_message_event(event: Mapping[str, Any]) -> bool:
    """Whether an event tells of new messages."""
    about = event.get("event")
    return isinstance(about, dict) and (about.get("type"), about.get("event")) == (
        "messages",
        "post",
    )


def messages_of(event: Mapping[str, Any]) -> list[WhapiMessage]:
    """Return the messages of an event.

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
