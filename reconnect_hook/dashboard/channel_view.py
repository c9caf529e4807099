"""One line of the overview: what is known of a channel, judged."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flask_babel import lazy_gettext as _

from reconnect_hook.dashboard.prometheus import ChannelMetrics, FiringAlert, GatewayReadings
from reconnect_hook.dashboard.timeline import (
    QUARTER_SECONDS,
    QUARTERS,
    HourCounts,
    TimelineSpan,
    TimelineState,
)
from reconnect_hook.history import Attempt, Paused, Present, Remembered, RepairHistory, Waiting
from reconnect_hook.models import FAILURES, RECOVERIES, ProbeOutcome
from reconnect_hook.probe_limits import Probed
from zapwatch.channels import Status, channel_key

GONE_ALERT = "WhatsAppChannelGone"
_FAILING = 3  # repairs in a row, as in the rule WhatsAppReconnectFailing


class ChannelHealth(enum.StrEnum):
    """How a channel is, the most urgent first."""

    NEEDS_SCAN = "needs-scan"
    FAILING = "failing"
    GONE = "gone"
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
    def needs_attention(self) -> bool:
        """Whether a person has to act."""
        return self in {ChannelHealth.NEEDS_SCAN, ChannelHealth.FAILING, ChannelHealth.GONE}

    @property
    def is_problem(self) -> bool:
        """Whether anything is wrong that is known."""
        return self not in {ChannelHealth.CONNECTED, ChannelHealth.UNKNOWN}


_ORDER = list(ChannelHealth)


@dataclass(frozen=True, slots=True)
class RepairMark:
    """A repair that ended: ``quarter`` as quarter_at() numbers it, and whether it helped."""

    quarter: int
    helped: bool


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel; two that are equal look the same. Times are Unix seconds."""

    gateway: str
    key: str
    channel: str
    kind: ChannelHealth
    said: str | None
    """What the gateway says of it."""
    alerts: tuple[FiringAlert, ...] | None
    """None where Prometheus does not answer."""
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
    strip: tuple[TimelineSpan, ...]
    strip_marks: tuple[RepairMark, ...]
    probed: Probed | None = None
    """How it answered when it was last asked whether it is alive."""
    asked: bool = False
    """Whether it is being asked now."""
    unattended: bool = False
    """Whether no alert can begin a repair."""
    has_state: bool = True
    """Whether the hook's state could be read; else nothing is known of repairs and pauses."""
    by_activity: bool = False
    """Whether its age begins with the first look where no message was seen since."""

    @property
    def needs_attention(self) -> bool:
        """Whether a person has to act."""
        unattended = self.unattended and self.kind.is_problem
        return self.kind.needs_attention or unattended or self.is_delivery_broken

    @property
    def is_delivery_broken(self) -> bool:
        """Whether its last probe found that its messages do not arrive, and none has since."""
        if self.probed is None or self.probed.outcome is not ProbeOutcome.DELIVERY_BROKEN:
            return False
        return self.last_message is None or self.last_message < self.probed.at

    @property
    def is_down(self) -> bool:
        """Whether it is known to be disconnected now."""
        down = {ChannelHealth.DISCONNECTED, ChannelHealth.FAILING, ChannelHealth.NEEDS_SCAN}
        return self.kind in down and self.said not in {None, Status.CONNECTED}

    @property
    def id(self) -> str:
        """Tells the channel from all others of all gateways, see view_id()."""
        return f"{self.gateway} {self.key}"

    @property
    def is_proven_dead(self) -> bool:
        """Whether it did not answer when it was last asked, and no repair has helped since."""
        if self.probed is None or self.probed.outcome is not ProbeOutcome.FAILED:
            return False
        last = self.last
        return last is None or last.outcome not in RECOVERIES or last.finished_at < self.probed.at


def view_id(gateway: str, channel: str) -> str:
    """Return the id of a channel's row, by any spelling of it."""
    # No key holds a blank, so that no two pairs have one id.
    return f"{gateway} {channel_key(channel)}"


def classify(
    key: str, watch: GatewayReadings | None, present: Present | None, *, scanned: bool
) -> ChannelHealth:
    """Return how a channel is; ``scanned`` where its QR code was scanned a moment ago."""
    watched = watch.channels.get(key) if watch else None
    alerts = (watch.alerts or {}).get(key, ()) if watch else ()
    if watched is None and any(alert.name == GONE_ALERT for alert in alerts):
        return ChannelHealth.GONE
    remembered = present.remembered.get(key) if present else None
    # What the gateway has just said to the QR call is newer than what Prometheus has.
    connected = True if scanned else watched.connected if watched else None
    if not scanned and _needs_scan(watched, remembered, watch):
        return ChannelHealth.NEEDS_SCAN
    if connected is None:
        return ChannelHealth.UNKNOWN
    heard = connected and _is_heard(watched, watch)
    if remembered and remembered.failures >= _FAILING and not heard and not scanned:
        return ChannelHealth.FAILING
    if not connected:
        return ChannelHealth.DISCONNECTED
    if watched and watch and watched.last_message is not None and watched.threshold is not None:
        return ChannelHealth.CONNECTED if heard else ChannelHealth.SILENT
    if any(alert.name == "WhatsAppChannelNeverHeard" for alert in alerts):
        return ChannelHealth.NEVER_HEARD
    return ChannelHealth.CONNECTED


def _needs_scan(
    watched: ChannelMetrics | None, remembered: Remembered | None, watch: GatewayReadings | None
) -> bool:
    if watched and watched.status == "qr_required":
        return True
    # The gateway of a zombie says "connected" while a QR code waits: a message proves more.
    return bool(
        remembered
        and remembered.qr_required
        and not (watched and watched.connected and _is_heard(watched, watch))
    )


def _is_heard(watched: ChannelMetrics | None, watch: GatewayReadings | None) -> bool:
    if watched is None or watch is None or watched.last_message is None:
        return False
    return watched.threshold is None or watch.at - watched.last_message <= watched.threshold


CHART_HEIGHT = 100
"""The chart's units from its foot to the highest bar."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour of the chart: the heights of what was received, and of what was sent above it."""

    left: int
    received: float
    sent: float
    hour: HourCounts


@dataclass(frozen=True, slots=True)
class Chart:
    """The messages of up to a week, whole days of them."""

    bars: tuple[Bar, ...]
    most: int
    """Messages in the busiest hour."""
    received: int
    sent: int

    @property
    def days(self) -> int:
        """How many days it shows."""
        return len(self.bars) // 24


def strip_spans(row: ChannelView) -> tuple[TimelineSpan, ...]:
    """Return the strip to draw: a channel that is down now is down in the last quarter."""
    if not row.is_down:
        return row.strip
    last = QUARTERS - 1
    before = (
        replace(span, length=min(span.length, last - span.begin))
        for span in row.strip
        if span.begin < last
    )
    return (*before, TimelineSpan(TimelineState.DISCONNECTED, last, 1))


def strip_marks(row: ChannelView) -> list[tuple[int, bool]]:
    """Return where in the strip repairs ended, and whether they helped."""
    places = [(mark.quarter - row.first_quarter, mark.helped) for mark in row.strip_marks]
    return [(place, helped) for place, helped in places if 0 <= place < QUARTERS]


def strip_begin(row: ChannelView) -> int | None:
    """Return the first quarter of which anything is known, an hour ago at least; None: nothing."""
    known = [span.begin for span in strip_spans(row) if span.state is not TimelineState.UNKNOWN]
    known += [place for place, _helped in strip_marks(row)]
    return min([*known, QUARTERS - 4]) if known else None


def hours_in(row: ChannelView, state: TimelineState) -> float:
    """Return for how many hours of the last 24 the channel was in a state."""
    return sum(run.length for run in strip_spans(row) if run.state == state) / 4


def build_chart(hours: Sequence[HourCounts]) -> Chart | None:
    """Return what is to be drawn, from the first day with a count on; None where none has one."""
    counted = (i for i, hour in enumerate(hours) if (hour.received, hour.sent) != (None, None))
    first = next(counted, None)
    if first is None:
        return None
    shown = hours[-24 * math.ceil((len(hours) - first) / 24) :]
    totals = [(hour.received or 0) + (hour.sent or 0) for hour in shown]
    scale = CHART_HEIGHT / max([*totals, 1])
    bars = tuple(
        Bar(index, (hour.received or 0) * scale, (hour.sent or 0) * scale, hour)
        for index, hour in enumerate(shown)
    )
    return Chart(
        bars,
        round(max(totals)),
        round(sum(hour.received or 0 for hour in shown)),
        round(sum(hour.sent or 0 for hour in shown)),
    )


_OVERLAP_SECONDS = 60.0  # for what ended by the clock, and was committed later
_DAY = QUARTERS * QUARTER_SECONDS


class RecentRepairs:
    """Knows each channel's last repair, and all of the last 24 hours. For one thread."""

    def __init__(self, history: RepairHistory) -> None:
        self._history = history
        self._last: dict[str, Attempt] = {}
        self._today: dict[int, Attempt] = {}
        self._seen_until: float | None = None

    def refresh(self, at: float) -> None:
        """Read what has ended by ``at``, Unix seconds by the database's clock."""
        if self._seen_until is None:
            new = self._history.last_of_each() + self._history.ended_since(at - _DAY)
        else:
            new = self._history.ended_since(self._seen_until - _OVERLAP_SECONDS)
        for attempt in new:
            known = self._last.get(attempt.key)
            if known is None or known.id < attempt.id:
                self._last[attempt.key] = attempt
            self._today[attempt.id] = attempt
        self._seen_until = at
        for old in [one.id for one in self._today.values() if one.finished_at < at - _DAY]:
            del self._today[old]

    def last(self, key: str) -> Attempt | None:
        """Return the channel's last repair, None where there was none."""
        return self._last.get(key)

    def marks(self) -> dict[str, tuple[RepairMark, ...]]:
        """Return what to mark in the channels' strips: one mark a quarter of an hour at most."""
        helped: dict[str, dict[int, bool]] = {}
        for attempt in self._today.values():
            if attempt.outcome in RECOVERIES | FAILURES:
                quarter = math.ceil(attempt.finished_at / QUARTER_SECONDS)
                quarters = helped.setdefault(attempt.key, {})
                did = attempt.outcome in RECOVERIES
                quarters[quarter] = quarters.get(quarter, False) or did
        return {
            key: tuple(RepairMark(quarter, did) for quarter, did in sorted(quarters.items()))
            for key, quarters in helped.items()
        }


SHOWS = {
    "all": _("All channels"),
    "somebody": _("Need attention"),
    "trouble": _("Failing"),
    "paused": _("Auto-reconnect paused"),
}
"""What can be chosen to be shown."""

SORTS = {
    "urgency": _("By urgency"),
    "name": _("By name"),
    "message": _("By last message"),
    "repair": _("By last reconnection"),
}
"""And in which order."""


@dataclass(frozen=True, slots=True)
class ChannelFilter:
    """A choice; anything that is none falls back to the first."""

    search: str = ""
    gateway: str = ""
    """Empty for all of them."""
    show: str = "all"
    sort: str = "urgency"

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> ChannelFilter:
        """Return what a query string asks for."""
        show, sort = arguments.get("show", ""), arguments.get("sort", "")
        return cls(
            arguments.get("q", "")[:255],
            arguments.get("gateway", ""),
            show if show in SHOWS else "all",
            sort if sort in SORTS else "urgency",
        )

    @property
    def is_chosen(self) -> bool:
        """Whether it is another one than that of a first visit."""
        return self != ChannelFilter()

    def of(self, rows: Iterable[ChannelView]) -> list[ChannelView]:
        """Return the rows that are to be shown."""
        wanted = channel_key(self.search)
        found = [
            row
            for row in rows
            if wanted in row.key and self.gateway in {"", row.gateway} and self._shows(row)
        ]
        return sorted(found, key=self._order)

    def _shows(self, row: ChannelView) -> bool:
        match self.show:
            case "somebody":
                return row.needs_attention
            case "trouble":
                return row.kind.is_problem
            case "paused":
                return row.paused is not None
            case _:
                return True

    def _order(self, row: ChannelView) -> tuple[float, str, str]:
        match self.sort:
            case "name":
                return 0, row.key, row.gateway
            case "message":
                return row.last_message or 0, row.key, row.gateway
            case "repair":
                return -(row.last.finished_at if row.last else 0), row.key, row.gateway
            case _:
                return row.kind.rank, row.key, row.gateway


def count_by_health(rows: Iterable[ChannelView], blind: Collection[str] = ()) -> dict[str, int]:
    """Return how many channels need attention, have a problem, are connected, and are paused.

    ``unknown`` are those of ``blind`` gateways, which nobody can list: each other count but ``all``
    may be that much larger.
    """
    every = list(rows)
    return {
        "somebody": sum(row.needs_attention for row in every),
        "trouble": sum(row.kind.is_problem for row in every),
        "connected": sum(row.kind is ChannelHealth.CONNECTED for row in every),
        "paused": sum(row.paused is not None for row in every),
        "unknown": sum(row.kind is ChannelHealth.UNKNOWN and row.gateway in blind for row in every),
        "all": len(every),
    }
