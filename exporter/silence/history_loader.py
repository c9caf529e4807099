"""Reads the histories of channels out of the message log, the newest row first, or of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Protocol

from exporter.silence.history import HOURS, History
from zapwatch.config import GatewaySettings, Settings
from zapwatch.messages.event_store import EventStore
from zapwatch.messages.log_tailer import resolve_dst_fold
from zapwatch.messages.webhook_log import MessageLog

_CHUNK = 1000  # rows a statement


class Histories(Protocol):
    """Where the histories of one gateway's channels are."""

    def read(self, wanted: Collection[str], pause: Callable[[], None]) -> dict[str, History]:
        """Return what there is of the ``wanted`` keys; raise MessageLogError.

        ``pause`` is called between two steps of some milliseconds.
        """

    def close(self) -> None:
        """Let go of connections until they are needed again."""


class LogHistories:
    """Those in a message log."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    def read(self, wanted: Collection[str], pause: Callable[[], None]) -> dict[str, History]:
        """Read the log."""
        return read_histories(self._log, wanted, pause)

    def close(self) -> None:
        """Close the connections."""
        self._log.close()


class StoredHistories:
    """Those that were made of a gateway's events."""

    def __init__(self, store: EventStore, gateway: str) -> None:
        self._store = store
        self._gateway = gateway

    def read(self, wanted: Collection[str], pause: Callable[[], None]) -> dict[str, History]:
        """Read the store, whose hours are counted already."""
        now = time.time()
        histories: dict[str, History] = {}
        since = int(now // 3600) - HOURS
        for number, (key, hour, minutes) in enumerate(self._store.minutes(self._gateway, since)):
            if key in wanted:
                if key not in histories:
                    histories[key] = History(now)
                histories[key].note_hour(hour, minutes.bits, minutes.messages)
            if number % _CHUNK == 0:
                pause()
        return histories

    def close(self) -> None:
        """Close the connections."""
        self._store.close()


def histories_of(settings: Settings, gateway: GatewaySettings) -> Histories:
    """Return where a gateway's histories are, on connections that no poll waits for."""
    if gateway.message_log_url is not None:
        return LogHistories(MessageLog(gateway.message_log_url))
    return StoredHistories(EventStore(settings.messages_state_url, read_only=True), gateway.name)


def read_histories(
    log: MessageLog, wanted: Collection[str], pause: Callable[[], None]
) -> dict[str, History]:
    """Return what the last 28 days hold of the ``wanted`` keys; raise MessageLogError.

    ``pause`` is called between two statements.
    """
    head = log.head(0)
    now = head.now
    begins = History(now).begins
    histories: dict[str, History] = {}
    before, not_after, chunk = head.newest_id + 1, now, _CHUNK
    while rows := log.rows_before(before, chunk):
        for row in resolve_dst_fold(rows, not_after):
            if row.time is None:
                continue
            not_after = min(now, row.time)
            # What Zapwatch itself has sent says nothing of how the channel talks.
            if row.key is not None and row.key in wanted and row.echo is None:
                history = histories.get(row.key)
                if history is None:
                    history = histories[row.key] = History(now)
                history.note(row.time)
        if all(row.time is not None and row.time < begins for row in rows):
            break
        before = rows[-1].id
        # Fewer came where so many would have taken the server too long.
        chunk = min(_CHUNK, 2 * len(rows))
        pause()
    return histories
