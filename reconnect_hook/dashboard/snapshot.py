"""The snapshot that all pages share: read only while a page is open, once for all viewers."""

from __future__ import annotations

import enum
import logging
import secrets
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from flask import abort, request
from werkzeug.exceptions import NotFound

from reconnect_hook.dashboard.channel_view import (
    GONE_ALERT,
    ChannelView,
    RecentRepairs,
    classify,
    view_id,
)
from reconnect_hook.dashboard.qr import QrWatches
from reconnect_hook.dashboard.readings import (
    DirectReader,
    FiringAlert,
    GatewayReadings,
    Prometheus,
    SourceError,
    read_metrics,
)
from reconnect_hook.dashboard.timeline import (
    DayTimelines,
    DrawnStrips,
    MessageWeeks,
    Shares,
    first_quarter_at,
)
from reconnect_hook.history import Present
from reconnect_hook.supervisor import GatewayController, HookSupervisor
from zapwatch.alertmanager import AlertmanagerApi, AlertmanagerError
from zapwatch.channels import Status, is_usable_id, key_meant
from zapwatch.clock import Clock
from zapwatch.config import Settings
from zapwatch.config.readers import MessageSourceKind
from zapwatch.db import StateError
from zapwatch.messages.source import open_source


class UnnamedGatewayError(NotFound):
    """The request must name one of several gateways."""

    name = "there are several gateways: add ?gateway= and the name of one"


_LAG_LISTS = 6  # pauses between two lists, after which both sources know a channel


class GatewayPanel:
    """One gateway's controller and the page's readers of it."""

    def __init__(
        self,
        controller: GatewayController,
        prometheus: Prometheus,
        settings: Settings,
        before: GatewayPanel | None,
        clock: Clock | None,
    ) -> None:
        """``before`` is the panel of the gateway's earlier controller."""
        gateway, client = controller.gateway, controller.client
        self.name = gateway.name
        self.controller = controller
        is_counted = gateway.requests_per_month is not None
        self.watches = QrWatches(client, controller.actions.recheck, clock, is_counted=is_counted)
        self.ended: RecentRepairs = before.ended if before else RecentRepairs(controller.history)
        strips = DayTimelines(prometheus, self.name, clock=clock)
        self.strips: DayTimelines = before.strips if before else strips
        open_messages = partial(open_source, settings, gateway)
        self.direct = DirectReader(client, gateway, open_messages, clock=clock)
        # The listed channels: messages may be logged under another name of the channel.
        opened = partial(open_messages, self.direct.channels)
        self.weeks = MessageWeeks(gateway, opened, clock=clock)
        self._lists: dict[bool, GatewayReadings] = {}

    def with_other_list(self, seen: GatewayReadings, *, is_watched: bool) -> GatewayReadings:
        """Return readings with the channels that only the other source has listed lately.

        ``is_watched``: they are Prometheus', which may be older than the gateway's own list.
        """
        self._lists[is_watched] = seen
        other = self._lists.get(not is_watched, seen)
        is_old = abs(seen.at - other.at) > _LAG_LISTS * self.direct.pause
        return seen if is_old else replace(seen, channels={**other.channels, **seen.channels})

    def can_ask(self, name: str) -> bool:
        """Whether settings and gateway allow any probe of a channel."""
        return self.controller.probing.can_ask(self.controller.workers.channel_of(name))

    def number_of(self, name: str) -> str | None:
        """Return a channel's own number if the settings or the gateway have it."""
        controller = self.controller
        channel = controller.workers.channel_of(name)
        told = controller.workers.numbers.get(channel.key) or self.direct.numbers.get(channel.key)
        return controller.gateway.probe.echo_numbers.of(channel) or told


class GatewayPanels:
    """The panels of the supervisor's current gateways; thread-safe."""

    def __init__(
        self,
        supervisor: HookSupervisor,
        prometheus: Prometheus,
        settings: Settings,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.supervisor = supervisor
        self.settings = settings
        self._clock = clock
        self._prometheus = prometheus
        self._lock = threading.Lock()
        self._panels: dict[str, GatewayPanel] = {}

    @property
    def all(self) -> Mapping[str, GatewayPanel]:
        """The current gateways by name."""
        controllers = self.supervisor.controllers
        with self._lock:
            before = self._panels
            self._panels = {
                name: self._of(controller, before.get(name))
                for name, controller in controllers.items()
            }
            for name, panel in before.items():
                if panel is not self._panels.get(name):
                    panel.direct.close()
            return self._panels

    def _of(self, controller: GatewayController, before: GatewayPanel | None) -> GatewayPanel:
        if before is not None and before.controller is controller:
            return before
        return GatewayPanel(controller, self._prometheus, self.settings, before, self._clock)

    @property
    def several(self) -> bool:
        """Whether there is more than one gateway, so that texts name it."""
        return len(self.supervisor.controllers) > 1

    def of_request(self) -> GatewayPanel:
        """Return the gateway that the request names; a single gateway needs no name.

        Aborts with 404 if the name is unknown, or missing among several gateways.
        """
        panels = self.all
        name = request.args.get("gateway")
        if name is None:
            if len(panels) != 1:
                raise UnnamedGatewayError
            return next(iter(panels.values()))
        if name not in panels:
            abort(404)
        return panels[name]

    def controller(self) -> GatewayController:
        """Return the controller of the gateway that the request names; aborts as of_request()."""
        return self.of_request().controller

    def named(self, gateway: str) -> str | None:
        """Return the gateway's name for a URL, None if there is only one gateway."""
        return gateway if self.several else None


_log = logging.getLogger("reconnect_hook")

_FRESH_SECONDS = 2.0  # maximum age of a snapshot
_STALE_SECONDS = 10.0  # from this age on, wait for the next snapshot
_WAIT_SECONDS = 3.0
_STRIPS_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 5.0  # until a failed source is queried again
_ALERTMANAGER_SECONDS = 1.0  # timeout of Alertmanager
_GONE_HOURS = 74.0  # longest time that WhatsAppChannelGone can fire
_SAME_MESSAGE_SECONDS = 15.0  # newer messages are shown after this time


class Problem(enum.StrEnum):
    """A component that is unreachable or not working."""

    STATE = "state"
    PROMETHEUS = "prometheus"
    EXPORTER = "exporter"
    GATEWAY = "gateway"
    GATEWAY_RESTS = "gateway-rests"
    BUDGET = "budget"
    LOG = "log"
    ALERTMANAGER = "alertmanager"
    DELIVERY = "delivery"
    GATEWAY_UNKNOWN = "gateway-unknown"
    LEFT_OUT = "left-out"
    SETTINGS = "settings"


_ALERTED = {
    "WhatsAppAlertDeliveryFailing": Problem.DELIVERY,
    "WhatsAppGatewayUnknown": Problem.GATEWAY_UNKNOWN,
    "WhatsAppChannelsLeftOut": Problem.LEFT_OUT,
    "WhatsAppConfigReloadFailing": Problem.SETTINGS,
}
"""Problems that only a firing alert shows."""


class ActiveProblem(NamedTuple):
    """A problem, with the gateway's name if it is one of a single gateway."""

    problem: Problem
    gateway: str | None
    listed_at: float | None = None
    """For Problem.BUDGET: time of the list shown, Unix seconds."""


@dataclass(frozen=True, slots=True)
class DashboardSnapshot:
    """All channels at one point in time."""

    number: int = 0
    """Increases with each change that a page shows."""
    rows: Mapping[str, ChannelView] = field(default_factory=dict)
    """Rows by view_id()."""
    changed: Mapping[str, int] = field(default_factory=dict)
    """The number of the snapshot that last changed each row."""
    problems: tuple[ActiveProblem, ...] = ()
    problems_changed: int = 0
    """The number of the snapshot that last changed the problems."""
    blind: frozenset[str] = frozenset()
    """The gateways whose list is unavailable."""

    def problems_of(self, gateway: str) -> tuple[ActiveProblem, ...]:
        """Return the problems that concern a gateway's channels."""
        return tuple(one for one in self.problems if one.gateway in {None, gateway})

    def has_list(self, gateway: str) -> bool:
        """Whether a gateway's list is available."""
        return bool(self.number) and gateway not in self.blind

    def row(self, gateway: str, channel: str) -> ChannelView | None:
        """Return a channel's row, or None."""
        return self.rows.get(view_id(gateway, channel))

    def name_meant(self, gateway: str, name: str) -> str:
        """Return the gateway's own spelling of a channel's name, or the name if it is unknown.

        Raises AmbiguousNameError.
        """
        row = self.row(gateway, name)
        if row is None:
            mine = {one.key: one for one in self.rows.values() if one.gateway == gateway}
            row = mine.get(key_meant(name, mine) or "")
        return row.channel if row else name


class DashboardCache:
    """Keeps the snapshot fresh while pages are open; otherwise reads nothing."""

    def __init__(
        self,
        panels: GatewayPanels,
        prometheus: Prometheus,
        alertmanager: AlertmanagerApi,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.boot = secrets.token_hex(4)
        """Distinguishes this process's snapshot numbers from another's."""
        self.panels = panels
        self.prometheus = prometheus
        self.alertmanager = alertmanager
        self._strips: Mapping[str, DrawnStrips] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._ask_prometheus_at = self._ask_alertmanager_at = self._draw_at = float("-inf")
        self._alertmanager_answers = True
        self._forgotten: set[tuple[str, str]] = set()
        self._snapshot = DashboardSnapshot()
        self._condition = threading.Condition()
        self._begun_at = float("-inf")
        self._wanted_at = float("-inf")
        self._reading = False
        self._drawing: threading.Thread | None = None

    def look(self, *, now: bool = False) -> DashboardSnapshot:
        """Return a snapshot a few seconds old at most, or the last one if reading takes too long.

        ``now`` waits for a new snapshot, for a request that has just changed something.
        """
        called_at = self.clock.monotonic()
        wanted_at = called_at if now else called_at - _FRESH_SECONDS
        with self._condition:
            if self._begun_at < wanted_at:
                self._wanted_at = called_at
                if not self._reading:
                    threading.Thread(target=self._read, name="board", daemon=True).start()
                    self._reading = True  # only of a thread that could be started
                # A slightly old snapshot is returned without waiting.
                if now or self._begun_at < called_at - _STALE_SECONDS:
                    self._condition.wait_for(lambda: self._begun_at >= wanted_at, _WAIT_SECONDS)
            return self._snapshot

    def known(self, channel: str) -> ChannelView:
        """Return a channel's row at the request's gateway.

        Aborts with 404 if there is none, and with 503 as long as no list is available.
        """
        snapshot, gateway = self.look(), self.panels.of_request().name
        status = 404 if snapshot.has_list(gateway) else 503
        return snapshot.row(gateway, channel) or abort(status)

    def settle_channel(self) -> None:
        """Replace the channel in the request's path by the gateway's own spelling of it.

        Aborts with 404 if the id is unusable, and raises AmbiguousNameError.
        """
        arguments = request.view_args or {}
        if "channel" not in arguments:
            return
        if not is_usable_id(arguments["channel"]):
            abort(404)
        gateway = self.panels.of_request().name
        arguments["channel"] = self.look().name_meant(gateway, arguments["channel"])

    def forget(self, row: ChannelView) -> None:
        """Mute the alert that a channel has left the list; raise AlertmanagerError.

        Only Alertmanager stores the silence, for as long as the alert can fire.
        """
        labels = {"alertname": GONE_ALERT, "gateway": row.gateway, "channel": row.channel}
        comment = "removed on purpose, as confirmed on Zapwatch's page"
        self.alertmanager.mute(labels, comment, _GONE_HOURS, _ALERTMANAGER_SECONDS)

    def _read(self) -> None:
        while True:
            begun_at = self.clock.monotonic()
            try:
                snapshot = self._make(self._snapshot)
            except Exception:  # noqa: BLE001 - requests wait, and the next read may work
                _log.exception("the page failed: internal error")
                snapshot = self._snapshot
            with self._condition:
                self._snapshot = snapshot
                self._begun_at = begun_at
                self._condition.notify_all()
                if self._wanted_at <= begun_at:
                    self._reading = False
                    return

    def _make(self, before: DashboardSnapshot) -> DashboardSnapshot:
        panels = self.panels.all
        watched, firing = self._ask_prometheus(panels)
        rows: dict[str, ChannelView] = {}
        found = {
            ActiveProblem(_ALERTED[one.name], one.labels.get("gateway"))
            for one in firing
            if one.name in _ALERTED
        }
        blind: set[str] = set()
        if watched is None:
            found.add(ActiveProblem(Problem.PROMETHEUS, None))
            for panel in panels.values():
                panel.direct.begin()  # in parallel, since each may be slow
        if not self._does_alertmanager_answer():
            found.add(ActiveProblem(Problem.ALERTMANAGER, None))
        if watched and any(map(_gone, watched.values())):
            # If Alertmanager fails, the channels muted before still count.
            with suppress(AlertmanagerError):
                self._forgotten = self.alertmanager.muted(GONE_ALERT, _ALERTMANAGER_SECONDS)
        for panel in panels.values():
            present, seen = _read_state(panel), watched[panel.name] if watched else None
            is_watched = seen is not None and seen.gateway_up is not None
            if seen is not None and not is_watched:
                found.add(ActiveProblem(Problem.EXPORTER, panel.name))
            if not is_watched:
                seen = _read_gateway(panel, seen, present)
                if panel.controller.gateway.requests_per_month is not None:
                    at = seen.at if seen else None
                    found.add(ActiveProblem(Problem.BUDGET, panel.name, at))
            if seen is None or not seen.gateway_up:
                blind.add(panel.name)
            else:
                seen = panel.with_other_list(seen, is_watched=is_watched)
            found |= _find_problems(panel.name, present, seen)
            # Without alerts, no repair starts automatically.
            unattended = not (is_watched and self._alertmanager_answers)
            rows |= self._rows(
                panel, before, present, seen, unattended=unattended, is_deaf=watched is None
            )
        self._names = {name: self._names.get(name, {}) for name in panels}
        order = list(Problem)
        problems = tuple(
            sorted(found, key=lambda one: (order.index(one.problem), one.gateway or ""))
        )
        changed = {
            key: before.changed[key] if before.rows.get(key) == row else before.number + 1
            for key, row in rows.items()
        }
        since = before.problems_changed if problems == before.problems else before.number + 1
        same = rows == before.rows and problems == before.problems and blind == before.blind
        number = before.number if same and before.number else before.number + 1
        return DashboardSnapshot(number, rows, changed, problems, since, frozenset(blind))

    def _ask_prometheus(
        self, panels: Mapping[str, GatewayPanel]
    ) -> tuple[Mapping[str, GatewayReadings] | None, Iterable[FiringAlert]]:
        if self.clock.monotonic() < self._ask_prometheus_at:
            return None, ()
        try:
            watched, firing = read_metrics(self.prometheus, panels, self.clock.time())
        except SourceError:
            self._ask_prometheus_at = self.clock.monotonic() + _ASK_AGAIN_SECONDS
            return None, ()
        is_drawing = self._drawing is not None and self._drawing.is_alive()
        if self.clock.monotonic() >= self._draw_at and not is_drawing:
            drawing = threading.Thread(
                target=self._draw, args=(panels,), name="strips", daemon=True
            )
            drawing.start()
            self._drawing = drawing
        return watched, firing

    def _draw(self, panels: Mapping[str, GatewayPanel]) -> None:
        """Refresh the strips in a separate thread: a day may take Prometheus seconds."""
        try:
            self._strips = {
                name: DrawnStrips(panel.strips.refresh(), panel.strips.shares())
                for name, panel in panels.items()
            }
            self._draw_at = self.clock.monotonic() + _STRIPS_SECONDS
        except SourceError:
            self._draw_at = self.clock.monotonic() + _ASK_AGAIN_SECONDS

    def _does_alertmanager_answer(self) -> bool:
        if self.clock.monotonic() >= self._ask_alertmanager_at:
            self._alertmanager_answers = self.alertmanager.answers(_ALERTMANAGER_SECONDS)
            self._ask_alertmanager_at = self.clock.monotonic() + _ASK_AGAIN_SECONDS
        return self._alertmanager_answers

    def _rows(
        self,
        panel: GatewayPanel,
        before: DashboardSnapshot,
        present: Present | None,
        watched: GatewayReadings | None,
        *,
        unattended: bool,
        is_deaf: bool,
    ) -> dict[str, ChannelView]:
        names = self._names[panel.name] = self._known(panel.name, present, watched)
        marks = panel.ended.marks()
        first_quarter = first_quarter_at(self.clock.time())
        drawn = self._strips.get(panel.name, DrawnStrips({}, {}))
        rows = {}
        for key, channel in names.items():
            seen = watched.channels.get(key) if watched else None
            was = before.rows.get(view_id(panel.name, key))
            row = ChannelView(
                panel.name,
                key,
                channel,
                classify(key, watched, present, scanned=panel.watches.scanned(key)),
                seen.status if seen else None,
                watched.alerts.get(key, ()) if watched and watched.alerts is not None else None,
                _steady(seen.last_message if seen else None, was.last_message if was else None),
                seen.threshold if seen else None,
                present.waiting.get(key) if present else None,
                present.paused.get(key) if present else None,
                present.remembered[key].failures if present and key in present.remembered else 0,
                panel.ended.last(key),
                first_quarter,
                drawn.quarters.get(key, {}),
                marks.get(key, ()),
                Shares() if is_deaf else drawn.shares.get(key, Shares()),
                present.probed.get(key) if present else None,
                present is not None and key in present.asked,
                unattended,
                present is not None,
                panel.controller.gateway.messages is MessageSourceKind.ACTIVITY,
            )
            rows[row.id] = row
        return rows

    def _known(
        self, gateway: str, present: Present | None, watched: GatewayReadings | None
    ) -> dict[str, str]:
        """Return the channels' ids by key; without a list, also those known before."""
        listed = {k: w.channel for k, w in watched.channels.items()} if watched else {}
        for key, channel in _gone(watched).items():
            if (gateway, channel) not in self._forgotten:
                listed.setdefault(key, channel)
        if watched and watched.gateway_up and listed:
            paused = present.paused if present else {}
            return {key: one.channel for key, one in paused.items()} | listed
        remembered = present.remembered if present else {}
        before = self._names.get(gateway, {})
        return before | {key: one.channel for key, one in remembered.items()} | listed


def _read_state(panel: GatewayPanel) -> Present | None:
    try:
        present = panel.controller.history.present()
        panel.ended.refresh(present.at)
    except StateError as error:
        _log.warning("state: %s", error)
        return None
    return present


def _read_gateway(
    panel: GatewayPanel, watched: GatewayReadings | None, present: Present | None
) -> GatewayReadings | None:
    """Return readings from the gateway itself, with Prometheus' alerts.

    For a channel whose repair ended after the list, the status that the repair found counts.
    """
    found = panel.direct.readings()
    if found is None:
        return watched
    channels = dict(found.channels)
    for key, remembered in (present.remembered if present else {}).items():
        last = panel.ended.last(key)
        status = remembered.last_status
        if last and status and key in channels and last.finished_at > found.at:
            channels[key] = replace(
                channels[key], status=status, connected=status == Status.CONNECTED
            )
    return replace(found, channels=channels, alerts=watched.alerts if watched else None)


def _gone(watched: GatewayReadings | None) -> dict[str, str]:
    """Return the channels (key: id) for which GONE_ALERT fires."""
    alerts = (watched.alerts or {}) if watched else {}
    return {
        key: one.labels["channel"]
        for key, some in alerts.items()
        for one in some
        if one.name == GONE_ALERT
    }


def _find_problems(
    gateway: str, present: Present | None, watched: GatewayReadings | None
) -> set[ActiveProblem]:
    found = {
        Problem.GATEWAY: watched is not None and watched.gateway_up is False,
        Problem.GATEWAY_RESTS: present is not None and present.gateway_rests_until is not None,
        Problem.LOG: watched is not None and watched.log_up is False,
    }
    state = set() if present else {ActiveProblem(Problem.STATE, None)}
    return state | {ActiveProblem(problem, gateway) for problem, there in found.items() if there}


def _steady(now: float | None, before: float | None) -> float | None:
    """Return the time of the last message, unchanged within _SAME_MESSAGE_SECONDS."""
    if now is not None and before is not None and 0 <= now - before < _SAME_MESSAGE_SECONDS:
        return before
    return now
