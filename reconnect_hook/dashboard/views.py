"""The pages: overview, channel, login, and the QR code's endpoints."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
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
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.alerts import RepairCause
from reconnect_hook.app import as_json
from reconnect_hook.attempt_log import LoggedAttempt
from reconnect_hook.auth import TokenAuth
from reconnect_hook.dashboard import channel_view
from reconnect_hook.dashboard.channel_view import (
    ChannelFilter,
    ChannelHealth,
    ChannelView,
    count_by_health,
    view_id,
)
from reconnect_hook.dashboard.errors import error_page
from reconnect_hook.dashboard.i18n import locale, this_address
from reconnect_hook.dashboard.prometheus import quote_label
from reconnect_hook.dashboard.qr import NO_IMAGE, QrState
from reconnect_hook.dashboard.snapshot import (
    ActiveProblem,
    DashboardCache,
    DashboardSnapshot,
    GatewayPanel,
    GatewayPanels,
    Problem,
)
from reconnect_hook.dashboard.strings import QR_STATES
from reconnect_hook.dashboard.timeline import Shares, WeekHistory, with_messages
from reconnect_hook.history import Attempt, episodes
from reconnect_hook.message_audit import LastAudit, Missed
from zapwatch.alertmanager import AlertmanagerError
from zapwatch.channels import channel_key
from zapwatch.clock import Clock
from zapwatch.db import StateError
from zapwatch.front import RETRY_LATER, WRONG_TOKENS


class FragmentCache:
    """Rendered HTML by name, LRU with ``most`` entries; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._pieces: OrderedDict[tuple[str, str], tuple[object, Markup]] = OrderedDict()

    def get(self, name: tuple[str, str], version: object, render: Callable[[], str]) -> Markup:
        """Return the HTML of this version; render it if another version or none is cached."""
        with self._lock:
            known, html = self._pieces.get(name, (None, Markup("")))
        if known != version:
            html = Markup(render())  # noqa: S704 - rendered by a template
            with self._lock:
                self._pieces[name] = version, html
                self._pieces.move_to_end(name)
                while len(self._pieces) > self._most:
                    self._pieces.popitem(last=False)
        return html


_KEPT_ROWS = 50_000
_DIGITS = 18


class OverviewPage:
    """The overview and its live updates."""

    def __init__(self, board: DashboardCache, panels: GatewayPanels) -> None:
        self._board = board
        self._panels = panels
        self._kept = FragmentCache(_KEPT_ROWS)

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/", "overview", self._page)
        routes.add_url_rule("/live/channels", "live_overview", self._live)

    def _page(self) -> str:
        snapshot = self._board.look()
        listing = ChannelFilter.parse(request.args)
        rows = listing.of(snapshot.rows.values())
        language = locale()
        return render_template(
            "overview.html",
            logged_in=True,
            tag=self._tag(snapshot),
            head=self._head(snapshot),
            listing=listing,
            gateways=list(self._panels.all),
            counts=count_by_health(snapshot.rows.values(), snapshot.blind),
            rows=Markup("").join(self._row(snapshot, row, language) for row in rows),
            shown=bool(rows),
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
        rows = ChannelFilter.parse(request.args).of(snapshot.rows.values())
        changed = [row for row in rows if snapshot.changed[row.id] > known]
        language = locale()
        body = {
            "tag": self._tag(snapshot),
            "head": self._head(snapshot),
            "order": [row.id for row in rows],
            "rows": {row.id: self._row(snapshot, row, language) for row in changed},
        }
        return as_json(200, body)

    def _tag(self, snapshot: DashboardSnapshot) -> str:
        return f"{self._board.boot}.{snapshot.number}"

    def _head(self, snapshot: DashboardSnapshot) -> Markup:
        return self._kept.get(
            (locale(), ""),
            (snapshot.number, self._panels.several),
            lambda: render_template(
                "head.html",
                snapshot=snapshot,
                counts=count_by_health(snapshot.rows.values(), snapshot.blind),
                has_state=all(one.problem is not Problem.STATE for one in snapshot.problems),
            ),
        )

    def _row(self, snapshot: DashboardSnapshot, row: ChannelView, language: str) -> Markup:
        return self._kept.get(
            (language, row.id),
            (snapshot.changed[row.id], self._panels.several),
            lambda: render_template("row.html", row=row),
        )


PAUSES = {"1": 3600.0, "8": 8 * 3600.0, "": None}
"""Selectable pauses in seconds, by the form's hours; None has no end."""

_KEPT_PAGES = 500
_KEPT_SECONDS = 60.0  # for the week's messages, which change independently of the row
_JUST_SECONDS = 900.0  # that the outcome of a manual repair is shown in full
_EPISODES = 30
_WEEK_DAYS = 7


class ChannelPage:
    """A channel's page, its live updates and its actions."""

    def __init__(
        self,
        board: DashboardCache,
        panels: GatewayPanels,
        weeks: WeekHistory,
        *,
        alertmanager_url: str,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._board = board
        self._panels = panels
        self._weeks = weeks
        self._alertmanager_url = alertmanager_url
        self._kept = FragmentCache(_KEPT_PAGES)

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
        row = snapshot.rows.get(view_id(panel.name, channel))
        if row is None and snapshot.number and panel.name not in snapshot.blind:
            abort(404)
        return render_template(
            "channel.html",
            logged_in=True,
            name=channel,
            gateway=panel.name,
            row=row,
            tag=self._tag(snapshot, panel, channel),
            parts=self._parts(snapshot, panel, channel),
        )

    def _live(self, channel: str) -> Response:
        """Return the page's parts if anything has changed, else 204."""
        panel, snapshot = self._panels.of_request(), self._board.look()
        tag = self._tag(snapshot, panel, channel)
        if request.args.get("since") == tag:
            return Response(status=204)
        return as_json(200, {"tag": tag, "parts": self._parts(snapshot, panel, channel)})

    def _tag(self, snapshot: DashboardSnapshot, panel: GatewayPanel, channel: str) -> str:
        changed = snapshot.changed.get(view_id(panel.name, channel), 0)
        read = panel.weeks.count
        audit = zlib.crc32(repr(_last_audit(panel, channel)).encode())
        return f"{self._board.boot}.{changed}.{snapshot.problems_changed}.{read}.{audit}"

    def _parts(self, snapshot: DashboardSnapshot, panel: GatewayPanel, channel: str) -> Markup:
        version = self._tag(snapshot, panel, channel), self._clock.time() // _KEPT_SECONDS
        piece = (locale(), view_id(panel.name, channel))
        return self._kept.get(piece, version, lambda: self._render(snapshot, panel, channel))

    def _render(self, snapshot: DashboardSnapshot, panel: GatewayPanel, name: str) -> str:
        row = snapshot.rows.get(view_id(panel.name, name))
        told = _told(panel, name)
        deaf = ActiveProblem(Problem.PROMETHEUS, None) in snapshot.problems
        hours = () if deaf else self._weeks.of(panel.name, name)
        chart, by_minutes = channel_view.build_chart(hours), False
        known = strip = row.strip if row else ()
        if chart is None or chart.days < _WEEK_DAYS:
            # Prometheus is down, or its history is shorter than the messages'.
            week = panel.weeks.of(channel_key(name))
            longer = channel_view.build_chart(week.hours)
            if longer is not None and (chart is None or longer.days > chart.days):
                chart, by_minutes = longer, True
            if row is not None and week.quarters:
                first = row.first_quarter
                strip = with_messages(row.strip, first, week.quarters, row.threshold)
                row = replace(row, strip=strip)
        return render_template(
            "channel_parts.html",
            name=name,
            row=row,
            gateway=panel.name,
            problems=snapshot.problems_of(panel.name),
            episodes=None if told is None else episodes(told)[:_EPISODES],
            logged=_logged(panel, name),
            chart=chart,
            by_minutes=by_minutes,
            day_by_messages=strip != known,
            source=panel.controller.gateway.messages,
            has_week=bool(hours),
            shares=row.shares if row else Shares(),
            silence=self._silence(panel, name),
            just_asked=row is not None and _was_just_asked(row, self._clock.time()),
            audit=_last_audit(panel, name),
            missed=_missed(panel, name),
            can_audit=panel.controller.auditor.can_know,
            can_replay=not panel.controller.replayer.why_not,
            can_ask=panel.can_ask(name),
            can_pair=panel.watches.can_pair,
            phone=panel.number_of(name),
        )

    def _silence(self, panel: GatewayPanel, channel: str) -> str:
        """Return the URL of Alertmanager's form for a silence of the channel."""
        matchers = f"{{gateway={quote_label(panel.name)},channel={quote_label(channel)}}}"
        return f"{self._alertmanager_url}/#/silences/new?filter={quote(matchers, safe='')}"

    def _reconnect(self, channel: str) -> AnyResponse:
        self._panels.of_request().controller.actions.reconnect(channel)
        return self._back(channel)

    def _ask(self, channel: str) -> AnyResponse:
        self._panels.of_request().controller.actions.probe_now(channel)
        return self._back(channel)

    def _audit(self, channel: str) -> AnyResponse:
        auditor = self._panels.of_request().controller.auditor
        if not auditor.can_know:
            abort(404)
        auditor.repository.want_now(self._listed(channel))
        return self._back(channel)

    def _replay(self, channel: str) -> AnyResponse:
        replayer = self._panels.of_request().controller.replayer
        if replayer.why_not:
            abort(404)
        replayer.want(self._listed(channel), request.remote_addr)
        return self._back(channel)

    def _listed(self, channel: str) -> str:
        """Return the gateway's spelling of a channel's id; abort with 404 if it is unknown."""
        panel = self._panels.of_request()
        row = self._board.look().rows.get(view_id(panel.name, channel))
        if row is None:
            abort(404)
        return row.channel

    def _pause(self, channel: str) -> AnyResponse:
        hours = request.form.get("hours", "1")
        if hours not in PAUSES:
            abort(404)
        actions = self._panels.of_request().controller.actions
        actions.pause(self._listed(channel), PAUSES[hours])
        return self._back(channel)

    def _resume(self, channel: str) -> AnyResponse:
        self._panels.of_request().controller.actions.resume(channel)
        return self._back(channel)

    def _forget(self, channel: str) -> AnyResponse:
        """Mute the alert for a channel that was removed on purpose."""
        row = self._board.look().rows.get(view_id(self._panels.of_request().name, channel))
        if row is None or row.kind is not ChannelHealth.GONE:
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


def _told(panel: GatewayPanel, channel: str) -> list[Attempt] | None:
    try:
        return panel.controller.history.of_channel(channel_key(channel))
    except StateError:
        return None


def _logged(panel: GatewayPanel, channel: str) -> list[LoggedAttempt]:
    try:
        return panel.controller.history.logged(channel_key(channel))
    except StateError:
        return []


def _last_audit(panel: GatewayPanel, channel: str) -> LastAudit | None:
    key = channel_key(channel)
    try:
        return panel.controller.auditor.repository.last(key).get(key)
    except StateError:
        return None


def _missed(panel: GatewayPanel, channel: str) -> list[Missed]:
    try:
        return panel.controller.auditor.repository.missed(channel_key(channel))
    except StateError:
        return []


def _was_just_asked(row: ChannelView, now: float) -> bool:
    last = row.last
    return (
        last is not None
        and last.reason is RepairCause.MANUAL
        and row.waiting is None
        and now - last.finished_at < _JUST_SECONDS
    )


OPEN = {"page.docs", "page.log_in", "page.login_form", "page.static"}
"""The endpoints without authentication."""


class LoginPage:
    """Login, logout, and the redirect of requests without a session."""

    def __init__(self, auth: TokenAuth) -> None:
        self._auth = auth

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/login", "login_form", self._form, methods=["GET"])
        routes.add_url_rule("/login", "log_in", self._log_in, methods=["POST"])
        routes.add_url_rule("/logout", "log_out", self._log_out, methods=["POST"])
        routes.register_error_handler(Unauthorized, self._unauthorized)

    def _form(self, wrong: str = "") -> str:
        return render_template("login.html", next=_local(request.args.get("next", "")), wrong=wrong)

    def _log_in(self) -> AnyResponse:
        try:
            right = self._auth.log_in(request.form.get("token", ""))
        except TooManyRequests:
            words = _("After %(count)s wrong passwords, please wait a minute.", count=WRONG_TOKENS)
            blocked = make_response(self._form(words), 429)
            blocked.headers.set(*RETRY_LATER)
            return blocked
        if not right:
            return make_response(self._form(_("Wrong password.")), 401)
        response = redirect(_local(request.args.get("next", "")), 303)
        self._auth.begin_session(response)
        return response

    def _log_out(self) -> AnyResponse:
        response = redirect(url_for("page.login_form"), 303)
        self._auth.end_session(response)
        return response

    def _unauthorized(self, _error: Unauthorized) -> AnyResponse:
        is_page = request.method == "GET" and not request.path.startswith(("/live/", "/qr/"))
        if is_page and "Authorization" not in request.headers:
            return redirect(url_for("page.login_form", next=this_address()), 303)
        return error_page(401, _("Please log in"), _("You are not logged in."))


def _local(address: str) -> str:
    """Return an address of this site unchanged, else that of the overview: no open redirect."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_local and address.isprintable() else url_for("page.overview")


class QrEndpoints:
    """State and image of a channel's QR code, for page.js."""

    def __init__(self, board: DashboardCache, panels: GatewayPanels) -> None:
        self._board = board
        self._panels = panels

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/live/qr/<channel:channel>", "live_qr", self._live)
        routes.add_url_rule("/qr/<channel:channel>", "qr_image", self._image)

    def _live(self, channel: str) -> Response:
        """Return the code's state; each call keeps the poll running."""
        state, number = self._look(channel)
        return as_json(200, {"state": state, "number": number, "words": str(QR_STATES[state])})

    def _image(self, channel: str) -> Response:
        self._look(channel)
        image = self._panels.of_request().watches.image(channel) or NO_IMAGE
        return Response(image.data, mimetype=image.kind)

    def _look(self, channel: str) -> tuple[QrState, int]:
        panel = self._panels.of_request()
        if panel.watches.scanned(channel_key(channel)):
            # The page's next request must see the connection.
            self._board.look(now=True)
            return QrState.CONNECTED, 0
        row = self._board.look().rows.get(view_id(panel.name, channel))
        if row is None or row.kind is not ChannelHealth.NEEDS_SCAN:
            return QrState.NONE, 0
        return panel.watches.look(row.channel)
