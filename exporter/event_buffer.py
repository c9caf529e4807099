"""Takes messages as fast as they come, and writes them to the store together, once a second."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from exporter.event_receiver import Count, Receiver, Sender
from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SettingsError
from zapwatch.config.readers import check_strength
from zapwatch.gateways.declaration import EventPaths
from zapwatch.gateways.declared import DeclaredGateway
from zapwatch.gateways.registry import adapter_of
from zapwatch.messages.event_parser import Message
from zapwatch.messages.event_store import Batch, EventStore, Last, Minutes
from zapwatch.messages.log_tailer import ActivitySnapshot
from zapwatch.messages.received import bare_id
from zapwatch.messages.source import StoredMessages
from zapwatch.messages.webhook_log import Direction, MessageLogError
from zapwatch.server import start_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


_log = logging.getLogger("exporter")

_WRITE_SECONDS = 1.0  # what is lost when the program is killed
_WAIT_SECONDS = 10.0  # for another thread to have written; all gateways share the store
_HEARTBEAT_SECONDS = 5.0  # between two heartbeats, if nothing is to be written
_PRUNE_SECONDS = 86400.0
_MOST_UNLISTED = 20_000  # channels that no list has named yet, for each gateway
_MOST_HOURS = 100_000  # of listed channels, that wait to be written, for each gateway
_MOST_ECHOES = 1000  # that wait to be written, for each gateway
_MOST_IDS = 100_000  # of listed channels, that wait to be written, for each gateway
_RECENT = 10_000  # messages of a gateway that are known again when they are reported once more
_RETRY_SECONDS = 3600.0
"""For which a gateway may try to deliver an event: Evolution's ten attempts take half an hour.

A message that is older and comes for the first time was kept back by WhatsApp or by the gateway.
"""


@dataclass(slots=True)
class _Box:
    """What came from one gateway; all by channel key."""

    listed: frozenset[str] = frozenset()
    last: dict[str, Last] = field(default_factory=dict)
    minutes: dict[tuple[str, int], Minutes] = field(default_factory=dict)
    counts: Counter[tuple[str, Direction]] = field(default_factory=Counter)
    undecryptable: Counter[str] = field(default_factory=Counter)
    echoes: dict[str, str] = field(default_factory=dict)
    """Of each token, who has heard it."""
    ids: set[tuple[str, str]] = field(default_factory=set)
    """Channel key and WhatsApp's id of each that was received."""
    events: int = 0
    recent: dict[int, None] = field(default_factory=dict)

    def note(self, message: Message, now: float) -> bool:
        """Take a message that came at ``now``; return whether the gateway's list lacks its channel.

        So long as no list has been read, it lacks none.
        """
        self.events += 1
        if message.readable:
            self._note_readable(message, now)
        elif message.key in self.listed and not self._is_known(message):
            self.undecryptable[message.key] += 1
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
            # It moves the clock, and is no traffic: nothing is counted, nor learned from it.
            if len(self.echoes) < _MOST_ECHOES:
                self.echoes[message.echo] = key
            return
        if repeated:
            return
        self.counts[key, message.direction] += 1
        # By their own times: they show how the channel talks.
        hour, second = divmod(message.at, 3600)
        place = key, int(hour)
        counted = self.minutes.get(place)
        most = _MOST_HOURS if key in self.listed else _MOST_UNLISTED
        if counted is not None or len(self.minutes) < most:
            minute = Minutes(1 << int(second // 60), 1)
            self.minutes[place] = counted.join(minute) if counted else minute

    def _is_known(self, message: Message) -> bool:
        """Whether the message was reported before: by a retry, or as an event of two kinds."""
        if message.id is None:
            return False
        # One that could not be decrypted may come again, and then be read.
        mark = hash((message.key, message.id, message.readable))
        if mark in self.recent:
            return True
        self.recent[mark] = None
        if len(self.recent) > _RECENT:
            del self.recent[next(iter(self.recent))]
        return False

    def take(self, gateway: str, batch: Batch) -> None:
        """Move what is known of listed channels into the batch."""
        for key in self.listed.intersection(self.last):
            batch.last[gateway, key] = self.last.pop(key)
        for key, hour in [place for place in self.minutes if place[0] in self.listed]:
            batch.minutes[gateway, key, hour] = self.minutes.pop((key, hour))
        for token in [token for token, key in self.echoes.items() if key in self.listed]:
            batch.echoes[gateway, token] = self.echoes.pop(token)
        written = {one for one in self.ids if one[0] in self.listed}
        batch.ids |= {(gateway, *one) for one in written}
        self.ids -= written

    def give_back(self, gateway: str, batch: Batch) -> None:
        """Take back what could not be written."""
        for (of, key), last in batch.last.items():
            if of == gateway:
                self.last[key] = last.join(self.last.get(key, Last()))
        for (of, key, hour), minutes in batch.minutes.items():
            if of == gateway:
                self.minutes[key, hour] = minutes.join(self.minutes.get((key, hour), Minutes()))
        for (of, token), key in batch.echoes.items():
            if of == gateway:
                self.echoes[token] = key
        self.ids |= {(key, id_) for of, key, id_ in batch.ids if of == gateway}


class Inbox:
    """The messages of all gateways whose events are taken; for any number of threads.

    Only channels that a gateway lists are written. Those of others wait in memory, in case the list
    is late, and no more of them than are good for it.
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
        self._next_prune = 0.0

    def start(self) -> None:
        """Begin to write, in a thread that does not keep the program from ending."""
        start_thread("messages", self._run)

    def open_for(self, gateways: Collection[str]) -> None:
        """Take messages of these gateways too; what came of others before is kept."""
        with self._lock:
            self._boxes = {gateway: _Box() for gateway in gateways} | self._boxes

    def take(self, gateway: str, message: Message) -> bool:
        """Take one message; it is on disk within about a second.

        Returns whether the gateway's list lacks its channel.
        """
        with self._lock:
            return self._boxes[gateway].note(message, self._clock.time())

    def list_channels(self, gateway: str, keys: frozenset[str]) -> None:
        """Take over which channels a gateway has."""
        with self._lock:
            box = self._boxes[gateway]
            if keys != box.listed:
                box.listed = keys
                known = keys.union(box.last)
                box.counts = Counter({k: n for k, n in box.counts.items() if k[0] in known})
                box.undecryptable = Counter(
                    {key: n for key, n in box.undecryptable.items() if key in keys}
                )

    def counts(self, gateway: str) -> ActivitySnapshot:
        """Return what was counted since the start, and no times."""
        with self._lock:
            box = self._boxes[gateway]
            return ActivitySnapshot(
                now=0.0,
                last_message={},
                messages=dict(box.counts),
                rows_read=box.events,
                undecryptable=dict(box.undecryptable),
            )

    def write(self) -> None:
        """Write what waits, and that somebody is here to take events; raise MessageLogError.

        What another thread is writing just now is written as well when this returns.
        """
        if not self._writing.acquire(timeout=_WAIT_SECONDS):
            raise MessageLogError("the store of events takes too long to write")
        try:
            self._write()
        finally:
            self._writing.release()

    def _write(self) -> None:
        batch = Batch()
        with self._lock:
            for gateway, box in self._boxes.items():
                box.take(gateway, batch)
        if not batch.last and self._clock.monotonic() < self._next_heartbeat:
            return
        try:
            self._store.write(batch, self._clock.time())
        except BaseException:
            with self._lock:
                for gateway, box in self._boxes.items():
                    box.give_back(gateway, batch)
            raise
        self._next_heartbeat = self._clock.monotonic() + _HEARTBEAT_SECONDS

    def _run(self) -> None:
        while True:
            try:
                self.write()
                if self._clock.monotonic() >= self._next_prune:
                    self._store.prune(self._clock.time())
                    self._next_prune = self._clock.monotonic() + _PRUNE_SECONDS
            except MessageLogError:
                pass  # the polls meet it as well, and tell
            except Exception:  # noqa: BLE001
                # Unforeseen, but the next time it may work.
                _log.exception("messages cannot be written, a fault of the exporter itself")
            self._clock.sleep(_WRITE_SECONDS)


class TakenMessages(StoredMessages):
    """The messages of one gateway whose events this program takes: the inbox's and the store's."""

    def __init__(
        self, inbox: Inbox, store: EventStore, gateway: str, *, clock: Clock | None = None
    ) -> None:
        super().__init__(store, gateway, clock=clock)
        self._inbox = inbox

    def poll(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Write what waits and read what is known; raise MessageLogError."""
        keys = frozenset(key for one in channels for key in (one.key, one.message_key))
        self._inbox.list_channels(self._gateway, keys)
        # First, so that none is counted whose time is not known yet.
        counts = self._inbox.counts(self._gateway)
        self._inbox.write()
        return replace(
            super().poll(channels),
            messages=counts.messages,
            rows_read=counts.rows_read,
            undecryptable=counts.undecryptable,
        )


class Post:
    """The messages of all gateways, as one exporter learns of them."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Open nothing yet, and take nobody's events."""
        self._clock = clock or Clock()
        self.store = EventStore(settings.messages_state_url)
        self._inbox = Inbox(self.store, [], clock=self._clock)
        self._senders: dict[str, Sender] = {}
        self._started = False

    def follow(self, gateways: Collection[GatewaySettings]) -> None:
        """Take the events of those of these gateways that post them, and of no others.

        Raises SettingsError where one has no token; then nothing has changed.
        """
        senders = senders_among(gateways)
        self._inbox.open_for(senders)
        if senders and not self._started:
            self._inbox.start()
            self._started = True
        self._senders.update(senders)
        for name in self._senders.keys() - senders.keys():
            del self._senders[name]

    def messages(self, gateway: str) -> TakenMessages:
        """Return the source of a gateway whose events are taken."""
        return TakenMessages(self._inbox, self.store, gateway, clock=self._clock)

    def close(self) -> None:
        """Write what waits, if that can be done, and close the store."""
        if self._started:
            with suppress(MessageLogError):
                self._inbox.write()
        self.store.close()

    def receiver(
        self, pages: WSGIApplication, count: Count, on_state: Callable[[str], None]
    ) -> Receiver:
        """Return the application with the place for events before it; see Receiver."""
        return Receiver(pages, self._senders, self._inbox.take, count, on_state, clock=self._clock)


def senders_among(gateways: Collection[GatewaySettings]) -> dict[str, Sender]:
    """Return those that post their events; raise SettingsError where one has no token."""
    posting = [gateway for gateway in gateways if gateway.messages is MessageSourceKind.EVENTS]
    for gateway in posting:
        if not gateway.messages_token:
            raise SettingsError(
                "MESSAGES_TOKEN is not set: choose a long random text, and let gateway "
                f"{gateway.name} post its events with it"
            )
        check_strength(f"MESSAGES_TOKEN of gateway {gateway.name}", gateway.messages_token)
    return {
        gateway.name: Sender(gateway.type, gateway.messages_token, _event_paths(gateway))
        for gateway in posting
    }


def _event_paths(gateway: GatewaySettings) -> EventPaths | None:
    """Return where a declared gateway's events tell what; None for any other."""
    adapter = adapter_of(gateway)
    if not issubclass(adapter, DeclaredGateway):
        return None
    if adapter.declaration.events is None:
        raise SettingsError(f"gateway {gateway.name}: type {gateway.type} describes no events")
    return adapter.declaration.events
