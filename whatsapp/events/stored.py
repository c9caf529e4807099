"""What the store of events knows of one gateway's channels."""

from __future__ import annotations

import time
from collections.abc import Collection

from whatsapp.channels import Channel
from whatsapp.events.store import EventStore, Last
from whatsapp.last_messages import LogView
from whatsapp.message_log import MessageLogError

_CLOCK_BACK = 1.0  # seconds
_NOBODY_SECONDS = 300.0  # without a sign of the exporter, after which its store is old news


class StoredMessages:
    """Reads what the exporter has written; for one thread, heard_within() for any number.

    Ages count only time in which somebody was there to take events.
    """

    def __init__(self, store: EventStore, gateway: str) -> None:
        self._store = store
        self._gateway = gateway
        self._last: dict[str, Last] = {}
        self._read_at = 0.0

    def poll(self, _channels: Collection[Channel]) -> LogView:
        """Read what is new; raise MessageLogError, also where nobody takes events any more."""
        now = time.time()
        listening_at = self._store.listening_at()
        if listening_at is None or now - listening_at > _NOBODY_SECONDS:
            raise MessageLogError("the exporter, which takes the gateway's events, does not run")
        if now < self._read_at - _CLOCK_BACK:
            self._last, self._read_at = {}, 0.0
        since = max(0.0, self._read_at - self._store.overlap)
        self._last.update(self._store.last(self._gateway, since))
        self._read_at = now
        deaf = self._store.deaf(now)
        return LogView(
            now,
            {key: min(now, max(last.came, last.went)) for key, last in self._last.items()},
            messages={},
            rows_read=0,
            deaf=deaf,
            last_heard={key: min(now, one.heard) for key, one in self._last.items() if one.heard},
        )

    def find(self, channels: Collection[Channel]) -> LogView:
        """Read all there is; raise MessageLogError."""
        return self.poll(channels)

    def heard_within(self, key: str, seconds: float) -> bool:
        """Whether a message of the channel came through WhatsApp within so many seconds.

        Where the store cannot be read, nothing has been heard.
        """
        since = time.time() - seconds
        try:
            last = self._store.last(self._gateway, since - self._store.overlap).get(key, Last())
        except MessageLogError:
            return False
        return last.heard >= since

    def close(self) -> None:
        """Close the connections."""
        self._store.close()
