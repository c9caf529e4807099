"""State store: pollers' and learner's results in one immutable snapshot, replaced as a whole."""

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
    """Result of the last list call. ``last_success`` is in Unix seconds of this machine."""

    up: bool
    channels: tuple[Channel, ...] = ()
    """As last listed; their statuses are valid only while ``up``."""
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """Result of the last poll of the message log. ``last_success`` as in GatewayState.

    It is ``up`` if that poll worked and read all new rows.
    """

    up: bool
    view: ActivitySnapshot | None = None
    """As last read; its ages are valid only while ``up``."""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both sources; None until the first poll has ended."""

    gateway: GatewayState | None = None
    log: LogState | None = None
    silence: Model | None = None
    """None until a model is learned, or always with fixed thresholds."""


def waiting_for(snapshot: Snapshot, *, with_log: bool) -> list[str]:
    """Return the sources that have not been polled yet; ``with_log`` if there is a log."""
    asked = {
        "the channel list": snapshot.gateway is not None,
        "the message log": snapshot.log is not None or not with_log,
    }
    return [source for source, done in asked.items() if not done]


class StateStore:
    """The current snapshot and the subscribers to its changes; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._subscribers: list[Callable[[], None]] = []

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot."""
        return self._snapshot

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each update, in the thread that updates."""
        self._subscribers.append(changed)

    def update(
        self,
        *,
        gateway: GatewayState | None = None,
        log: LogState | None = None,
        silence: Model | None = None,
    ) -> None:
        """Replace the given parts of the snapshot, and notify the subscribers."""
        with self._lock:
            now = self._snapshot
            self._snapshot = Snapshot(
                gateway or now.gateway, log or now.log, silence or now.silence
            )
        for changed in self._subscribers:
            changed()
