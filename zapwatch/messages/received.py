"""Messages that a gateway has received: ids and times, without texts and numbers.

Systems identify a message by its bare id: WhatsApp's own, without the chat, whose name differs
between them (``@lid`` or ``@c.us``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zapwatch.clock import unix_seconds

MOST_MESSAGES = 50_000
"""Limit of messages per channel and read."""
_MOST_PAGES = 1000

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KIND = re.compile(r"[A-Za-z_]{1,20}")
_SERIALIZED = ("true_", "false_")


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """Received message; ``at`` is in Unix seconds.

    ``chat`` is at most the last four digits.
    """

    id: str
    at: float
    kind: str
    chat: str


@dataclass(frozen=True, slots=True)
class Received:
    """Messages of one channel in a period, without duplicates."""

    messages: tuple[ReceivedMessage, ...] = ()
    cannot_know: str = ""
    """Reason why messages may be missing, in words; empty if the list is complete."""
    events: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """Requested events by id. They contain texts and numbers, so keep them in memory only."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages that arrived at a consumer, by its own channel keys."""

    ids: Mapping[str, Collection[str]]
    """Requested ids that arrived."""
    heard: Collection[str] = frozenset()
    """Channels with any message in that period."""
    gaps: Collection[tuple[float, float]] = ()
    """Periods without knowledge, in Unix seconds."""


def bare_id(message_id: object) -> str | None:
    """Return WhatsApp's id from ``false_<chat>_<ID>_<participant>`` or from the bare ID.

    None for anything else.
    """
    if not isinstance(message_id, str):
        return None
    if message_id.startswith(_SERIALIZED):
        parts = message_id.split("_")
        message_id = parts[2] if len(parts) > 2 else ""
    return message_id if _ID.fullmatch(message_id) else None


def is_of_a_chat(chat: object) -> bool:
    """Whether this is the name of a person or a group, not of a status, list or newsletter."""
    return not (isinstance(chat, str) and chat.endswith(("@broadcast", "@newsletter")))


def seconds_of(value: object) -> float | None:
    """Return unix_seconds(), None if invalid; accepts a 64-bit number in two halves."""
    if isinstance(value, dict):
        value = value.get("low")
    at = unix_seconds(value)
    return at if at > 0 else None


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of a gateway's list; ``id`` None if it does not count as a message.

    ``at`` is in Unix seconds, None if unknown.
    """

    at: float | None
    id: str | None = None
    kind: object = None
    chat: object = None
    row: dict[str, Any] = field(default_factory=dict, repr=False)
    """Whole entry."""


def read_pages(
    pages: Iterable[list[Entry]], since: float, until: float, rows_of: Collection[str] = ()
) -> Received:
    """Return the messages of ``pages``, newest first, between two times in Unix seconds.

    ``events`` are the whole entries of the ids in ``rows_of``.

    Times are checked here, since gateways ignore filters; reading ends with a page whose entries
    are all older than ``since``.
    """
    found: dict[str, ReceivedMessage] = {}
    seen: set[str] = set()
    rows: dict[str, dict[str, Any]] = {}
    why = ""
    for number, page in enumerate(pages):
        counted = [(entry, entry.id) for entry in page if entry.id is not None]
        for entry, id_ in counted:
            if entry.at is None:
                why = "the gateway lists messages without their time"
            elif since <= entry.at <= until and id_ not in found:
                found[id_] = _message(entry, id_, entry.at)
                if id_ in rows_of:
                    rows[id_] = entry.row
        if len(found) > MOST_MESSAGES or number > _MOST_PAGES:
            why = f"there are more than {MOST_MESSAGES} messages"
            break
        if counted and seen.issuperset(id_ for _, id_ in counted):
            why = "the gateway repeats a page of its list"
            break
        seen.update(id_ for _, id_ in counted)
        times = [entry.at for entry in page if entry.at is not None]
        if times and max(times) < since:
            break
    return Received(tuple(found.values()), why, rows)


def _message(entry: Entry, id_: str, at: float) -> ReceivedMessage:
    """Return an entry without text and number."""
    chat = entry.chat if isinstance(entry.chat, str) else ""
    digits = "".join(c for c in chat.partition("@")[0] if "0" <= c <= "9")
    named = isinstance(entry.kind, str) and _KIND.fullmatch(entry.kind)
    return ReceivedMessage(id_, at, str(entry.kind) if named else "other", digits[-4:])


def join(parts: Iterable[Received]) -> Received:
    """Merge the messages of several chats."""
    found: dict[str, ReceivedMessage] = {}
    events: dict[str, dict[str, Any]] = {}
    why = ""
    for part in parts:
        found.update({one.id: one for one in part.messages})
        events.update(part.events)
        why = why or part.cannot_know
    return Received(tuple(found.values()), why, events)
