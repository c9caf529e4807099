"""What has been heard lately: of which channels, and which echoes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from whatsapp.events.store import DEAF_AFTER, EventStore
from whatsapp.message_log import MessageLog, MessageLogError
from whatsapp.settings import GatewaySettings, MessageSource, Settings

_CHUNK = 500  # rows a statement
_MOST_ROWS = 50_000  # looked at for one answer; where so many came later, the log is no witness
_CLOCKS_SECONDS = 600.0  # by which the clock of whoever writes events may be behind


@dataclass(slots=True)
class Heard:
    """Channel keys, each with the seconds since it was last heard, and tokens of echoes."""

    ages: dict[str, float] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)


class Ear(Protocol):
    """Listens to one gateway's messages, for any number of threads."""

    def listen(self, seconds: float) -> Heard:
        """Return what came within so many seconds; raise MessageLogError."""

    def close(self) -> None:
        """Let go of what was opened."""


class LogEar:
    """Listens to a message log."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    def listen(self, seconds: float) -> Heard:
        """Read the newest rows."""
        heard = Heard()
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

    def listen(self, seconds: float) -> Heard:
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
        return Heard(
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
