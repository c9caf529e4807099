"""Whether what a gateway has received arrives: its newest message, and where its webhook posts."""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.gateways.base import Gateway, GatewayError, WebhookConfig
from zapwatch.messages.source import MessageSource

LATE_SECONDS = 60.0
"""After this age, a message that has not arrived is taken to be lost or refused."""

_LOOK_BACK_SECONDS = 86_400.0  # for the newest message
_READ_AGAIN_SECONDS = 3600.0  # between two readings of a webhook's settings that are well
_LONGEST_ORIGIN = 100  # characters


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the newest message of a channel at its gateway shows, in ``words`` too.

    ``arrives`` is None where that cannot be known; ``newest_at`` is in Unix seconds.
    """

    arrives: bool | None
    words: str
    newest_at: float = 0.0


class DeliveryCheck:
    """Compares the newest messages of one gateway with those that arrived; for any thread."""

    def __init__(self, client: Gateway, messages: MessageSource, clock: Clock) -> None:
        self._client = client
        self._messages = messages
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, bool, float]] = {}
        """By channel key: the newest id, whether it has arrived, and until when that was read."""

    def compare(self, channel: Channel) -> Comparison:
        """Ask the gateway for its newest message and, if needed, the log; raise MessageLogError."""
        until = self._clock.time()
        since = until - _LOOK_BACK_SECONDS
        try:
            received = self._client.received(channel, since, until, newest=True)
        except GatewayError as error:
            return Comparison(None, f"the gateway does not list its messages: {error}")
        judged = [one for one in received.messages if one.at <= until - LATE_SECONDS]
        if not judged:
            return Comparison(None, received.cannot_know or "the gateway has no message of a day")
        newest = max(judged, key=lambda one: one.at)
        id_, arrives, read_until = self._known.get(channel.key, ("", False, 0.0))
        if id_ != newest.id:
            arrives, read_until = False, newest.at
        if not arrives:
            wanted = {one.id for one in received.messages if one.at >= newest.at}
            key = channel.message_key
            delivered = self._messages.delivered({key: wanted}, max(read_until, newest.at))
            # A later one that arrived shows that messages do: a single loss is an audit's matter.
            arrives = bool(delivered.ids.get(key)) or key in delivered.heard
            if not arrives and any(a <= newest.at <= b for a, b in delivered.gaps):
                return Comparison(None, "nothing is known of what arrived then", newest.at)
            with self._lock:
                self._known[channel.key] = newest.id, arrives, until
        minutes = f"{(until - newest.at) / 60:.0f} min"
        became = "arrived" if arrives else "not arrived"
        return Comparison(arrives, f"received {minutes} ago, {became}", newest.at)

    def read_webhook(self, channel: Channel) -> WebhookConfig | None:
        """Return where the channel's session posts, None where that is not told."""
        try:
            return self._client.webhook(channel)
        except GatewayError:
            return None


# The settings of the webhook, and what is remembered of them.


class WebhookFault(enum.StrEnum):
    """What is wrong with the webhook of a session whose messages do not arrive: a label."""

    GONE = "gone"
    """It was there when messages arrived."""
    MISSING = "missing"
    """There is none, and it is not known whether there was."""
    DISABLED = "disabled"
    NOT_SELECTED = "not_selected"
    """The event of a message is not among those that are posted."""
    CHANGED = "changed"
    """It posts to another address than when messages arrived."""


_WORDS = {
    WebhookFault.GONE: "the webhook is gone from the session's settings",
    WebhookFault.MISSING: "the session has no webhook of its own",
    WebhookFault.DISABLED: "the session's webhook is disabled",
    WebhookFault.NOT_SELECTED: "the event of a message is not selected in the session's webhook",
    WebhookFault.CHANGED: "the address of the session's webhook has changed",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """The settings of a webhook without its addresses, of which there are keyed hashes."""

    hashes: tuple[str, ...]
    enabled: bool
    posts_messages: bool

    @classmethod
    def of(cls, config: WebhookConfig, salt: str) -> Self:
        """Return what may be kept of settings."""
        key = salt.encode()
        hashes = sorted(
            hmac.new(key, url.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
            for url in config.urls
        )
        return cls(tuple(hashes), config.enabled, config.posts_messages)

    @classmethod
    def parse(cls, stored: Any) -> Self | None:
        """Return what a state holds."""
        return None if stored is None else cls(tuple(stored[0]), stored[1], stored[2])

    def as_json(self) -> list[object]:
        """Return what a state may hold."""
        return [list(self.hashes), self.enabled, self.posts_messages]


@dataclass(frozen=True, slots=True)
class WebhookMemory:
    """What is remembered of a channel's webhook: as it was at last while messages arrived."""

    salt: str
    good: _Seen | None = None
    seen: _Seen | None = None
    read_at: float = 0.0
    fault: WebhookFault | None = None

    @classmethod
    def load(cls, text: str | None) -> Self:
        """Return what a state holds."""
        if text is None:
            return cls(secrets.token_hex(16))
        salt, good, seen, read_at, fault = json.loads(text)
        return cls(
            salt,
            _Seen.parse(good),
            _Seen.parse(seen),
            read_at,
            None if fault is None else WebhookFault(fault),
        )

    def dump(self) -> str:
        """Return what a state is to hold."""
        states = [one and one.as_json() for one in (self.good, self.seen)]
        return json.dumps([self.salt, *states, self.read_at, self.fault])

    def is_due(self, at: float) -> bool:
        """Whether settings that are well are to be read again, at a moment in Unix seconds."""
        return not self.read_at <= at < self.read_at + _READ_AGAIN_SECONDS

    def arriving(self, config: WebhookConfig, newest_at: float, at: float) -> WebhookMemory:
        """Return what is remembered once settings were read and the newest message has arrived.

        They are good if they were the same at a reading before it came.
        """
        now = _Seen.of(config, self.salt)
        is_good = now == self.seen and newest_at >= self.read_at
        return WebhookMemory(self.salt, now if is_good else self.good, now, at)

    def broken(self, config: WebhookConfig | None, at: float) -> tuple[WebhookMemory, str]:
        """Return what is remembered once messages do not arrive, and what is wrong in words."""
        if config is None:
            return WebhookMemory(self.salt, self.good, self.seen, self.read_at), ""
        now = _Seen.of(config, self.salt)
        fault = _fault(now, self.good)
        memory = WebhookMemory(self.salt, self.good, now, at, fault)
        origins = ", ".join(_origins(config.urls))
        if fault is WebhookFault.CHANGED:
            return memory, f"{_WORDS[fault]}: {origins}"
        if fault is not None:
            return memory, _WORDS[fault]
        words = f"the session's webhook posts to {origins}: does that answer?" if origins else ""
        return memory, words


def _fault(now: _Seen, good: _Seen | None) -> WebhookFault | None:
    """Return how settings differ from good ones, or what cannot be good where none are known."""
    if now == good:
        return None
    if not now.hashes:
        if good is None:
            return WebhookFault.MISSING
        return WebhookFault.GONE if good.hashes else None
    if not now.enabled:
        return WebhookFault.DISABLED
    if not now.posts_messages:
        return WebhookFault.NOT_SELECTED
    changed = good is not None and good.hashes != now.hashes
    return WebhookFault.CHANGED if changed else None


def _origins(urls: Collection[str]) -> list[str]:
    """Return scheme, host and port of addresses; path, query and user may be secret."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            continue
        place = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        if host and place.isprintable() and len(place) <= _LONGEST_ORIGIN:
            found.append(place)
    return sorted(set(found))


def note_webhook(
    check: DeliveryCheck,
    channel: Channel,
    found: Comparison,
    kept: str | None,
    at: float,
    keep: Callable[[str], None],
) -> str:
    """Read a channel's webhook where that is due, and return what is wrong with it in words."""
    memory = WebhookMemory.load(kept)
    if found.arrives:
        if memory.is_due(at):
            config = check.read_webhook(channel)
            if config is not None:
                keep(memory.arriving(config, found.newest_at, at).dump())
        return ""
    memory, words = memory.broken(check.read_webhook(channel), at)
    keep(memory.dump())
    return words
