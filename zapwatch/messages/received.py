"""What a gateway tells of the messages that it has received: ids and times, no text, no number.

Two systems know one message by its bare id: WhatsApp's own, without the chat, whose name differs
between them (``@lid`` in one place, ``@c.us`` in another).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zapwatch.clock import unix_seconds

MOST_MESSAGES = 50_000
"""More of one channel are not read at once."""
_MOST_PAGES = 1000

_ID = re.compile(r"[A-Za-z0-9.-]{1,128}")
_KIND = re.compile(r"[A-Za-z_]{1,20}")
_SERIALIZED = ("true_", "false_")


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message from somebody else; ``at`` is in Unix seconds.

    Of the chat there are the last four digits at most.
    """

    id: str
    at: float
    kind: str
    chat: str


@dataclass(frozen=True, slots=True)
class Received:
    """The messages of one channel and some time, each once."""

    messages: tuple[ReceivedMessage, ...] = ()
    cannot_know: str = ""
    """Why there may be others, in words; empty where these are all."""
    events: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """By id the events of those that were asked for: texts and numbers, for the memory alone."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Which messages a consumer got; all by the key under which it knows the channel."""

    ids: Mapping[str, Collection[str]]
    """Of the ids that were asked for, those that arrived."""
    heard: Collection[str] = frozenset()
    """The channels of which any message arrived in that time."""
    gaps: Collection[tuple[float, float]] = ()
    """From when until when nothing is known, in Unix seconds."""


def bare_id(message_id: object) -> str | None:
    """Return WhatsApp's own id out of ``false_<chat>_<ID>_<participant>`` or of the ID alone.

    None for what is no id.
    """
    if not isinstance(message_id, str):
        return None
    if message_id.startswith(_SERIALIZED):
        parts = message_id.split("_")
        message_id = parts[2] if len(parts) > 2 else ""
    return message_id if _ID.fullmatch(message_id) else None


def is_of_a_chat(chat: object) -> bool:
    """Whether it names a person or a group, and not the status page, a list or a newsletter."""
    return not (isinstance(chat, str) and chat.endswith(("@broadcast", "@newsletter")))


def seconds_of(value: object) -> float | None:
    """Return a time as unix_seconds() does, None where it is none; 64 bits may come in halves."""
    if isinstance(value, dict):
        value = value.get("low")
    at = unix_seconds(value)
    return at if at > 0 else None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a gateway's list as it stands there; ``id`` None where it is not to be counted.

    ``at`` is in Unix seconds, None where it is not told.
    """

    at: float | None
    id: str | None = None
    kind: object = None
    chat: object = None
    row: dict[str, Any] = field(default_factory=dict, repr=False)
    """The whole entry."""


def read_pages(
    pages: Iterable[list[Entry]], since: float, until: float, rows_of: Collection[str] = ()
) -> Received:
    """Return the messages of ``pages`` between two moments in Unix seconds.

    Instead of events there are the whole entries of the ids in ``rows_of``.

    The newest come first. Times are judged here, since gateways ignore filters; nothing is read
    after a page whose entries are all older than ``since``.
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
    """Return an entry without what must not be kept."""
    chat = entry.chat if isinstance(entry.chat, str) else ""
    digits = "".join(c for c in chat.partition("@")[0] if "0" <= c <= "9")
    named = isinstance(entry.kind, str) and _KIND.fullmatch(entry.kind)
    return ReceivedMessage(id_, at, str(entry.kind) if named else "other", digits[-4:])


def join(parts: Iterable[Received]) -> Received:
    """Return the messages of several chats together."""
    found: dict[str, ReceivedMessage] = {}
    events: dict[str, dict[str, Any]] = {}
    why = ""
    for part in parts:
        found.update({one.id: one for one in part.messages})
        events.update(part.events)
        why = why or part.cannot_know
    return Received(tuple(found.values()), why, events)
