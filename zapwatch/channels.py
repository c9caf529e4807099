"""Channels: identity across spellings, reported status, known numbers."""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

MAX_ID_LENGTH = 255
"""Limit of an id in characters; longer ones never become a label or a path."""


def channel_key(channel_id: str) -> str:
    """Return the identity of a channel: its id in NFC, without white space around it.

    Clients encode the second letter of ``São`` as one character or as two. Databases ignore blanks
    at the end.
    """
    return unicodedata.normalize("NFC", channel_id.strip())


def folded(name: str) -> str:
    """Return a name without white space and letter case, for comparison where no exact one is.

    Logs and people may write ``Pixel12 Digital`` for a channel that is listed as
    ``pixel12digital``.
    """
    joined = "".join(name.split())
    if joined.isascii():
        return joined.casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", joined).casefold())


class AmbiguousNameError(Exception):
    """A person's spelling means several channels. ``str()`` is one line."""

    def __init__(self, name: str, alike: Sequence[str]) -> None:
        self.name = name
        self.alike = ", ".join(alike)
        super().__init__(f"{name} may be any of {self.alike}: letter case and blanks matter here")


def key_meant(name: str, keys: Collection[str]) -> str | None:
    """Return the key that a person's ``name`` means: the exact one, or the only one folded alike.

    Raises AmbiguousNameError if several are folded alike.
    """
    key = channel_key(name)
    if key in keys:
        return key
    alike = sorted(one for one in keys if folded(one) == folded(name))
    if len(alike) > 1:
        raise AmbiguousNameError(name, alike)
    return alike[0] if alike else None


def is_usable_id(channel_id: object) -> TypeGuard[str]:
    """Whether a value is an id that can be a path, a label and a log value.

    Unusable: other types, empty and overlong ids, control characters, lone surrogates (UTF-8 cannot
    encode them), and ``.`` and ``..``, which URLs resolve.
    """
    if not isinstance(channel_id, str) or len(channel_id) > MAX_ID_LENGTH:
        return False
    return (
        "".join(channel_id.split()) not in {"", ".", ".."}
        # NFC lengthens some letters.
        and len(channel_key(channel_id)) <= MAX_ID_LENGTH
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


def _alone(names: Iterable[str]) -> Mapping[str, str]:
    """Return the names by their folded form, empty for several that are folded alike."""
    found: dict[str, str] = {}
    for name in names:
        alike = folded(name)
        found[alike] = "" if alike in found else name
    return found


class ByName(dict[str, _V]):
    """Values by the names that an operator wrote, as channel keys."""

    def __init__(self, values: Mapping[str, _V]) -> None:
        super().__init__(values)
        self._alone = _alone(self)

    def of(self, channel: Channel) -> _V | None:
        """Return a channel's value, by its exact name or the only one that is folded alike."""
        value = self.get(channel.key)
        if value is not None or not self or channel.has_twin:
            return value
        return self.get(self._alone.get(folded(channel.key), ""))


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
    id. If the gateway lists another id that differs only in letter case and blanks, the channel
    ``has_twin``: only its exact name means it.
    """

    id: str
    status: Status
    number: str | None = field(default=None, repr=False)
    repairable: bool = True
    stopped: bool = False
    activity: float | None = None
    message_count: int | None = None
    alias: str | None = None
    has_twin: bool = False
    key: str = field(init=False, repr=False, compare=False)
    """Identity, see channel_key()."""
    message_key: str = field(init=False, repr=False, compare=False)
    """Identity in log and events."""
    connected: bool = field(init=False, repr=False, compare=False)
    """Whether the gateway reports the channel as connected."""

    def __post_init__(self) -> None:
        """Compute once what each rendering reads."""
        key = channel_key(self.id)
        object.__setattr__(self, "key", key)
        alias = self.alias
        object.__setattr__(self, "message_key", channel_key(alias) if alias else key)
        object.__setattr__(self, "connected", self.status is Status.CONNECTED)


class Names:
    """Channels by their names in log and events, which are their aliases or their own names.

    Another spelling means the only channel that is folded alike.
    """

    def __init__(self, channels: Iterable[Channel] = ()) -> None:
        own = {one.key: one for one in channels}
        self._channels = own | {one.message_key: one for one in own.values()}
        self._alone: Mapping[str, str] | None = None

    def key_of(self, name: str) -> str:
        """Return the key of the channel with this name, else the name's own key."""
        key = channel_key(name)
        channel = self._find(key)
        return channel.key if channel else key

    def message_key_of(self, name: str) -> str:
        """Return the message key of the channel with this name, else the name's own key."""
        key = channel_key(name)
        channel = self._find(key)
        return channel.message_key if channel else key

    def has_new(self, before: Names) -> bool:
        """Whether there are names that ``before`` lacks."""
        return not self._channels.keys() <= before._channels.keys()

    def _find(self, key: str) -> Channel | None:
        channel = self._channels.get(key)
        if channel is not None:
            return channel
        if self._alone is None:
            # Late, since most names are exact.
            channels = self._channels.values()
            self._alone = _alone(
                {one.message_key for one in channels if one.alias or not one.has_twin}
            )
        return self._channels.get(self._alone.get(folded(key), ""))


def rekeyed(
    values: Mapping[_K, _V], key_of: Callable[[_K], _K], join: Callable[[_V, _V], _V]
) -> dict[_K, _V]:
    """Return the values by other keys; those that get the same key are joined."""
    found: dict[_K, _V] = {}
    for name, value in values.items():
        key = key_of(name)
        found[key] = join(found[key], value) if key in found else value
    return found


def known_numbers(listed: Iterable[Channel], before: Mapping[str, str]) -> Mapping[str, str]:
    """Return the listed channels' numbers by key, from the list or else from ``before``."""
    numbers = {one.key: one.number or before.get(one.key) for one in listed}
    return {key: number for key, number in numbers.items() if number is not None}
