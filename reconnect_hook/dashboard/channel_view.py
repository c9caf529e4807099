"""One row of the overview: the classified state of a channel, its strip and its chart."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flask_babel import LazyString
from flask_babel import lazy_gettext as _

from reconnect_hook.dashboard.readings import ChannelMetrics, FiringAlert, GatewayReadings
from reconnect_hook.dashboard.timeline import (
    QUARTER_SECONDS,
    QUARTERS,
    HourCounts,
    Shares,
    TimelineSpan,
    TimelineState,
    quarter_at,
    spans_of,
)
from reconnect_hook.history import Attempt, Paused, Present, RepairHistory, Waiting
from reconnect_hook.models import FAILURES, RECOVERIES, ProbeOutcome
from reconnect_hook.probe_limits import Probed
from zapwatch.channels import Status, channel_key, folded

GONE_ALERT = "WhatsAppChannelGone"
_FAILING = 3  # consecutive failed repairs, as in the rule WhatsAppReconnectFailing


class ChannelHealth(enum.StrEnum):
    """Health of a channel, the most urgent first."""

    NEEDS_SCAN = "needs-scan"
    FAILING = "failing"
    GONE = "gone"
    DISCONNECTED = "disconnected"
    SILENT = "silent"
    NEVER_HEARD = "never-heard"
    UNKNOWN = "unknown"
    CONNECTED = "connected"

    @property
    def needs_attention(self) -> bool:
        """Whether a person must act."""
        return self in {ChannelHealth.NEEDS_SCAN, ChannelHealth.FAILING, ChannelHealth.GONE}

    @property
    def is_problem(self) -> bool:
        """Whether a fault is known; UNKNOWN is none."""
        return self not in {ChannelHealth.CONNECTED, ChannelHealth.UNKNOWN}


_ORDER = list(ChannelHealth)


@dataclass(frozen=True)
class ChannelView:
    """A channel as rendered: equal views render the same. Times are Unix seconds."""

    gateway: str
    key: str
    channel: str
    kind: ChannelHealth
    said: str | None
    """The status that the gateway reports."""
    alerts: tuple[FiringAlert, ...] | None
    """None if Prometheus does not answer."""
    last_message: float | None
    threshold: float | None
    waiting: Waiting | None
    """The repair that is queued or in progress."""
    paused: Paused | None
    failures: int
    last: Attempt | None
    """The last finished repair."""
    first_quarter: int
    """The strip's first quarter of an hour, as numbered by quarter_at()."""
    strip: Mapping[int, TimelineState]
    """The strip's known quarters, by the same number."""
    repairs: tuple[tuple[int, bool], ...]
    """Finished repairs: the quarter, as numbered by quarter_at(), and whether it helped."""
    shares: Shares
    probed: Probed | None = None
    """The last probe."""
    asked: bool = False
    """Whether a probe is due or in progress."""
    unattended: bool = False
    """Whether no alert can start a repair."""
    has_state: bool = True
    """Whether the hook's state was read; otherwise repairs and pauses are unknown."""
    by_activity: bool = False
    """Whether ``last_message`` is the time of the first look if no message came since."""

    @property
    def needs_attention(self) -> bool:
        """Whether a person must act."""
        unattended = self.unattended and self.kind.is_problem
        return self.kind.needs_attention or unattended or self.is_delivery_broken

    @property
    def is_delivery_broken(self) -> bool:
        """Whether its last probe found the delivery broken, and no message arrived since."""
        if self.probed is None or self.probed.outcome is not ProbeOutcome.DELIVERY_BROKEN:
            return False
        return self.last_message is None or self.last_message < self.probed.at

    @property
    def is_down(self) -> bool:
        """Whether it is known to be disconnected."""
        down = {ChannelHealth.DISCONNECTED, ChannelHealth.FAILING, ChannelHealth.NEEDS_SCAN}
        return self.kind in down and self.said not in {None, Status.CONNECTED}

    @property
    def id(self) -> str:
        """Unique over all gateways; see view_id()."""
        return f"{self.gateway} {self.key}"

    @property
    def is_proven_dead(self) -> bool:
        """Whether its last probe failed and no repair has recovered it since."""
        if self.probed is None or self.probed.outcome is not ProbeOutcome.FAILED:
            return False
        last = self.last
        return last is None or last.outcome not in RECOVERIES or last.finished_at < self.probed.at

    @cached_property
    def strip_spans(self) -> tuple[TimelineSpan, ...]:
        """The strip to draw; if the channel is down now, so is its last quarter."""
        last = self.first_quarter + QUARTERS - 1
        now = {last: TimelineState.DISCONNECTED} if self.is_down else {}
        return spans_of({**self.strip, **now}, self.first_quarter)

    @property
    def strip_marks(self) -> list[tuple[int, bool]]:
        """(Position in the strip, helped) of each finished repair."""
        places = [(quarter - self.first_quarter, helped) for quarter, helped in self.repairs]
        return [(place, helped) for place, helped in places if 0 <= place < QUARTERS]

    @property
    def strip_begin(self) -> int | None:
        """The first known quarter, at the latest the one an hour ago; None if all unknown."""
        known = [one.begin for one in self.strip_spans if one.state is not TimelineState.UNKNOWN]
        known += [place for place, _helped in self.strip_marks]
        return min([*known, QUARTERS - 4]) if known else None

    def hours_in(self, state: TimelineState) -> float:
        """Return how many of the last 24 hours the channel spent in a state."""
        return sum(run.length for run in self.strip_spans if run.state == state) / 4


def view_id(gateway: str, channel: str) -> str:
    """Return the id of a channel's row."""
    # Gateways' names hold no blank, so the id is unambiguous.
    return f"{gateway} {channel_key(channel)}"


def classify(
    key: str, watch: GatewayReadings | None, present: Present | None, *, scanned: bool
) -> ChannelHealth:
    """Return the channel's health; ``scanned``: its QR code was scanned a moment ago."""
    watched = watch.channels.get(key) if watch else None
    found = (watch.alerts or {}).get(key, ()) if watch else ()
    alerts = {alert.name for alert in found}
    if watched is None and GONE_ALERT in alerts:
        return ChannelHealth.GONE
    remembered = present.remembered.get(key) if present else None
    # The QR call's answer is newer than Prometheus' sample.
    connected = True if scanned else watched.connected if watched else None
    # A zombie is listed as connected while a QR code waits. A message proves that it works, but
    # not an earlier one than the probe that found it dead: the alerts know.
    heard = bool(connected) and _is_heard(watched, watch)
    if not scanned:
        if watched and watched.status == "qr_required":
            return ChannelHealth.NEEDS_SCAN
        waits = remembered is not None and remembered.qr_required
        if waits and (not heard or "WhatsAppChannelNeedsQrScan" in alerts):
            return ChannelHealth.NEEDS_SCAN
    if connected is None:
        return ChannelHealth.UNKNOWN
    fails = remembered is not None and remembered.failures >= _FAILING and not scanned
    if fails and (not heard or "WhatsAppReconnectFailing" in alerts):
        return ChannelHealth.FAILING
    if not connected:
        return ChannelHealth.DISCONNECTED
    if watched and watch and watched.last_message is not None and watched.threshold is not None:
        return ChannelHealth.CONNECTED if heard else ChannelHealth.SILENT
    if "WhatsAppChannelNeverHeard" in alerts:
        return ChannelHealth.NEVER_HEARD
    return ChannelHealth.CONNECTED


def _is_heard(watched: ChannelMetrics | None, watch: GatewayReadings | None) -> bool:
    if watched is None or watch is None or watched.last_message is None:
        return False
    return watched.threshold is None or watch.at - watched.last_message <= watched.threshold


@dataclass(frozen=True, slots=True)
class Chart:
    """Message counts of up to a week, in whole days."""

    hours: Sequence[HourCounts]
    most: float
    """Messages in the busiest hour; a whole number, as all counts here."""
    received: float
    sent: float

    @property
    def days(self) -> int:
        """Number of days shown."""
        return len(self.hours) // 24


def build_chart(hours: Sequence[HourCounts]) -> Chart | None:
    """Return the chart from the first day with a count on; None without any count."""
    counted = (i for i, hour in enumerate(hours) if (hour.received, hour.sent) != (None, None))
    first = next(counted, None)
    if first is None:
        return None
    # Prometheus extrapolates, so its counts have fractions.
    shown = [
        HourCounts(hour.end, round(hour.received or 0), round(hour.sent or 0))
        for hour in hours[-24 * math.ceil((len(hours) - first) / 24) :]
    ]
    return Chart(
        shown,
        max((hour.received or 0) + (hour.sent or 0) for hour in shown),
        sum(hour.received or 0 for hour in shown),
        sum(hour.sent or 0 for hour in shown),
    )


_OVERLAP_SECONDS = 60.0  # for repairs committed after their ``finished_at``
_DAY = QUARTERS * QUARTER_SECONDS


class RecentRepairs:
    """Each channel's last repair, and all repairs of the last 24 hours. Not thread-safe."""

    def __init__(self, history: RepairHistory) -> None:
        self._history = history
        self._last: dict[str, Attempt] = {}
        self._today: dict[int, Attempt] = {}
        self._seen_until: float | None = None

    def refresh(self, at: float) -> None:
        """Read the repairs finished by ``at``, Unix seconds by the database's clock."""
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
        """Return the channel's last repair, or None."""
        return self._last.get(key)

    def marks(self) -> dict[str, tuple[tuple[int, bool], ...]]:
        """Return the strips' marks by channel key, one per quarter of an hour at most."""
        helped: dict[str, dict[int, bool]] = {}
        for attempt in self._today.values():
            if attempt.outcome in RECOVERIES | FAILURES:
                quarter = quarter_at(attempt.finished_at)
                quarters = helped.setdefault(attempt.key, {})
                did = attempt.outcome in RECOVERIES
                quarters[quarter] = quarters.get(quarter, False) or did
        return {key: tuple(sorted(quarters.items())) for key, quarters in helped.items()}


SHOWS: dict[str, tuple[LazyString, Callable[[ChannelView], bool]]] = {
    "all": (_("All channels"), lambda _row: True),
    "attention": (_("Need attention"), lambda row: row.needs_attention),
    "trouble": (_("Failing"), lambda row: row.kind.is_problem),
    "paused": (_("Auto-reconnect paused"), lambda row: row.paused is not None),
}
"""Choices of ``?show=``: label, and whether a row is shown."""

SORTS: dict[str, tuple[LazyString, Callable[[ChannelView], float]]] = {
    "urgency": (_("By urgency"), lambda row: _ORDER.index(row.kind)),
    "name": (_("By name"), lambda _row: 0),
    "message": (_("By last message"), lambda row: row.last_message or 0),
    "repair": (
        _("By last reconnection"),
        lambda row: -(row.last.finished_at if row.last else 0),
    ),
}
"""Choices of ``?sort=``: label, and a row's place; rows in the same place are sorted by name."""


@dataclass(frozen=True, slots=True)
class ChannelFilter:
    """Filter and order of the rows; unknown values fall back to the first choice."""

    search: str = ""
    gateway: str = ""
    """Empty for all gateways."""
    show: str = "all"
    sort: str = "urgency"

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> ChannelFilter:
        """Return the filter that a query string describes."""
        show, sort = arguments.get("show", ""), arguments.get("sort", "")
        return cls(
            arguments.get("q", "")[:255],
            arguments.get("gateway", ""),
            show if show in SHOWS else "all",
            sort if sort in SORTS else "urgency",
        )

    @property
    def is_chosen(self) -> bool:
        """Whether it differs from the default."""
        return self != ChannelFilter()

    def of(self, rows: Iterable[ChannelView]) -> list[ChannelView]:
        """Return the matching rows in order."""
        wanted = folded(self.search)
        (_label, is_shown), (_name, place) = SHOWS[self.show], SORTS[self.sort]
        found = [
            row
            for row in rows
            if wanted in folded(row.key) and self.gateway in {"", row.gateway} and is_shown(row)
        ]
        return sorted(found, key=lambda row: (place(row), folded(row.key), row.id))


def count_by_health(rows: Iterable[ChannelView], blind: Collection[str] = ()) -> dict[str, int]:
    """Return how many channels need attention, have a problem, are connected, and are paused.

    ``unknown`` counts those of ``blind`` gateways, whose list is unavailable: every other count
    except ``all`` may be that much larger.
    """
    every = list(rows)
    return {
        "attention": sum(row.needs_attention for row in every),
        "trouble": sum(row.kind.is_problem for row in every),
        "connected": sum(row.kind is ChannelHealth.CONNECTED for row in every),
        "paused": sum(row.paused is not None for row in every),
        "unknown": sum(row.kind is ChannelHealth.UNKNOWN and row.gateway in blind for row in every),
        "all": len(every),
    }
