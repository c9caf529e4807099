"""New messages and their listeners."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from zapwatch.clock import Clock


@dataclass(frozen=True)
class SimulatedMessage:
    """One message that a channel's gateway reports.

    `by_api` marks a message that was sent by the gateway's own API: the report is no proof of a
    connection to WhatsApp. `words` None means any text. `kind` is WhatsApp Web's type; a
    `ciphertext` may appear again, decrypted, with the same id. `at` is in Unix seconds; 0 becomes
    the time of its birth.
    """

    channel: str
    outgoing: bool
    by_api: bool = False
    sender: str | None = None
    receiver: str | None = None
    words: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    chat: str = "5500000000001@c.us"
    participant: str | None = None
    kind: str = "chat"
    at: float = 0.0

    @property
    def serialized(self) -> str:
        """The id in WhatsApp Web's format."""
        parts = [str(self.outgoing).lower(), self.chat, self.id, self.participant]
        return "_".join(part for part in parts if part is not None)


Listener = Callable[[SimulatedMessage], None]


class Births:
    """Calls every listener with each new message, in the thread that creates the message."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> None:
        """Add a listener for future messages."""
        with self._lock:
            self._listeners.append(listener)

    def bear(self, message: SimulatedMessage) -> None:
        """Call all listeners with a message."""
        message = message if message.at else replace(message, at=self._clock.time())
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(message)
