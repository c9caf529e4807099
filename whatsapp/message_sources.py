"""The sources that can tell when channels had messages: one way to ask them all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from whatsapp.activity import Activity
from whatsapp.channels import Channel
from whatsapp.events.store import EventStore
from whatsapp.events.stored import StoredMessages
from whatsapp.last_messages import LastMessages, LogView
from whatsapp.message_log import MessageLog, MessageLogError
from whatsapp.settings import GatewaySettings, MessageSource, Settings

_CHUNK = 500  # rows a statement
_MOST_ROWS = 50_000  # looked at for one answer; where so many came later, the log is no witness


class Messages(Protocol):
    """When the channels of one gateway had messages. For one thread, but for heard_within()."""

    def poll(self, channels: Collection[Channel], /) -> LogView:
        """Return what is known of the channels by now; raise MessageLogError.

        What cannot be found out quickly comes with one of the next calls.
        """

    def find(self, channels: Collection[Channel], /) -> LogView:
        """Return all that can be known of channels that were listed just now, as poll() does."""

    def heard_within(self, key: str, seconds: float) -> bool:
        """Whether a message of a channel came within so many seconds; False where it is unknown."""

    def close(self) -> None:
        """Let go of what was opened."""


class LogMessages:
    """The messages in PixelHub's log."""

    def __init__(self, log: MessageLog, lookback_seconds: float) -> None:
        self._log = log
        self._last = LastMessages(log, lookback_seconds)

    def poll(self, channels: Collection[Channel]) -> LogView:
        """Read what is new, and look back for a second for those that were never seen."""
        return self._last.poll([channel.key for channel in channels])

    def find(self, channels: Collection[Channel]) -> LogView:
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
) -> Messages | None:
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
