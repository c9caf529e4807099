"""The sources that can tell when channels had messages: one way to ask them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, MessageSource, Settings
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.event_store import DEAF_AFTER, EventStore, StoredMessages
from zapwatch.messages.log_tailer import ActivitySnapshot, LogTailer
from zapwatch.messages.webhook_log import MessageLog, MessageLogError

_CHUNK = 500  # rows a statement
_MOST_ROWS = 50_000  # looked at for one answer; where so many came later, the log is no witness


class MessageSourceReader(Protocol):
    """When the channels of one gateway had messages. For one thread, but for heard_within()."""

    def poll(self, channels: Collection[Channel], /) -> ActivitySnapshot:
        """Return what is known of the channels by now; raise MessageLogError.

        What cannot be found out quickly comes with one of the next calls.
        """

    def find(self, channels: Collection[Channel], /) -> ActivitySnapshot:
        """Return all that can be known of channels that were listed just now, as poll() does."""

    def heard_within(self, key: str, seconds: float) -> bool:
        """Whether a message of a channel came within so many seconds; False where it is unknown."""

    def close(self) -> None:
        """Let go of what was opened."""


class LogMessages:
    """The messages in PixelHub's log."""

    def __init__(self, log: MessageLog, lookback_seconds: float) -> None:
        self._log = log
        self._last = LogTailer(log, lookback_seconds)

    def poll(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Read what is new, and look back for a second for those that were never seen."""
        return self._last.poll([channel.key for channel in channels])

    def find(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Look back until all are found, or far enough."""
        return self._last.find([channel.key for channel in channels])

    def heard_within(self, key: str, seconds: float) -> bool:
        """Look for a message among the newest rows."""
        try:
            head = self._log.head(0)
            before = head.newest_id + 1
            for _ in range(0, _MOST_ROWS, _CHUNK):
                rows = self._log.rows_before(before, _CHUNK)
                recent = [
                    row for row in rows if row.time is not None and row.time >= head.now - seconds
                ]
                if any(row.key == key and row.heard for row in recent):
                    return True
                if not recent:
                    break
                before = rows[-1].id
        except MessageLogError:
            pass
        return False

    def close(self) -> None:
        """Close the connections."""
        self._log.close()


def open_messages(
    settings: Settings, gateway: GatewaySettings, listed: Callable[[], Collection[Channel]]
) -> MessageSourceReader | None:
    """Return the source that a gateway has, as whoever is not its exporter reads it.

    ``listed`` gives the gateway's channels of a moment ago, or raises MessageLogError.
    """
    if gateway.message_log_url is not None:
        log = MessageLog(gateway.message_log_url)
        return LogMessages(log, settings.message_lookback_hours * 3600)
    if gateway.messages is MessageSource.EVENTS:
        store = EventStore(settings.messages_state_url, read_only=True)
        return StoredMessages(store, gateway.name)
    if gateway.messages is MessageSource.ACTIVITY:
        return Activity(listed)
    return None


_CLOCKS_SECONDS = 600.0  # by which the clock of whoever writes events may be behind


@dataclass(slots=True)
class RecentMessages:
    """Channel keys, each with the seconds since it was last heard, and tokens of echoes."""

    ages: dict[str, float] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)


class Ear(Protocol):
    """Listens to one gateway's messages, for any number of threads."""

    def listen(self, seconds: float) -> RecentMessages:
        """Return what came within so many seconds; raise MessageLogError."""

    def close(self) -> None:
        """Let go of what was opened."""


class LogEar:
    """Listens to a message log."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    def listen(self, seconds: float) -> RecentMessages:
        """Read the newest rows."""
        heard = RecentMessages()
        head = self._log.head(0)
        before = head.newest_id + 1
        for _ in range(0, _MOST_ROWS, _CHUNK):
            rows = self._log.rows_before(before, _CHUNK)
            recent = [
                row for row in rows if row.time is not None and row.time >= head.now - seconds
            ]
            for row in recent:
                if row.key is not None and row.heard and row.time is not None:
                    heard.ages.setdefault(row.key, max(0.0, head.now - row.time))
                    if row.echo is not None:
                        heard.echoes.add(row.echo)
            if not recent:
                break
            before = rows[-1].id
        return heard

    def close(self) -> None:
        """Close the connections."""
        self._log.close()


class EventEar:
    """Listens to what the exporter has noted of one gateway's events."""

    def __init__(self, store: EventStore, gateway: str) -> None:
        self._store = store
        self._gateway = gateway

    def listen(self, seconds: float) -> RecentMessages:
        """Read what was written lately, while there is somebody to take events."""
        now = time.time()
        listening_at = self._store.listening_at()
        if listening_at is None or now - listening_at > DEAF_AFTER:
            raise MessageLogError("the exporter, which takes the gateway's events, does not run")
        since = now - seconds - _CLOCKS_SECONDS
        ages = {
            key: max(0.0, now - last.heard)
            for key, last in self._store.last(self._gateway, since).items()
        }
        return RecentMessages(
            {key: age for key, age in ages.items() if age <= seconds},
            # No two have the same token, so it does not matter if some are older than asked for.
            self._store.echoes(self._gateway, since),
        )

    def close(self) -> None:
        """Close the connections."""
        self._store.close()


def open_ear(settings: Settings, gateway: GatewaySettings) -> Ear | None:
    """Return what can hear echoes, on connections of its own; None where nothing can."""
    if gateway.message_log_url is not None:
        return LogEar(MessageLog(gateway.message_log_url))
    if gateway.messages is MessageSource.EVENTS:
        return EventEar(EventStore(settings.messages_state_url, read_only=True), gateway.name)
    return None
