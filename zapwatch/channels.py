"""Channels: identity across spellings, reported status, known numbers."""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_ID_LENGTH = 255
"""Limit of an id in characters; longer ones never become a label or a path."""


def channel_key(channel_id: str) -> str:
    """Return the normalized id: without white space, case-folded, NFC.

    Gateways and logs spell one channel ``Pixel12 Digital`` and ``pixel12digital``, and encode the
    second letter of ``São`` as one character or as two.
    """
    joined = "".join(channel_id.split())
    if joined.isascii():
        return joined.casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", joined).casefold())


def is_usable_id(channel_id: str) -> bool:
    """Whether an id can be a path, a label and a log value.

    Unusable: empty and overlong ids, control characters, lone surrogates (UTF-8 cannot encode
    them), and ``.`` and ``..``, which URLs resolve.
    """
    if len(channel_id) > MAX_ID_LENGTH:
        return False
    key = channel_key(channel_id)
    return (
        key not in {"", ".", ".."}
        # Case folding can lengthen it.
        and len(key) <= MAX_ID_LENGTH
        # A shortcut: printable ids, nearly all of them, contain neither category.
        and (
            channel_id.isprintable()
            or not any(unicodedata.category(c) in {"Cc", "Cs"} for c in channel_id)
        )
    )


@dataclass(frozen=True, slots=True)
class NamedChannel:
    """Channel that the settings name, with its own secret.

    ``id`` is its name in log and events; None if only the gateway knows it.
    """

    name: str
    secret: str = field(repr=False)
    id: str | None = None


class Status(enum.StrEnum):
    """Status of a channel as the gateway reports it; only CONNECTED means connected."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    QR_REQUIRED = "qr_required"
    INITIALIZING = "initializing"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, raw: object) -> Status:
        """Parse a gateway's status; unknown values are UNKNOWN."""
        try:
            return cls(raw.strip().lower()) if isinstance(raw, str) else cls.UNKNOWN
        except ValueError:
            return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Channel:
    """Channel as the gateway lists it; ``id`` is in the gateway's spelling.

    ``number`` (the channel's own, digits only; never in a metric or log), ``activity`` (time of the
    last activity, Unix seconds) and ``message_count`` (stored messages) are None if the gateway
    does not report them. A channel that is not ``repairable`` is watched, never called. A
    ``stopped`` one has to be started. ``alias`` is its name in log and events if that is not the
    id.
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
    """Identity, see channel_key()."""
    message_key: str = field(init=False, repr=False, compare=False)
    """Identity in log and events."""

    def __post_init__(self) -> None:
        """Compute the identities once, since each rendering reads them."""
        key = channel_key(self.id)
        object.__setattr__(self, "key", key)
        alias = self.alias
        object.__setattr__(self, "message_key", channel_key(alias) if alias else key)

    @property
    def connected(self) -> bool:
        """Whether the gateway reports the channel as connected."""
        return self.status is Status.CONNECTED


def known_numbers(listed: Iterable[Channel], before: Mapping[str, str]) -> Mapping[str, str]:
    """Return the listed channels' numbers by key, from the list or else from ``before``."""
    numbers = {one.key: one.number or before.get(one.key) for one in listed}
    return {key: number for key, number in numbers.items() if number is not None}
