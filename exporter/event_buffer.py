"""Buffers posted messages in memory, and writes them to the event store once a second."""

from __future__ import annotations

import logging
import operator
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter as MetricCounter

from exporter.app import EventResult, Receiver, Sender
from zapwatch.channels import Channel, Names, rekeyed
from zapwatch.clock import SETTLED_SECONDS, Clock
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SettingsError
from zapwatch.config.readers import check_strength
from zapwatch.gateways.base import Gateway
from zapwatch.gateways.declared import DeclaredGateway
from zapwatch.gateways.registry import adapter_of
from zapwatch.messages.event_store import Batch, EventStore, Last, Minutes, StoredMessages
from zapwatch.messages.message import ActivitySnapshot, Direction, Message, MessageLogError, bare_id
from zapwatch.server import start_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


_log = logging.getLogger("exporter")

_WRITE_SECONDS = 1.0  # of messages are lost when the program is killed
_WAIT_SECONDS = 10.0  # for another thread's write; all gateways share the store
_HEARTBEAT_SECONDS = 5.0  # between two heartbeats while there is nothing to write
_PRUNE_SECONDS = 86400.0
_MOST_UNLISTED = 20_000  # channels that no list contains yet, per gateway
_MOST_HOURS = 100_000  # of listed channels, waiting to be written, per gateway
_MOST_ECHOES = 1000  # waiting to be written, per gateway
_MOST_IDS = 100_000  # of listed channels, waiting to be written, per gateway
_RECENT = 10_000  # messages of a gateway that are remembered, to recognize repeated reports
_RETRY_SECONDS = 3600.0
"""How long a gateway may retry an event: Evolution's ten attempts take half an hour.

An older message that arrives for the first time was held back by WhatsApp or by the gateway.
"""


@dataclass(slots=True)
class _Box(Batch):
    """One gateway's messages that wait to be written, and its counters by channel key."""

    stored: frozenset[str] | None = None
    """Channels listed before the program's start, once read; they count until the first list."""
    channels: Collection[Channel] = ()
    listed: frozenset[str] = frozenset()
    names: Names = field(default_factory=Names)
    counts: Counter[tuple[str, Direction]] = field(default_factory=Counter)
    undecryptable: Counter[str] = field(default_factory=Counter)
    events: int = 0
    recent: dict[int, None] = field(default_factory=dict)

    def note(self, message: Message, now: float) -> bool:
        """Record a message that arrived at ``now``; return whether the list lacks its channel.

        Always False until a list has been read.
        """
        self.events += 1
        message = replace(message, key=self.names.message_key_of(message.key))
        if message.readable:
            self._note_readable(message, now)
        elif message.key in self.listed and not self._is_known(message):
            self.undecryptable[self.names.key_of(message.key)] += 1
        return bool(self.listed) and message.key not in self.listed

    def _note_readable(self, message: Message, now: float) -> None:
        key, at = message.key, message.at
        if key not in self.listed and key not in self.last and len(self.last) >= _MOST_UNLISTED:
            return
        repeated = self._is_known(message)
        if not repeated and now - at > _RETRY_SECONDS:
            at = now
        came, went = (at, 0.0) if message.direction is Direction.IN else (0.0, at)
        last = Last(came, went, at if message.heard else 0.0)
        most_ids = _MOST_IDS if key in self.listed else _MOST_UNLISTED
        if message.direction is Direction.IN and len(self.ids) < most_ids:
            id_ = bare_id(message.id)
            if id_ is not None:
                self.ids.add((key, id_))
        known = self.last.get(key)
        self.last[key] = known.join(last) if known else last
        if message.echo is not None:
            # An echo sets the time of the last message, but is neither counted nor learned from.
            if len(self.echoes) < _MOST_ECHOES:
                self.echoes[message.echo] = key
            return
        if repeated:
            return
        self.counts[self.names.key_of(key), message.direction] += 1
        # At the message's own time: the hours show the channel's usual traffic.
        hour, second = divmod(message.at, 3600)
        place = key, int(hour)
        counted = self.minutes.get(place)
        most = _MOST_HOURS if key in self.listed else _MOST_UNLISTED
        if counted is not None or len(self.minutes) < most:
            minute = Minutes(1 << int(second // 60), 1)
            self.minutes[place] = counted.join(minute) if counted else minute

    def _is_known(self, message: Message) -> bool:
        """Whether the message was reported before: by a retry, or as another kind of event."""
        if message.id is None:
            return False
        # A message that could not be decrypted may arrive again, readable.
        mark = hash((message.key, message.id, message.readable))
        if mark in self.recent:
            return True
        self.recent[mark] = None
        if len(self.recent) > _RECENT:
            del self.recent[next(iter(self.recent))]
        return False

    def rename(self) -> None:
        """Change the keys of what came under a name that was not listed yet."""
        own, key_of = self.names.key_of, self.names.message_key_of
        by_key = rekeyed(self.counts, lambda one: (own(one[0]), one[1]), operator.add)
        self.counts = Counter(by_key)
        self.last = rekeyed(self.last, key_of, Last.join)
        self.minutes = rekeyed(self.minutes, lambda one: (key_of(one[0]), one[1]), Minutes.join)
        self.echoes = {token: key_of(name) for token, name in self.echoes.items()}
        self.ids = {(key_of(name), id_) for name, id_ in self.ids}

    def take(self) -> Batch:
        """Remove and return the messages of listed channels."""
        listed = self.listed or self.stored or frozenset()
        hours = [place for place in self.minutes if place[0] in listed]
        tokens = [token for token, key in self.echoes.items() if key in listed]
        batch = Batch(
            {key: self.last.pop(key) for key in listed.intersection(self.last)},
            {place: self.minutes.pop(place) for place in hours},
            {token: self.echoes.pop(token) for token in tokens},
            {one for one in self.ids if one[0] in listed},
        )
        self.ids -= batch.ids
        return batch

    def give_back(self, batch: Batch) -> None:
        """Restore messages that could not be written."""
        for key, last in batch.last.items():
            self.last[key] = last.join(self.last.get(key, Last()))
        for place, minutes in batch.minutes.items():
            self.minutes[place] = minutes.join(self.minutes.get(place, Minutes()))
        self.echoes |= batch.echoes
        self.ids |= batch.ids


class Inbox:
    """The messages of all gateways that post events; thread-safe.

    Only messages of listed channels are written, and before the first list those of channels that
    were listed earlier. Others wait in memory, in case the list is late; their number is bounded.
    """

    def __init__(
        self, store: EventStore, gateways: Collection[str], *, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._boxes = {gateway: _Box() for gateway in gateways}
        self._next_heartbeat = 0.0
        self._next_prune = SETTLED_SECONDS
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writer in a daemon thread, which does not block the program's exit."""
        self._thread = start_thread("messages", self._run)

    def close(self) -> None:
        """Write waiting messages if possible, and end the thread."""
        self._stopped.set()
        with suppress(MessageLogError):
            self.write()
        if self._thread is not None:
            self._thread.join(_WAIT_SECONDS)

    def open_for(self, gateways: Collection[str]) -> None:
        """Accept messages of these gateways too; those of earlier gateways are kept."""
        with self._lock:
            self._boxes = {gateway: _Box() for gateway in gateways} | self._boxes

    def take(self, gateway: str, message: Message) -> bool:
        """Take one message; it is on disk within about a second.

        Returns whether the gateway's list lacks its channel.
        """
        with self._lock:
            return self._boxes[gateway].note(message, self._clock.time())

    def list_channels(self, gateway: str, channels: Collection[Channel]) -> None:
        """Set a gateway's channels; drop the counts of removed ones."""
        box = self._boxes[gateway]
        if channels is box.channels:
            return
        keys = frozenset(key for one in channels for key in (one.key, one.message_key))
        with self._lock:
            box.channels, box.names = channels, Names(channels)
            if not keys <= box.listed:
                box.rename()
            if keys != box.listed:
                box.listed = keys
                known = keys.union(box.last)
                box.counts = Counter({k: n for k, n in box.counts.items() if k[0] in known})
                box.undecryptable = Counter(
                    {key: n for key, n in box.undecryptable.items() if key in keys}
                )

    def counts(self, gateway: str) -> dict[str, Any]:
        """Return the counts since the start, as fields of a snapshot."""
        with self._lock:
            box = self._boxes[gateway]
            return {
                "messages": dict(box.counts),
                "rows_read": box.events,
                "undecryptable": dict(box.undecryptable),
            }

    def write(self) -> None:
        """Write waiting messages, or a heartbeat if it is due; raise MessageLogError.

        When this returns, another thread's concurrent write has ended too.
        """
        if not self._writing.acquire(timeout=_WAIT_SECONDS):
            raise MessageLogError("the store of events takes too long to write")
        try:
            self._write()
        finally:
            self._writing.release()

    def _write(self) -> None:
        for gateway, box in self._boxes.items():
            if box.last and not box.listed and box.stored is None:
                box.stored = frozenset(self._store.activity(gateway).last)
        with self._lock:
            batches = {gateway: box.take() for gateway, box in self._boxes.items()}
        is_empty = not any(batch.last for batch in batches.values())
        if is_empty and self._clock.monotonic() < self._next_heartbeat:
            return
        try:
            self._store.write(batches, self._clock.time())
        except BaseException:
            with self._lock:
                for gateway, batch in batches.items():
                    self._boxes[gateway].give_back(batch)
            raise
        self._next_heartbeat = self._clock.monotonic() + _HEARTBEAT_SECONDS

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.write()
                if self._clock.monotonic() >= self._next_prune:
                    self._store.prune(self._clock.time())
                    self._next_prune = self._clock.monotonic() + _PRUNE_SECONDS
            except MessageLogError:
                pass  # the pollers get and log the same error
            except Exception:  # noqa: BLE001
                # Unexpected, but the next attempt may succeed.
                _log.exception("messages cannot be written: internal error")
            self._clock.wait(self._stopped, _WRITE_SECONDS)


class TakenMessages(StoredMessages):
    """Message source of one gateway that posts events: the inbox and the store."""

    def __init__(
        self, inbox: Inbox, store: EventStore, gateway: str, *, clock: Clock | None = None
    ) -> None:
        super().__init__(store, gateway, clock=clock)
        self._inbox = inbox

    def poll(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Write waiting messages and read the store; raise MessageLogError."""
        self._inbox.list_channels(self._gateway, channels)
        # Before the write, so that every counted message already has its time.
        counts = self._inbox.counts(self._gateway)
        self._inbox.write()
        return replace(super().poll(channels), **counts)


class Post:
    """The event store, inbox and senders of one exporter."""

    def __init__(self, settings: Settings) -> None:
        """Accept no events until ``follow`` is called."""
        self.store = EventStore(settings.messages_state_url)
        self._inbox = Inbox(self.store, [])
        self.events = MetricCounter(
            "whatsapp_message_events",
            "Events that the gateway posted, by result.",
            ["gateway", "result"],
            registry=None,
        )
        self._counters: Mapping[tuple[str, EventResult], MetricCounter] = {}
        self._senders: dict[str, Sender] = {}
        self._started = False

    def follow(self, gateways: Collection[GatewaySettings]) -> None:
        """Accept events of exactly those of these gateways that post them.

        Raises SettingsError if one has no token; then nothing has changed.
        """
        senders = senders_among(gateways)
        self._inbox.open_for(senders)
        if senders and not self._started:
            self._inbox.start()
            self._started = True
        self._senders.update(senders)
        for name in self._senders.keys() - senders.keys():
            del self._senders[name]
            self.events.remove_by_labels({"gateway": name})
        # Series are created here, so that an event of a removed gateway creates none.
        self._counters = {
            (name, result): self.events.labels(name, result)
            for name in senders
            for result in EventResult
        }

    def _count(self, gateway: str, result: EventResult) -> None:
        counter = self._counters.get((gateway, result))
        if counter is not None:
            counter.inc()

    def messages(self, gateway: str) -> TakenMessages:
        """Return the message source of a gateway that posts events."""
        return TakenMessages(self._inbox, self.store, gateway)

    def close(self) -> None:
        """Write waiting messages if possible, and close the store."""
        if self._started:
            self._inbox.close()
        self.store.close()

    def receiver(self, pages: WSGIApplication, on_state: Callable[[str], None]) -> Receiver:
        """Return the application with the event receiver in front; see Receiver."""
        return Receiver(pages, self._senders, self._inbox.take, self._count, on_state)


def senders_among(gateways: Collection[GatewaySettings]) -> dict[str, Sender]:
    """Return the gateways that post events; raise SettingsError if one has no token."""
    posting = [gateway for gateway in gateways if gateway.messages is MessageSourceKind.EVENTS]
    for gateway in posting:
        if not gateway.messages_token:
            raise SettingsError(
                "MESSAGES_TOKEN is not set: choose a long random text, and let gateway "
                f"{gateway.name} post its events with it"
            )
        check_strength(f"MESSAGES_TOKEN of gateway {gateway.name}", gateway.messages_token)
    return {gateway.name: Sender(_posting(gateway), gateway.messages_token) for gateway in posting}


def _posting(gateway: GatewaySettings) -> type[Gateway]:
    """Return the adapter of a gateway that posts events; raise SettingsError."""
    adapter = adapter_of(gateway)
    if issubclass(adapter, DeclaredGateway) and adapter.declaration.events is None:
        raise SettingsError(f"gateway {gateway.name}: type {gateway.type} describes no events")
    return adapter
