"""Where messages are born, and who is told of them."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SimulatedMessage:
    """One message that a channel's gateway reports.

    `by_api` marks one that the gateway reports by itself since its own API was used to send:
    it proves nothing about the way to WhatsApp. `words` None means that any will do. `kind` is
    WhatsApp Web's type; one that was a `ciphertext` may be born again with the same id. `at` is in
    Unix seconds, None for now.
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
    at: float | None = None

    @property
    def serialized(self) -> str:
        """The id as WhatsApp Web writes it."""
        parts = [str(self.outgoing).lower(), self.chat, self.id, self.participant]
        return "_".join(part for part in parts if part is not None)


Listener = Callable[[SimulatedMessage], None]


class Births:
    """Tells every listener of each message, in the thread that bears it."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> None:
        """Tell somebody else too, from now on."""
        with self._lock:
            self._listeners.append(listener)

    def bear(self, message: SimulatedMessage) -> None:
        """Tell all of a message."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(message)
