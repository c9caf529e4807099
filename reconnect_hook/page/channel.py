"""The page of one channel, and what can be asked for there."""

from __future__ import annotations

import time
from urllib.parse import quote

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.alerts import Reason
from reconnect_hook.page import drawing
from reconnect_hook.page.board import Board, Snapshot, Trouble
from reconnect_hook.page.kept import Kept
from reconnect_hook.page.language import locale
from reconnect_hook.page.rows import Row
from reconnect_hook.page.sources import quoted
from reconnect_hook.page.week import Weeks
from reconnect_hook.state.database import StateError
from reconnect_hook.state.desk import Desk
from reconnect_hook.state.history import Attempt, History, episodes
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
        weeks: Weeks,
        history: History,
        desk: Desk,
        *,
        gateway: str,
        alertmanager_url: str,
    ) -> None:
        self._board = board
        self._weeks = weeks
        self._history = history
        self._desk = desk
        self._gateway = gateway
        self._alertmanager_url = alertmanager_url
        self._kept = Kept(_KEPT_PAGES)

    def add_to(self, routes: Blueprint) -> None:
        """Make the routes. An id comes last in its path, since it may hold slashes."""
        add = routes.add_url_rule
        add("/channels/<channel:channel>", "channel", self._page)
        add("/live/channel/<channel:channel>", "live_channel", self._live)
        add("/reconnect/<channel:channel>", "reconnect", self._reconnect, methods=["POST"])
        add("/pause/<channel:channel>", "pause", self._pause, methods=["POST"])
        add("/resume/<channel:channel>", "resume", self._resume, methods=["POST"])

    def _page(self, channel: str) -> str:
        snapshot = self._board.look()
        return render_template(
            "channel.html",
            logged_in=True,
            name=_name(snapshot, channel),
            row=snapshot.rows.get(channel_key(channel)),
            tag=self._tag(snapshot, channel),
            parts=self._parts(snapshot, channel),
        )

    def _live(self, channel: str) -> Response:
        """Answer the page's parts if anything has changed, else 204."""
        snapshot = self._board.look()
        tag = self._tag(snapshot, channel)
        if request.args.get("since") == tag:
            return Response(status=204)
        return as_json(200, {"tag": tag, "parts": self._parts(snapshot, channel)})

    def _tag(self, snapshot: Snapshot, channel: str) -> str:
        changed = snapshot.changed.get(channel_key(channel), 0)
        return f"{self._board.boot}.{changed}.{snapshot.troubles_changed}"

    def _parts(self, snapshot: Snapshot, channel: str) -> Markup:
        version = self._tag(snapshot, channel), time.time() // _KEPT_SECONDS
        name = _name(snapshot, channel)
        return self._kept.get((locale(), name), version, lambda: self._render(snapshot, name))

    def _render(self, snapshot: Snapshot, name: str) -> str:
        key = channel_key(name)
        row = snapshot.rows.get(key)
        told = self._told(key)
        hours = () if Trouble.PROMETHEUS in snapshot.troubles else self._weeks.of(name)
        return render_template(
            "channel_parts.html",
            name=name,
            row=row,
            snapshot=snapshot,
            episodes=None if told is None else episodes(told)[:_EPISODES],
            chart=drawing.chart(hours) if hours else None,
            silence=self._silence(name),
            just_asked=row is not None and _was_just_asked(row),
        )

    def _told(self, key: str) -> list[Attempt] | None:
        try:
            return self._history.of_channel(key)
        except StateError:
            return None

    def _silence(self, channel: str) -> str:
        """Return the address at which Alertmanager makes a silence for the channel."""
        matchers = f"{{gateway={quoted(self._gateway)},channel={quoted(channel)}}}"
        return f"{self._alertmanager_url}/#/silences/new?filter={quote(matchers, safe='')}"

    def _reconnect(self, channel: str) -> AnyResponse:
        self._desk.reconnect(_name(self._board.look(), channel))
        return self._back(channel)

    def _pause(self, channel: str) -> AnyResponse:
        hours = request.form.get("hours", "1")
        row = self._board.look().rows.get(channel_key(channel))
        # Of a channel that nobody knows there is nothing to pause, and no series to be made.
        if hours not in PAUSES or row is None:
            abort(404)
        self._desk.pause(row.channel, PAUSES[hours])
        return self._back(channel)

    def _resume(self, channel: str) -> AnyResponse:
        self._desk.resume(channel)
        return self._back(channel)

    def _back(self, channel: str) -> AnyResponse:
        self._board.look(now=True)
        return redirect(url_for("page.channel", channel=channel), 303)


def _name(snapshot: Snapshot, channel: str) -> str:
    """Return the gateway's spelling of an id where it is known."""
    row = snapshot.rows.get(channel_key(channel))
    return row.channel if row else channel


def _was_just_asked(row: Row) -> bool:
    last = row.last
    return (
        last is not None
        and last.reason is Reason.MANUAL
        and row.waiting is None
        and time.time() - last.finished_at < _JUST_SECONDS
    )
