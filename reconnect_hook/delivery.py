"""Delivery check: has the gateway's newest message arrived, and how is its webhook configured."""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from reconnect_hook.probe_limits import ProbeRepository
from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.gateways.base import Gateway, GatewayError, WebhookConfig
from zapwatch.messages.message import Wanted
from zapwatch.messages.source import MessageSource

LATE_SECONDS = 60.0
"""A message older than this that has not arrived counts as lost or refused."""

_LOOK_BACK_SECONDS = 86_400.0  # for the newest message
_READ_AGAIN_SECONDS = 3600.0  # between two reads of a healthy webhook's settings
_LONGEST_ORIGIN = 100  # characters


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether the newest message of a channel at its gateway arrived; ``words`` for the log.

    ``arrives`` is None if unknown; ``newest_at`` is Unix seconds.
    """

    arrives: bool | None
    words: str
    newest_at: float = 0.0


class DeliveryCheck:
    """Compares the newest messages of one gateway with those that arrived; thread-safe."""

    def __init__(self, client: Gateway, messages: MessageSource, clock: Clock) -> None:
        self._client = client
        self._messages = messages
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, bool, float]] = {}
        """By channel key: the newest id, whether it arrived, and the end of the last read."""

    def compare(self, channel: Channel) -> Comparison:
        """Read the gateway's newest message and, if needed, the log; raise MessageLogError."""
        until = self._clock.time()
        since = until - _LOOK_BACK_SECONDS
        try:
            received = self._client.received(channel, Wanted(since, until, newest=True))
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
            late = {one.id for one in received.messages if one.at >= newest.at}
            delivered = self._messages.delivered([channel], max(read_until, newest.at))
            # A later arrival shows that delivery works; a single loss is left to audits.
            found = delivered.among(channel.key, late)
            arrives = channel.key in delivered.heard or bool(found)
            if not arrives and any(a <= newest.at <= b for a, b in delivered.gaps):
                return Comparison(None, "nothing is known of what arrived then", newest.at)
            with self._lock:
                self._known[channel.key] = newest.id, arrives, until
        minutes = f"{(until - newest.at) / 60:.0f} min"
        became = "arrived" if arrives else "not arrived"
        return Comparison(arrives, f"received {minutes} ago, {became}", newest.at)

    def read_webhook(self, channel: Channel) -> WebhookConfig | None:
        """Return the webhook settings of the channel's session, None if the read fails."""
        try:
            return self._client.webhook(channel)
        except GatewayError:
            return None


# The webhook's settings and their history.


class WebhookFault(enum.StrEnum):
    """Webhook fault of a session whose delivery is broken: the label ``fault``."""

    GONE = "gone"
    """It existed while messages arrived."""
    MISSING = "missing"
    """There is none; whether there was one is unknown."""
    DISABLED = "disabled"
    NOT_SELECTED = "not_selected"
    """The message event is not selected."""
    CHANGED = "changed"
    """Its address differs from the one while messages arrived."""


_WORDS = {
    WebhookFault.GONE: "the webhook is gone from the session's settings",
    WebhookFault.MISSING: "the session has no webhook of its own",
    WebhookFault.DISABLED: "the session's webhook is disabled",
    WebhookFault.NOT_SELECTED: "the event of a message is not selected in the session's webhook",
    WebhookFault.CHANGED: "the address of the session's webhook has changed",
}


class _Seen(NamedTuple):
    """A webhook's settings, with keyed hashes in place of its addresses."""

    hashes: tuple[str, ...]
    enabled: bool
    posts_messages: bool

    @classmethod
    def of(cls, config: WebhookConfig, salt: str) -> Self:
        """Return settings for storage: addresses become keyed hashes."""
        key = salt.encode()
        hashes = sorted(
            hmac.new(key, url.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
            for url in config.urls
        )
        return cls(tuple(hashes), config.enabled, config.posts_messages)


class WebhookMemory(NamedTuple):
    """A channel's webhook: ``good`` while messages arrived, ``seen`` at the last read."""

    salt: str
    good: _Seen | None = None
    seen: _Seen | None = None
    read_at: float = 0.0
    fault: WebhookFault | None = None

    @classmethod
    def load(cls, text: str | None) -> Self:
        """Return the memory from the state's JSON, or a new one with a random salt."""
        if text is None:
            return cls(secrets.token_hex(16))
        salt, *states, read_at, fault = json.loads(text)
        good, seen = (one and _Seen(tuple(one[0]), *one[1:]) for one in states)
        return cls(salt, good, seen, read_at, fault and WebhookFault(fault))

    def dump(self) -> str:
        """Return the JSON for the state."""
        return json.dumps(self)

    def is_due(self, at: float) -> bool:
        """Whether healthy settings are due for a read at ``at`` (Unix seconds)."""
        return not self.read_at <= at < self.read_at + _READ_AGAIN_SECONDS

    def arriving(self, config: WebhookConfig, newest_at: float, at: float) -> WebhookMemory:
        """Return the memory after reading settings while the newest message has arrived.

        The settings are good if an earlier read, before that message, found the same.
        """
        now = _Seen.of(config, self.salt)
        is_good = now == self.seen and newest_at >= self.read_at
        return WebhookMemory(self.salt, now if is_good else self.good, now, at)

    def broken(self, config: WebhookConfig | None, at: float) -> tuple[WebhookMemory, str]:
        """Return the memory of a broken delivery, and the webhook's fault in words."""
        if config is None:
            return self._replace(fault=None), ""
        now = _Seen.of(config, self.salt)
        fault = _fault(now, self.good)
        memory = self._replace(seen=now, read_at=at, fault=fault)
        origins = ", ".join(_origins(config.urls))
        if fault is WebhookFault.CHANGED:
            return memory, f"{_WORDS[fault]}: {origins}"
        if fault is not None:
            return memory, _WORDS[fault]
        words = f"the session's webhook posts to {origins}: does that answer?" if origins else ""
        return memory, words


def _fault(now: _Seen, good: _Seen | None) -> WebhookFault | None:
    """Return how settings differ from good ones; without good ones, only an evident fault."""
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
    """Return scheme, host and port of URLs; path, query and user may be secret."""
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
    check: DeliveryCheck, book: ProbeRepository, channel: Channel, found: Comparison
) -> str:
    """Read a channel's webhook if due, store it, and return its fault in words."""
    kept, at = book.webhook(channel.key)
    memory = WebhookMemory.load(kept)
    if found.arrives:
        if memory.is_due(at):
            config = check.read_webhook(channel)
            if config is not None:
                book.keep_webhook(channel.key, memory.arriving(config, found.newest_at, at).dump())
        return ""
    memory, words = memory.broken(check.read_webhook(channel), at)
    book.keep_webhook(channel.key, memory.dump())
    return words
