"""Messages that a gateway has received: ids and times, without texts and numbers.

Systems identify a message by its bare id: WhatsApp's own, without the chat, whose name differs
between them (``@lid`` or ``@c.us``).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zapwatch.clock import unix_seconds

MOST_MESSAGES = 50_000
"""Limit of messages per channel and read."""
_MOST_PAGES = 1000  # of one chat

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
class Wanted:
    """Question to a gateway's list: messages between two times in Unix seconds."""

    since: float
    until: float
    among: Callable[[Collection[str]], Collection[str]] = lambda ids: ids
    """Returns the ids of interest among those of a page; the other messages are only counted."""
    events: bool = False
    """Whether their events are wanted too, as the gateway itself would post them."""
    newest: bool = False
    """Whether only the newest are wanted, by a few short calls."""


@dataclass(frozen=True, slots=True)
class Received:
    """Messages of one channel in a period, without duplicates."""

    messages: tuple[ReceivedMessage, ...] = ()
    """Those of interest."""
    cannot_know: str = ""
    """Reason why messages may be missing, in words; empty if the list is complete."""
    events: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """Requested events by id. They contain texts and numbers, so keep them in memory only."""
    count: int = 0
    """Number of all messages in the period."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages that arrived at a consumer, by its own channel keys."""

    among: Callable[[str, Collection[str]], Collection[str]]
    """Returns those of a channel's ids that arrived; raises MessageLogError."""
    heard: Collection[str] = frozenset()
    """Channels with any message in that period."""
    gaps: Collection[tuple[float, float]] = ()
    """Periods without knowledge, in Unix seconds."""


class IdSet:
    """Set of ids that takes eight bytes an id: only their hashes are kept."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, ids: Iterable[str]) -> None:
        """Add ids."""
        self._hashes.extend(map(hash, ids))

    def among(self, ids: Collection[str]) -> set[str]:
        """Return those of the ids that were added."""
        known = set(map(hash, ids)).intersection(self._hashes)
        return {one for one in ids if hash(one) in known}


class ChatError(Exception):
    """The gateway does not return one chat's messages. ``str()`` is the reason."""


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


def read_pages(pages: Iterable[list[Entry]], wanted: Wanted) -> Received:
    """Return the wanted messages of one list; see read_chats()."""
    return read_chats([pages], wanted)


def read_chats(chats: Iterable[Iterable[list[Entry]]], wanted: Wanted) -> Received:
    """Return the wanted messages of chats; the pages of each are newest first.

    Times are checked here, since gateways ignore filters; reading a chat ends with a page whose
    entries are all older than ``since``. Only wanted messages are kept in memory; their ``events``
    are whole entries.
    """
    reading = _Reading(wanted)
    for pages in chats:
        try:
            reading.read(pages)
        except ChatError as error:
            reading.why = reading.why or str(error)
        if reading.count > MOST_MESSAGES:
            break
    return Received(tuple(reading.found), reading.why, reading.rows, reading.count)


class _Reading:
    """The messages of the chats that have been read."""

    def __init__(self, wanted: Wanted) -> None:
        self.found: list[ReceivedMessage] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.why = ""
        self.count = 0
        self._wanted = wanted
        self._counted = IdSet()

    def read(self, pages: Iterable[list[Entry]]) -> None:
        """Read one chat; raise ChatError."""
        before: set[str] = set()
        for number, page in enumerate(pages):
            ids = {entry.id for entry in page if entry.id is not None}
            self._take(page)
            if self.count > MOST_MESSAGES or number > _MOST_PAGES:
                self.why = f"there are more than {MOST_MESSAGES} messages"
                return
            if ids and ids <= before:
                self.why = "the gateway repeats a page of its list"
                return
            before = ids
            times = [entry.at for entry in page if entry.at is not None]
            if times and max(times) < self._wanted.since:
                return

    def _take(self, page: Iterable[Entry]) -> None:
        inside: dict[str, tuple[Entry, float]] = {}
        for entry in page:
            if entry.id is None:
                continue
            if entry.at is None:
                self.why = "the gateway lists messages without their time"
            elif self._wanted.since <= entry.at <= self._wanted.until:
                inside.setdefault(entry.id, (entry, entry.at))
        new = inside.keys() - self._counted.among(inside)
        self._counted.add(new)
        self.count += len(new)
        wanted = set(self._wanted.among(new))
        for id_, (entry, at) in inside.items():
            if id_ in wanted:
                self.found.append(_message(entry, id_, at))
                if self._wanted.events:
                    self.rows[id_] = entry.row


def _message(entry: Entry, id_: str, at: float) -> ReceivedMessage:
    """Return an entry without text and number."""
    chat = entry.chat if isinstance(entry.chat, str) else ""
    digits = "".join(c for c in chat.partition("@")[0] if "0" <= c <= "9")
    named = isinstance(entry.kind, str) and _KIND.fullmatch(entry.kind)
    return ReceivedMessage(id_, at, str(entry.kind) if named else "other", digits[-4:])
