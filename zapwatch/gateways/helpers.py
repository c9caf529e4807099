"""Helpers of the adapters: paths, numbers, pairing codes, parallel calls, message lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

from zapwatch.channels import Status, is_usable_id
from zapwatch.gateways.base import ChannelList, Failure, PairingCode
from zapwatch.messages.message import IdSet, Received, ReceivedMessage, Wanted


def in_path(channel_id: str) -> str:
    """Quote an id as one segment of a path; raise Failure if no URL can contain it."""
    if not is_usable_id(channel_id):
        raise Failure("a channel id that no URL can hold")
    return quote(channel_id, safe="")


_LONGEST = 15  # digits of a phone number, by ITU-T E.164


def number_of(jid: object) -> str | None:
    """Return the digits of ``55...@c.us`` or ``55...[.0]:7@s.whatsapp.net``; else None.

    An ``@lid`` identifies an account without its number.
    """
    if not isinstance(jid, str):
        return None
    digits, _, server = jid.partition("@")
    digits = digits.partition(":")[0].partition(".")[0].removeprefix("+")
    known = server in {"", "c.us", "s.whatsapp.net"}
    return digits if known and _is_number(digits) else None


_SHORTEST = 8
_WITH_NINTH = re.compile(r"(55[1-9]{2})9(\d{8})")
_WITHOUT_NINTH = re.compile(r"(55[1-9]{2})([6-9]\d{7})")  # mobile numbers only


def phone_number(text: str) -> str | None:
    """Return the digits of a typed phone number, None if it is invalid.

    The country code is required; none begins with a zero.
    """
    digits = re.sub(r"[\s().+-]", "", text)
    usable = _is_number(digits) and len(digits) >= _SHORTEST and not digits.startswith("0")
    return digits if usable else None


def other_form(number: str) -> str | None:
    """Add or remove the ninth digit of a Brazilian mobile number; None for other numbers.

    WhatsApp knows a number in the form in which it was registered.
    """
    if found := _WITH_NINTH.fullmatch(number):
        return "".join(found.groups())
    if found := _WITHOUT_NINTH.fullmatch(number):
        return "9".join(found.groups())
    return None


# The second form is the one in Whapi's document.
_PAIRING_CODE = re.compile(r"([A-Z0-9]{4})-?([A-Z0-9]{4})|(\d{3})-(\d{3})", re.ASCII)


def read_pairing_code(told: object, seconds: float) -> PairingCode:
    """Parse a gateway's pairing code; raise Failure if it is invalid."""
    found = _PAIRING_CODE.fullmatch(told) if isinstance(told, str) else None
    if found is None:
        raise Failure("an answer without a pairing code")
    return PairingCode("-".join(filter(None, found.groups())), seconds)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST


_T = TypeVar("_T")
_AT_ONCE = 8


def map_concurrently(ids: Sequence[str], ask: Callable[[str], _T]) -> list[_T | Failure]:
    """Return the result of ``ask`` for each id, or the Failure that it raised.

    If all fail, the gateway itself has failed, and the first Failure is raised.
    """

    def asked(channel_id: str) -> _T | Failure:
        try:
            return ask(channel_id)
        except Failure as failure:
            return failure

    if not ids:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids)), thread_name_prefix="sessions") as pool:
        answers = list(pool.map(asked, ids))
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if len(failures) == len(answers):
        raise failures[0]
    return answers


def status_of(word: object, statuses: Mapping[str, Status]) -> Status:
    """Return the status that a gateway's word means, UNKNOWN for any other value."""
    return statuses.get(word, Status.UNKNOWN) if isinstance(word, str) else Status.UNKNOWN


def with_statuses(listed: ChannelList, ask: Callable[[str], Status]) -> ChannelList:
    """Return the channels with their statuses from ``ask``, UNKNOWN for one that raises Failure.

    Raises Failure if all do. Channels that are not repairable keep their listed status.
    """
    ids = [channel.id for channel in listed.channels if channel.repairable]
    statuses = dict(zip(ids, map_concurrently(ids, ask), strict=True))
    channels = []
    for channel in listed.channels:
        status = statuses.get(channel.id, channel.status)
        known = Status.UNKNOWN if isinstance(status, Failure) else status
        channels.append(replace(channel, status=known))
    return replace(listed, channels=tuple(channels))


NO_MESSAGE_TYPES = (
    "ciphertext",
    "protocol",
    "notification",
    "notification_template",
    "e2e_notification",
    "gp2",
    "group_notification",
    "broadcast_notification",
    "call_log",
    "revoked",
    "reaction",
)
"""WhatsApp Web's types of system messages, and of messages not yet decrypted."""

NO_MESSAGE_KINDS = (
    "reactionMessage",
    "encReactionMessage",
    "protocolMessage",
    "pollUpdateMessage",
    "encEventResponseMessage",
    "placeholderMessage",
)
"""System messages, by their names in WhatsApp's protocol."""

MOST_MESSAGES = 50_000
"""Limit of messages per channel and read."""
_MOST_PAGES = 1000  # of one chat
_NEWEST_CHATS = 3  # that are read for the newest messages
_KIND = re.compile(r"[A-Za-z_]{1,20}")


class ChatError(Exception):
    """The gateway does not return one chat's messages. ``str()`` is the reason."""


def is_of_a_chat(chat: object) -> bool:
    """Whether this is the name of a person or a group, not of a status, list or newsletter."""
    return not (isinstance(chat, str) and chat.endswith(("@broadcast", "@newsletter")))


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


def read_chats(
    chats: Iterable[Iterable[list[Entry]]],
    wanted: Wanted,
    to_event: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _id, row: row,
) -> Received:
    """Return the wanted messages of chats; the pages of each are newest first.

    Times are checked here, since gateways ignore filters; reading a chat ends with a page whose
    entries are all older than ``since``. For the newest messages, the first page of the first three
    chats suffices. Only wanted messages are kept in memory; ``to_event`` makes events of their ids
    and entries.
    """
    reading = _Reading(wanted, to_event)
    for pages in islice(chats, _NEWEST_CHATS if wanted.newest else None):
        try:
            reading.read(pages)
        except ChatError as error:
            reading.why = reading.why or str(error)
        if reading.count > MOST_MESSAGES:
            break
    return Received(tuple(reading.found), reading.why, reading.events, reading.count)


class _Reading:
    """The messages of the chats that have been read."""

    def __init__(
        self, wanted: Wanted, to_event: Callable[[str, dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.found: list[ReceivedMessage] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.why = ""
        self.count = 0
        self._wanted = wanted
        self._to_event = to_event
        self._counted = IdSet()

    def read(self, pages: Iterable[list[Entry]]) -> None:
        """Read one chat; raise ChatError."""
        before: set[str] = set()
        for number, page in enumerate(islice(pages, 1 if self._wanted.newest else None)):
            ids = {entry.id for entry in page if entry.id is not None}
            self._take(page)
            if self.count > MOST_MESSAGES or number > _MOST_PAGES:
                self.why = f"{MOST_MESSAGES} messages at most are compared"
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
                    self.events[id_] = self._to_event(id_, entry.row)


def _message(entry: Entry, id_: str, at: float) -> ReceivedMessage:
    """Return an entry without text and number."""
    chat = entry.chat if isinstance(entry.chat, str) else ""
    digits = "".join(c for c in chat.partition("@")[0] if "0" <= c <= "9")
    named = isinstance(entry.kind, str) and _KIND.fullmatch(entry.kind)
    return ReceivedMessage(id_, at, str(entry.kind) if named else "other", digits[-4:])
