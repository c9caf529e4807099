"""What pollers and learner have found out so far: one immutable snapshot, replaced as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exporter.silence.model import Model
from zapwatch.channels import Channel
from zapwatch.gateways.base import LeftOut
from zapwatch.messages.log_tailer import ActivitySnapshot


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What the last list call gave. ``last_success`` is in Unix seconds of this machine."""

    up: bool
    channels: tuple[Channel, ...] = ()
    """As last listed, so their statuses count only while ``up``."""
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """What the last poll of the message log gave. ``last_success`` as in GatewayState.

    It is ``up`` where that poll worked and has read all that is new.
    """

    up: bool
    view: ActivitySnapshot | None = None
    """As last read, so its ages count only while ``up``."""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both sources; None where the first poll has not ended yet."""

    gateway: GatewayState | None = None
    log: LogState | None = None
    silence: Model | None = None
    """None where nothing has been learned yet, or nothing is to be."""


def waiting_for(snapshot: Snapshot, *, with_log: bool) -> list[str]:
    """Return the sources that have not been asked yet; ``with_log`` where there is a log."""
    asked = {
        "the channel list": snapshot.gateway is not None,
        "the message log": snapshot.log is not None or not with_log,
    }
    return [source for source, done in asked.items() if not done]


class StateStore:
    """The present snapshot, and who is told of the next; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._subscribers: list[Callable[[], None]] = []

    @property
    def snapshot(self) -> Snapshot:
        """The present snapshot."""
        return self._snapshot

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called after each change, by the thread that made it."""
        self._subscribers.append(changed)

    def update(
        self,
        *,
        gateway: GatewayState | None = None,
        log: LogState | None = None,
        silence: Model | None = None,
    ) -> None:
        """Replace what is given of the snapshot."""
        with self._lock:
            now = self._snapshot
            self._snapshot = Snapshot(
                gateway or now.gateway, log or now.log, silence or now.silence
            )
        for changed in self._subscribers:
            changed()
