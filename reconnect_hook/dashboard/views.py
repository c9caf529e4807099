"""The pages: overview, channel, notifications."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sized
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

from flask import (
    Blueprint,
    Response,
    abort,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext as _
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import LATE_SECONDS, Heartbeat, as_json
from reconnect_hook.dashboard import channel_view
from reconnect_hook.dashboard.channel_view import (
    ChannelFilter,
    ChannelHealth,
    ChannelView,
    count_by_health,
    view_id,
)
from reconnect_hook.dashboard.i18n import locale
from reconnect_hook.dashboard.readings import SourceError, quote_label
from reconnect_hook.dashboard.snapshot import (
    ActiveProblem,
    DashboardCache,
    DashboardSnapshot,
    GatewayPanel,
    Problem,
)
from reconnect_hook.dashboard.timeline import WeekHistory, with_messages
from reconnect_hook.history import episodes
from reconnect_hook.message_audit import LastAudit
from reconnect_hook.models import RepairCause
from zapwatch.alertmanager import AlertmanagerError, ways_to_people
from zapwatch.channels import channel_key
from zapwatch.db import StateError

_T = TypeVar("_T")
_U = TypeVar("_U")


def error_page(status: int, title: str, text: str) -> Response:
    """Return an error page with this HTTP status."""
    page = render_template("error.html", title=title, text=text, logged_in=False)
    return make_response(page, status)


class FragmentCache:
    """Rendered HTML by name, LRU with ``most`` entries; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._pieces: OrderedDict[tuple[str, str], tuple[object, Markup]] = OrderedDict()

    def get(self, name: tuple[str, str], version: object, render: Callable[[], str]) -> Markup:
        """Return the HTML of this version; render it if another version or none is cached."""
        # Also while it is rendered, or all viewers of a change would render it.
        with self._lock:
            known, html = self._pieces.get(name, (None, Markup("")))
            if known != version:
                html = Markup(render())  # noqa: S704 - rendered by a template
                self._pieces[name] = version, html
                self._pieces.move_to_end(name)
                while len(self._pieces) > self._most:
                    self._pieces.popitem(last=False)
        return html


def _reader() -> str:
    """Return the request's language and path prefix, on which rendered HTML depends."""
    return locale() + request.script_root


_MOST_ROWS = 1000  # shown at once: a page of 10,000 takes the processor from the repairs
_KEPT_ROWS = 10_000
_DIGITS = 18


class OverviewPage:
    """The overview and its live updates."""

    def __init__(self, board: DashboardCache) -> None:
        self._board = board
        self._panels = board.panels
        self._kept = FragmentCache(_KEPT_ROWS)

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/", "overview", self._page)
        routes.add_url_rule("/live/channels", "live_overview", self._live)

    def _page(self) -> str:
        snapshot = self._board.look()
        listing = ChannelFilter.parse(request.args)
        found = listing.of(snapshot.rows.values())
        reader = _reader()
        return render_template(
            "overview.html",
            logged_in=True,
            tag=self._tag(snapshot),
            listing=listing,
            **_totals(snapshot, found),
            rows=Markup("").join(self._row(snapshot, row, reader) for row in found[:_MOST_ROWS]),
        )

    def _live(self) -> Response:
        """Return the changes since a snapshot, or 204 without any."""
        snapshot = self._board.look()
        boot, _dot, since = request.args.get("since", "").partition(".")
        known = -1
        if boot == self._board.boot and since.isdecimal() and len(since) <= _DIGITS:
            known = int(since)
        if known == snapshot.number:
            return Response(status=204)
        found = ChannelFilter.parse(request.args).of(snapshot.rows.values())
        rows = found[:_MOST_ROWS]
        changed = [row for row in rows if snapshot.changed[row.id] > known]
        reader = _reader()
        body = {
            "tag": self._tag(snapshot),
            "head": render_template("head.html", **_totals(snapshot, found)),
            "order": [row.id for row in rows],
            "rows": {row.id: self._row(snapshot, row, reader) for row in changed},
        }
        return as_json(200, body)

    def _tag(self, snapshot: DashboardSnapshot) -> str:
        return f"{self._board.boot}.{snapshot.number}"

    def _row(self, snapshot: DashboardSnapshot, row: ChannelView, reader: str) -> Markup:
        return self._kept.get(
            (reader, row.id),
            (snapshot.changed[row.id], self._panels.several),
            lambda: render_template("row.html", row=row),
        )


def _totals(snapshot: DashboardSnapshot, found: Sized) -> Mapping[str, object]:
    """Return the variables of head.html."""
    return {
        "snapshot": snapshot,
        "found": len(found),
        "most": _MOST_ROWS,
        "counts": count_by_health(snapshot.rows.values(), snapshot.blind),
        "has_state": all(one.problem is not Problem.STATE for one in snapshot.problems),
    }


PAUSES = {"1": 3600.0, "8": 8 * 3600.0, "": None}
"""Selectable pauses in seconds, by the form's hours; None has no end."""

_JUST_SECONDS = 900.0  # that the outcome of a manual repair is shown in full
_EPISODES = 30
_WEEK_DAYS = 7


class ChannelPage:
    """A channel's page, its live updates and its actions."""

    def __init__(self, board: DashboardCache) -> None:
        self._board = board
        self._panels = board.panels
        self._weeks = WeekHistory(board.prometheus, clock=board.clock)

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes. A channel id comes last in its path, since it may hold slashes."""
        add = routes.add_url_rule
        add("/channels/<channel:channel>", "channel", self._page)
        add("/live/channel/<channel:channel>", "live_channel", self._live)
        add("/reconnect/<channel:channel>", "reconnect", self._reconnect, methods=["POST"])
        add("/ask/<channel:channel>", "ask", self._ask, methods=["POST"])
        add("/audit/<channel:channel>", "audit", self._audit, methods=["POST"])
        add("/replay/<channel:channel>", "replay", self._replay, methods=["POST"])
        add("/pause/<channel:channel>", "pause", self._pause, methods=["POST"])
        add("/resume/<channel:channel>", "resume", self._resume, methods=["POST"])
        add("/forget/<channel:channel>", "forget", self._forget, methods=["POST"])

    def _page(self, channel: str) -> str:
        panel, snapshot = self._panels.of_request(), self._board.look()
        if snapshot.row(panel.name, channel) is None and snapshot.has_list(panel.name):
            abort(404)
        tag, facts = self._tag(snapshot, panel, channel), self._facts(snapshot, panel, channel)
        return render_template("channel.html", logged_in=True, tag=tag, **facts)

    def _live(self, channel: str) -> Response:
        """Return the page's parts if anything has changed, else 204."""
        panel, snapshot = self._panels.of_request(), self._board.look()
        tag = self._tag(snapshot, panel, channel)
        if request.args.get("since") == tag:
            return Response(status=204)
        parts = render_template("channel_parts.html", **self._facts(snapshot, panel, channel))
        return as_json(200, {"tag": tag, "parts": parts})

    def _tag(self, snapshot: DashboardSnapshot, panel: GatewayPanel, channel: str) -> str:
        changed = snapshot.changed.get(view_id(panel.name, channel), 0)
        read = panel.weeks.count
        audit = zlib.crc32(repr(_last_audit(panel, channel)).encode())
        return f"{self._board.boot}.{changed}.{snapshot.problems_changed}.{read}.{audit}"

    def _facts(
        self, snapshot: DashboardSnapshot, panel: GatewayPanel, name: str
    ) -> Mapping[str, object]:
        """Return the variables of channel_parts.html."""
        row = snapshot.row(panel.name, name)
        history, auditor = panel.controller.history, panel.controller.auditor
        attempts = _read(history.of_channel, name, None)
        deaf = ActiveProblem(Problem.PROMETHEUS, None) in snapshot.problems
        hours = () if deaf else self._weeks.of(panel.name, name)
        chart, by_minutes = channel_view.build_chart(hours), False
        known = strip = row.strip if row else {}
        if chart is None or chart.days < _WEEK_DAYS:
            # Prometheus is down, or its history is shorter than the messages'.
            week = panel.weeks.of(channel_key(name))
            longer = channel_view.build_chart(week.hours)
            if longer is not None and (chart is None or longer.days > chart.days):
                chart, by_minutes = longer, True
            if row is not None and week.quarters:
                strip = with_messages(known, row.first_quarter, week.quarters, row.threshold)
                row = replace(row, strip=strip)
        return {
            "name": name,
            "row": row,
            "gateway": panel.name,
            "panel": panel,
            "problems": snapshot.problems_of(panel.name),
            "episodes": None if attempts is None else episodes(attempts)[:_EPISODES],
            "logged": _read(history.logged, name, ()),
            "chart": chart,
            "by_minutes": by_minutes,
            "day_by_messages": strip != known,
            "has_week": bool(hours),
            "silence": self._silence(panel, name),
            "just_asked": row is not None and _was_just_asked(row, self._board.clock.time()),
            "audit": _last_audit(panel, name),
            "missed": _read(auditor.repository.missed, name, ()),
            "can_audit": auditor.can_know,
            "can_replay": not panel.controller.replayer.why_not,
        }

    def _silence(self, panel: GatewayPanel, channel: str) -> str:
        """Return the URL of Alertmanager's form for a silence of the channel."""
        matchers = f"{{gateway={quote_label(panel.name)},channel={quote_label(channel)}}}"
        return f"{self._board.alertmanager.url}/#/silences/new?filter={quote(matchers, safe='')}"

    def _reconnect(self, channel: str) -> AnyResponse:
        self._panels.controller().actions.reconnect(channel)
        return self._back(channel)

    def _ask(self, channel: str) -> AnyResponse:
        self._panels.controller().actions.probe_now(channel)
        return self._back(channel)

    def _audit(self, channel: str) -> AnyResponse:
        auditor = self._panels.controller().auditor
        if not auditor.can_know:
            abort(404)
        auditor.repository.want_now(self._board.known(channel).channel)
        return self._back(channel)

    def _replay(self, channel: str) -> AnyResponse:
        replayer = self._panels.controller().replayer
        if replayer.why_not:
            abort(404)
        replayer.want(self._board.known(channel).channel, request.remote_addr)
        return self._back(channel)

    def _pause(self, channel: str) -> AnyResponse:
        hours = request.form.get("hours", "1")
        if hours not in PAUSES:
            abort(404)
        actions = self._panels.controller().actions
        actions.pause(self._board.known(channel).channel, PAUSES[hours])
        return self._back(channel)

    def _resume(self, channel: str) -> AnyResponse:
        self._panels.controller().actions.resume(channel)
        return self._back(channel)

    def _forget(self, channel: str) -> AnyResponse:
        """Mute the alert for a channel that was removed on purpose."""
        row = self._board.known(channel)
        if row.kind is not ChannelHealth.GONE:
            abort(404)
        try:
            self._board.forget(row)
        except AlertmanagerError as error:
            return error_page(502, _("Something went wrong"), str(error))
        self._board.look(now=True)
        return redirect(url_for("page.overview"), 303)

    def _back(self, channel: str) -> AnyResponse:
        self._board.look(now=True)
        address = url_for("page.channel", channel=channel, gateway=request.args.get("gateway"))
        return redirect(address, 303)


def _read(read: Callable[[str], _T], channel: str, otherwise: _U) -> _T | _U:
    """Return what the state holds of a channel, ``otherwise`` if it cannot be read."""
    try:
        return read(channel_key(channel))
    except StateError:
        return otherwise


def _last_audit(panel: GatewayPanel, channel: str) -> LastAudit | None:
    return _read(panel.controller.auditor.repository.last, channel, {}).get(channel_key(channel))


def _was_just_asked(row: ChannelView, now: float) -> bool:
    last = row.last
    return (
        last is not None
        and last.reason is RepairCause.MANUAL
        and row.waiting is None
        and now - last.finished_at < _JUST_SECONDS
    )


_LOOK_SECONDS = 2.0  # timeout of Prometheus and Alertmanager
_TEST_SECONDS = 5.0
_WAYS_SECONDS = 15.0  # that the receivers are cached, a failure too
_DAY = 86_400
_STEP = 300
_FAILED = f"sum by (integration) (increase(alertmanager_notifications_failed_total[{_STEP}s])) > 0"


class NotificationsPage:
    """The notifications page, and the state behind the overview's banners."""

    def __init__(self, board: DashboardCache, heartbeat: Heartbeat) -> None:
        self._api = board.alertmanager
        self._prometheus = board.prometheus
        self._heartbeat = heartbeat
        self._clock = board.clock
        self._lock = threading.Lock()
        self._ways: Mapping[str, int] | None = None
        self._read_at = float("-inf")

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes, and the receivers' and heartbeat's state for all templates."""
        routes.add_url_rule("/notify", "notify", self._page, methods=["GET"])
        routes.add_url_rule("/notify", "notify_test", self._test, methods=["POST"])
        routes.context_processor(
            lambda: {"ways_to_people": self._look, "heartbeat_status": self._heartbeat_status}
        )

    def _look(self) -> Mapping[str, int] | None:
        """Return the receivers that reach people, by integration; None if unknown.

        They are cached, 15 seconds old at most; one request refreshes at a time.
        """
        now = self._clock.monotonic()
        if now - self._read_at >= _WAYS_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._ways = ways_to_people(self._api.config(_LOOK_SECONDS))
            except AlertmanagerError:
                self._ways = None
            finally:
                self._read_at = now
                self._lock.release()
        return self._ways

    def _page(self) -> str:
        return render_template(
            "notifications.html",
            logged_in=True,
            was_sent="sent" in request.args,
            failures=self._failures(),
            heartbeat=self._heartbeat,
        )

    def _failures(self) -> list[tuple[str, float]] | None:
        """Return each integration's last failure within a day (Unix seconds), the latest first."""
        now = self._clock.time()
        try:
            found = self._prometheus.over_time(_FAILED, now - _DAY, now, _STEP, _LOOK_SECONDS)
        except SourceError:
            return None
        last = {
            series.labels.get("integration", ""): max(at for at, _ in series.values)
            for series in found
            if series.values
        }
        return sorted(last.items(), key=lambda one: -one[1])

    def _heartbeat_status(self) -> str:
        """Return the heartbeat's status: off, waiting, sent, refused or late."""
        beat = self._heartbeat
        if not beat.is_set:
            return "off"
        if self._clock.time() - (beat.arrived_at or beat.since) > LATE_SECONDS:
            return "late"
        if beat.arrived_at is None:
            return "waiting"
        return "refused" if beat.error else "sent"

    def _test(self) -> AnyResponse:
        try:
            self._api.send_test(_TEST_SECONDS)
        except AlertmanagerError as error:
            return error_page(502, _("The test message was not sent"), str(error))
        return redirect(url_for("page.notify", sent="1"), 303)
