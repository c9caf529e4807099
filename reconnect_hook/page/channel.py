"""The page of one channel, and what can be asked for there."""

from __future__ import annotations

import time
from urllib.parse import quote

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.alerts import Reason
from reconnect_hook.page import drawing
from reconnect_hook.page.board import Board, Snapshot, Trouble, Troubled
from reconnect_hook.page.kept import Kept
from reconnect_hook.page.language import locale
from reconnect_hook.page.panels import Panel, Panels
from reconnect_hook.page.rows import Row, row_id
from reconnect_hook.page.sources import quoted
from reconnect_hook.page.week import Weeks
from reconnect_hook.state.database import StateError
from reconnect_hook.state.history import Attempt, episodes
from reconnect_hook.web import as_json
from whatsapp.channels import channel_key

PAUSES = {"1": 3600.0, "8": 8 * 3600.0, "": None}
"""The pauses that people can choose, by their hours; None has no end."""

_KEPT_PAGES = 500
_KEPT_SECONDS = 60.0  # for the messages of the week, which change without the channel
_JUST_SECONDS = 900.0  # for which the end of a repair that somebody asked for is shown in full
_EPISODES = 30


class ChannelPage:
    """The views; each is one method."""

    def __init__(
        self,
        board: Board,
        panels: Panels,
        weeks: Weeks,
        *,
        alertmanager_url: str,
    ) -> None:
        self._board = board
        self._panels = panels
        self._weeks = weeks
        self._alertmanager_url = alertmanager_url
        self._kept = Kept(_KEPT_PAGES)

    def add_to(self, routes: Blueprint) -> None:
        """Make the routes. An id comes last in its path, since it may hold slashes."""
        add = routes.add_url_rule
        add("/channels/<channel:channel>", "channel", self._page)
        add("/live/channel/<channel:channel>", "live_channel", self._live)
        add("/reconnect/<channel:channel>", "reconnect", self._reconnect, methods=["POST"])
        add("/ask/<channel:channel>", "ask", self._ask, methods=["POST"])
        add("/pause/<channel:channel>", "pause", self._pause, methods=["POST"])
        add("/resume/<channel:channel>", "resume", self._resume, methods=["POST"])

    def _page(self, channel: str) -> str:
        panel, snapshot = self._panels.of_request(), self._board.look()
        return render_template(
            "channel.html",
            logged_in=True,
            name=_name(snapshot, panel, channel),
            gateway=panel.name,
            row=snapshot.rows.get(row_id(panel.name, channel)),
            tag=self._tag(snapshot, panel, channel),
            parts=self._parts(snapshot, panel, channel),
        )

    def _live(self, channel: str) -> Response:
        """Answer the page's parts if anything has changed, else 204."""
        panel, snapshot = self._panels.of_request(), self._board.look()
        tag = self._tag(snapshot, panel, channel)
        if request.args.get("since") == tag:
            return Response(status=204)
        return as_json(200, {"tag": tag, "parts": self._parts(snapshot, panel, channel)})

    def _tag(self, snapshot: Snapshot, panel: Panel, channel: str) -> str:
        changed = snapshot.changed.get(row_id(panel.name, channel), 0)
        return f"{self._board.boot}.{changed}.{snapshot.troubles_changed}"

    def _parts(self, snapshot: Snapshot, panel: Panel, channel: str) -> Markup:
        version = self._tag(snapshot, panel, channel), time.time() // _KEPT_SECONDS
        name = _name(snapshot, panel, channel)
        piece = (locale(), f"{panel.name} {name}")
        return self._kept.get(piece, version, lambda: self._render(snapshot, panel, name))

    def _render(self, snapshot: Snapshot, panel: Panel, name: str) -> str:
        row = snapshot.rows.get(row_id(panel.name, name))
        told = _told(panel, name)
        deaf = Troubled(Trouble.PROMETHEUS, None) in snapshot.troubles
        hours = () if deaf else self._weeks.of(panel.name, name)
        return render_template(
            "channel_parts.html",
            name=name,
            row=row,
            gateway=panel.name,
            troubles=snapshot.troubles_of(panel.name),
            episodes=None if told is None else episodes(told)[:_EPISODES],
            chart=drawing.chart(hours) if hours else None,
            silence=self._silence(panel, name),
            just_asked=row is not None and _was_just_asked(row),
            can_ask=panel.service.probing.can_ask(channel_key(name)),
        )

    def _silence(self, panel: Panel, channel: str) -> str:
        """Return the address at which Alertmanager makes a silence for the channel."""
        matchers = f"{{gateway={quoted(panel.name)},channel={quoted(channel)}}}"
        return f"{self._alertmanager_url}/#/silences/new?filter={quote(matchers, safe='')}"

    def _reconnect(self, channel: str) -> AnyResponse:
        panel = self._panels.of_request()
        panel.service.desk.reconnect(_name(self._board.look(), panel, channel))
        return self._back(channel)

    def _ask(self, channel: str) -> AnyResponse:
        panel = self._panels.of_request()
        panel.service.desk.ask(_name(self._board.look(), panel, channel))
        return self._back(channel)

    def _pause(self, channel: str) -> AnyResponse:
        hours = request.form.get("hours", "1")
        panel = self._panels.of_request()
        row = self._board.look().rows.get(row_id(panel.name, channel))
        # Of a channel that nobody knows there is nothing to pause, and no series to be made.
        if hours not in PAUSES or row is None:
            abort(404)
        panel.service.desk.pause(row.channel, PAUSES[hours])
        return self._back(channel)

    def _resume(self, channel: str) -> AnyResponse:
        self._panels.of_request().service.desk.resume(channel)
        return self._back(channel)

    def _back(self, channel: str) -> AnyResponse:
        self._board.look(now=True)
        address = url_for("page.channel", channel=channel, gateway=request.args.get("gateway"))
        return redirect(address, 303)


def _name(snapshot: Snapshot, panel: Panel, channel: str) -> str:
    """Return the gateway's spelling of an id where it is known."""
    row = snapshot.rows.get(row_id(panel.name, channel))
    return row.channel if row else channel


def _told(panel: Panel, channel: str) -> list[Attempt] | None:
    try:
        return panel.service.history.of_channel(channel_key(channel))
    except StateError:
        return None


def _was_just_asked(row: Row) -> bool:
    last = row.last
    return (
        last is not None
        and last.reason is Reason.MANUAL
        and row.waiting is None
        and time.time() - last.finished_at < _JUST_SECONDS
    )
