"""What the pollers have found out so far: one immutable snapshot, replaced as a whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from whatsapp.channels import Channel
from whatsapp.last_messages import LogView


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What the last list call gave. ``last_success`` is in Unix seconds of this machine."""

    up: bool
    channels: tuple[Channel, ...] = ()
    """As last listed, so their statuses count only while ``up``."""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """What the last poll of the message log gave. ``last_success`` as in GatewayState."""

    up: bool
    view: LogView | None = None
    """As last read, so its ages count only while ``up``."""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both sources; None where the first poll has not ended yet."""

    gateway: GatewayState | None = None
    log: LogState | None = None


class Board:
    """Where the pollers pin what they know; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot()

    @property
    def snapshot(self) -> Snapshot:
        """The present snapshot."""
        return self._snapshot

    def pin(self, *, gateway: GatewayState | None = None, log: LogState | None = None) -> None:
        """Replace what is known of one source or both."""
        with self._lock:
            now = self._snapshot
            self._snapshot = replace(now, gateway=gateway or now.gateway, log=log or now.log)
