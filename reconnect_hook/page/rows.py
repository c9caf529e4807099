"""One line of the overview: what is known of a channel, judged."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from reconnect_hook.outcomes import RECOVERIES
from reconnect_hook.page.sources import FiringAlert
from reconnect_hook.page.strips import Run
from reconnect_hook.page.watching import Watch, Watched
from reconnect_hook.state.history import Attempt, Paused, Present, Remembered, Waiting
from reconnect_hook.state.probes import Probed, ProbeOutcome
from whatsapp.channels import channel_key

_FAILING = 3  # repairs in a row, as in the rule WhatsAppReconnectFailing


class Kind(enum.StrEnum):
    """How a channel is, the most urgent first."""

    NEEDS_SCAN = "needs-scan"
    FAILING = "failing"
    DISCONNECTED = "disconnected"
    SILENT = "silent"
    NEVER_HEARD = "never-heard"
    UNKNOWN = "unknown"
    CONNECTED = "connected"

    @property
    def rank(self) -> int:
        """The place in that order."""
        return _ORDER.index(self)

    @property
    def needs_somebody(self) -> bool:
        """Whether a person has to act."""
        return self in {Kind.NEEDS_SCAN, Kind.FAILING}

    @property
    def is_trouble(self) -> bool:
        """Whether anything is wrong that is known."""
        return self not in {Kind.CONNECTED, Kind.UNKNOWN}


_ORDER = list(Kind)


@dataclass(frozen=True, slots=True)
class Mark:
    """A repair that ended: ``quarter`` as in current_quarter(), and whether it helped."""

    quarter: int
    helped: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A channel; two that are equal look the same. Times are Unix seconds."""

    gateway: str
    key: str
    channel: str
    kind: Kind
    said: str | None
    """What the gateway says of it."""
    alerts: tuple[FiringAlert, ...]
    last_message: float | None
    threshold: float | None
    waiting: Waiting | None
    """The repair that is queued or under way."""
    paused: Paused | None
    failures: int
    last: Attempt | None
    """The last repair that ended."""
    first_quarter: int
    """The number of the quarter of an hour with which the strip begins."""
    strip: tuple[Run, ...]
    marks: tuple[Mark, ...]
    probed: Probed | None = None
    """How it answered when it was last asked whether it is alive."""
    asked: bool = False
    """Whether it is being asked now."""

    @property
    def id(self) -> str:
        """Tells the channel from all others of all gateways, see row_id()."""
        return f"{self.gateway} {self.key}"

    @property
    def is_proved_dead(self) -> bool:
        """Whether it did not answer when it was last asked, and no repair has helped since."""
        if self.probed is None or self.probed.outcome is not ProbeOutcome.FAILED:
            return False
        last = self.last
        return last is None or last.outcome not in RECOVERIES or last.finished_at < self.probed.at


def row_id(gateway: str, channel: str) -> str:
    """Return the id of a channel's row, by any spelling of it."""
    # No key holds a blank, so that no two pairs have one id.
    return f"{gateway} {channel_key(channel)}"


def judge(key: str, watch: Watch | None, present: Present | None, *, scanned: bool) -> Kind:
    """Return how a channel is; ``scanned`` where its QR code was scanned a moment ago."""
    watched = watch.channels.get(key) if watch else None
    remembered = present.remembered.get(key) if present else None
    # What the gateway has just said to the QR call is newer than what Prometheus has.
    connected = True if scanned else watched.connected if watched else None
    if not scanned and _needs_scan(watched, remembered, watch):
        return Kind.NEEDS_SCAN
    if connected is None:
        return Kind.UNKNOWN
    heard = connected and _is_heard(watched, watch)
    if remembered and remembered.failures >= _FAILING and not heard and not scanned:
        return Kind.FAILING
    if not connected:
        return Kind.DISCONNECTED
    if watched and watch and watched.last_message is not None and watched.threshold is not None:
        return Kind.CONNECTED if heard else Kind.SILENT
    alerts = watch.alerts.get(key, ()) if watch else ()
    if any(alert.name == "WhatsAppChannelNeverHeard" for alert in alerts):
        return Kind.NEVER_HEARD
    return Kind.CONNECTED


def _needs_scan(
    watched: Watched | None, remembered: Remembered | None, watch: Watch | None
) -> bool:
    if watched and watched.status == "qr_required":
        return True
    # The gateway of a zombie says "connected" while a QR code waits: a message proves more.
    return bool(
        remembered
        and remembered.qr_required
        and not (watched and watched.connected and _is_heard(watched, watch))
    )


def _is_heard(watched: Watched | None, watch: Watch | None) -> bool:
    if watched is None or watch is None or watched.last_message is None:
        return False
    return watched.threshold is None or watch.at - watched.last_message <= watched.threshold
