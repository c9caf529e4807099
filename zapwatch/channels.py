"""Which names mean the same channel, and what state a gateway reports of it."""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_ID_LENGTH = 255
"""Characters; a longer id is nobody's session name and never becomes a label or a path."""


def channel_key(channel_id: str) -> str:
    """Return what two ids of one channel have in common: no white space, no letter case, NFC.

    Gateways and logs write one channel as ``Pixel12 Digital`` and as ``pixel12digital``, and the
    second letter of ``São`` as one character or as two.
    """
    joined = "".join(channel_id.split())
    if joined.isascii():
        return joined.casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", joined).casefold())


def is_usable_id(channel_id: str) -> bool:
    """Whether an id can be a path, a label and a log value.

    Not so: blank or huge ones, control codes, halves of UTF-16 pairs (no UTF-8 can write them), and
    the dots that a URL takes for the folder above.
    """
    if len(channel_id) > MAX_ID_LENGTH:
        return False
    key = channel_key(channel_id)
    return (
        key not in {"", ".", ".."}
        # Folding the case can make it longer.
        and len(key) <= MAX_ID_LENGTH
        # Nothing printable is one of those, and nearly all ids are; it is the faster question.
        and (
            channel_id.isprintable()
            or not any(unicodedata.category(c) in {"Cc", "Cs"} for c in channel_id)
        )
    )


@dataclass(frozen=True, slots=True)
class NamedChannel:
    """One channel that the settings name, with the secret of its own.

    ``id`` is the name that log and events use; None where only the gateway tells it.
    """

    name: str
    secret: str = field(repr=False)
    id: str | None = None


class Status(enum.StrEnum):
    """What a gateway says of a channel; only CONNECTED means connected."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    QR_REQUIRED = "qr_required"
    INITIALIZING = "initializing"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, raw: object) -> Status:
        """Return the status for what a gateway sent; anything not known is UNKNOWN."""
        try:
            return cls(raw.strip().lower()) if isinstance(raw, str) else cls.UNKNOWN
        except ValueError:
            return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel as the gateway lists it; ``id`` is the gateway's own spelling.

    What a gateway does not tell is None: the channel's own ``number`` (digits only; it belongs in
    no metric and no log), when it was last active (Unix seconds), and how many messages it stores.
    One that is not ``repairable`` is watched, and never called. A ``stopped`` one runs only after
    somebody starts it. ``alias`` is the name that log and events use, where it is not the id.
    """

    id: str
    status: Status
    number: str | None = field(default=None, repr=False)
    repairable: bool = True
    stopped: bool = False
    activity: float | None = None
    message_count: int | None = None
    alias: str | None = None
    key: str = field(init=False, repr=False, compare=False)
    """The spelling-free identity, see channel_key()."""
    message_key: str = field(init=False, repr=False, compare=False)
    """The identity by which log and events know the channel."""

    def __post_init__(self) -> None:
        """Work the identities out once: they are asked for at each rendering."""
        key = channel_key(self.id)
        object.__setattr__(self, "key", key)
        alias = self.alias
        object.__setattr__(self, "message_key", channel_key(alias) if alias else key)

    @property
    def connected(self) -> bool:
        """Whether the gateway says that the channel is connected."""
        return self.status is Status.CONNECTED


def known_numbers(listed: Iterable[Channel], before: Mapping[str, str]) -> Mapping[str, str]:
    """Return the numbers of the listed channels by key: most gateways tell those of paired ones."""
    numbers = {one.key: one.number or before.get(one.key) for one in listed}
    return {key: number for key, number in numbers.items() if number is not None}
