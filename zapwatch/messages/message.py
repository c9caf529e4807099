"""Messages as gateways report them: times, ids, echo tokens, events, and what a source returns.

A token is part of an echo, a message between two of the operator's channels, and identifies the
receiver. So any row of the log shows whether it is an echo that its channel has received or the
sender's copy.

Systems identify a message by its bare id: WhatsApp's own, without the chat, whose name differs
between them (``@lid`` or ``@c.us``).
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import json
import math
import re
import secrets
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zapwatch.channels import MAX_ID_LENGTH, channel_key, folded
from zapwatch.http import parse_json

MARK = "zapwatch-echo-"
"""Prefix of all tokens, without characters that JSON, HTML or a chat would change."""

TOKEN_LENGTH = len(MARK) + 8 + 1 + 16
"""Characters."""

MOST_BYTES = 65536
"""Limit of an echo's payload; larger payloads, which may have 16 MB of media, are not searched."""

TOKEN = re.compile(rf"{MARK}([0-9a-f]{{8}})-[0-9a-f]{{16}}")
"""A token, with the hash of its receiver."""

_TOKEN_IN_BYTES = re.compile(TOKEN.pattern.encode())


def make_token(receiver: str) -> str:
    """Return a new token for an echo to the channel ``receiver`` (an id or a key)."""
    return f"{MARK}{_short(receiver)}-{secrets.token_hex(8)}"


def find_token(payload: bytes) -> str | None:
    """Return the first token in a payload, None without one."""
    if len(payload) > MOST_BYTES:
        return None
    found = _TOKEN_IN_BYTES.search(payload)
    return found[0].decode() if found else None


def is_for(token: str, key: str) -> bool:
    """Whether the receiver of an echo with this token is the channel ``key``."""
    found = TOKEN.fullmatch(token)
    return found is not None and found[1] == _short(key)


def _short(channel: str) -> str:
    # A hash, since readers of the chat need not know the channels' names.
    return hashlib.sha256(folded(channel).encode(errors="surrogatepass")).hexdigest()[:8]


def object_at(holder: Any, *names: str) -> dict[str, Any]:
    """Return the object at a path of names, an empty one if it is missing."""
    for name in names:
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


class Direction(enum.StrEnum):
    """Direction of a message, seen from the channel."""

    IN = "in"
    OUT = "out"


_MOST_SECONDS = 1e11  # the year 5138; a larger number is in a thousandth of the unit, or less


def unix_seconds(value: object) -> float:
    """Return a gateway's timestamp in Unix seconds, 0 if it is invalid.

    Accepts seconds, milli-, micro- or nanoseconds, as a number or a text, and RFC 3339 with a time
    zone.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _of_text(value) if isinstance(value, str) else 0.0
    if not math.isfinite(number):
        return 0.0
    while number > _MOST_SECONDS:
        number /= 1000
    return number


def _of_text(value: str) -> float:
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return at.timestamp() if at.tzinfo is not None else 0.0


def seconds_of(value: object) -> float | None:
    """Return unix_seconds(), None if invalid; accepts a 64-bit number in two halves."""
    if isinstance(value, dict):
        value = value.get("low")
    at = unix_seconds(value)
    return at if at > 0 else None


_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SERIALIZED = ("true_", "false_")


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


def is_from_me(message: Mapping[str, Any], *, default: bool = False) -> bool:
    """Return the direction in ``fromMe``, or the default if it is not a boolean."""
    value = message.get("fromMe")
    return value if isinstance(value, bool) else default


def message_id(value: object) -> str | None:
    """Return a message's id; WPPConnect's may be an object."""
    if isinstance(value, dict):
        value = value.get("_serialized")
    return value if isinstance(value, str) and value else None


def is_untaken(ack: object) -> bool:
    """Whether the ``ack`` of an own message means pending or refused by WhatsApp.

    Without an ``ack``, it may have been accepted.
    """
    if isinstance(ack, str):
        if ack.strip().upper() in {"PENDING", "CLOCK", "ERROR", "FAILED"}:
            return True
        try:
            ack = float(ack)
        except ValueError:
            return False
    return isinstance(ack, int | float) and not isinstance(ack, bool) and ack <= 0


CIPHERTEXT = "ciphertext"
"""WhatsApp Web's ``type`` of a message that is not decrypted, or not yet."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """Message of a gateway's event before validation; ``at`` and ``ack`` are in its own format.

    ``heard`` is as in Message, before ``ack`` is considered.
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
    """Whether this is Baileys' placeholder for a message that it could not decrypt.

    Some releases post it with an empty ``message`` only: issue 91 of evolution-api.
    """
    return message.get("messageStubType") in (2, "CIPHERTEXT") or message.get("message") == {}


_FIRST_TIME = 1_230_768_000.0  # 2009, the start of WhatsApp; earlier times are invalid


class EventError(Exception):
    """The body is not an event of this gateway. ``str()`` is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Message:
    """Message of a channel; ``at`` is in Unix seconds.

    ``heard``: it came through WhatsApp or was accepted by WhatsApp, rather than only requested at
    the gateway. ``id`` identifies a message that is reported twice; only a keyed hash of it is
    stored. ``echo`` is the token of an echo that the channel has received. A message that is not
    ``readable`` could not be decrypted.
    """

    key: str
    direction: Direction
    at: float
    heard: bool
    id: str | None = None
    echo: str | None = None
    readable: bool = True


def parse_event(
    read_event: Callable[[dict[str, Any]], Iterable[EventMessage]], body: bytes, now: float
) -> list[Message]:
    """Return the messages in an event, as an adapter's ``read_event`` reads it; raise EventError.

    The sender's copy of an echo is not a message. A message's own time counts if it is plausible,
    which is at most ``now``, the time of arrival; otherwise ``now`` counts.
    """
    try:
        event = parse_json(body)
    except (ValueError, RecursionError):
        raise EventError("this is not JSON") from None
    if not isinstance(event, dict):
        raise EventError("this is JSON but not an event: an object was expected")
    found = list(read_event(event))
    has_echo = bool(found) and find_token(body) is not None
    messages = []
    for said in found:
        key = channel_key(said.channel) if isinstance(said.channel, str) else ""
        if not 0 < len(key) <= MAX_ID_LENGTH:
            raise EventError("this event of a message names no channel: is the type right?")
        own = body if said.entry is None else json.dumps(said.entry).encode()
        echo = find_token(own) if has_echo else None
        if echo is not None and not (said.heard and is_for(echo, key)):
            continue
        # An echo to the sender's own number may be reported only once, before it is sent.
        untaken = echo is None and said.out and is_untaken(said.ack)
        heard = said.heard and not untaken
        direction = Direction.OUT if said.out else Direction.IN
        at, id_ = _time(said.at, now), message_id(said.id)
        messages.append(Message(key, direction, at, heard, id_, echo, said.readable))
    return messages


def _time(value: object, now: float) -> float:
    at = unix_seconds(value)
    return at if _FIRST_TIME <= at <= now else now


class MessageLogError(Exception):
    """Reading the log failed. ``str()`` is one line without the password."""


@dataclass(frozen=True, slots=True)
class ActivitySnapshot:
    """Result of one poll. Times are Unix seconds by the database's clock, keys are channel keys.

    ``last_heard`` is the time of the last message through WhatsApp, see Row. ``unread`` is the
    number of ids still to be read, among which may be a channel's true last message.
    ``receiver_gaps`` are the periods in which no message could be noticed. If messages are not
    ``counted``, a channel without an age is unknown rather than silent.

    Counted separately, since they are no proof of life: ``undecryptable`` messages by channel key,
    and rows of messages that are ``unnamed``. ``clock_offset`` is the offset in seconds of the
    newest rows' times from the database's clock when they were written (negative: earlier), 0 if it
    is less than half an hour.
    """

    now: float
    last_message: Mapping[str, float]
    messages: Mapping[tuple[str, Direction], int]
    rows_read: int
    unread: int = 0
    receiver_gaps: Sequence[tuple[float, float]] = ()
    counted: bool = True
    last_heard: Mapping[str, float] = field(default_factory=dict)
    undecryptable: Mapping[str, int] = field(default_factory=dict)
    unnamed: int = 0
    clock_offset: float = 0.0

    def heard_age(self, key: str) -> float | None:
        """Return the seconds since the channel was last heard, without receiver gaps."""
        return self._age(self.last_heard.get(key))

    def age(self, key: str) -> float | None:
        """Return the seconds since the channel's last known message, without receiver gaps.

        None if no message is known.
        """
        return self._age(self.last_message.get(key))

    def _age(self, last: float | None) -> float | None:
        if last is None:
            return None
        unheard = sum(max(0.0, ends - max(begins, last)) for begins, ends in self.receiver_gaps)
        return max(0.0, self.now - last - unheard)


@dataclass(slots=True)
class RecentMessages:
    """Messages of a time window that ends now.

    ``ages`` are the seconds since a channel key was last heard, ``echoes`` the tokens of received
    echoes, and ``gap`` is the reason why messages may be missing, empty for none.
    """

    ages: dict[str, float] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)
    gap: str = ""


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


def no_pause() -> None:
    """Do nothing between two statements."""


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
