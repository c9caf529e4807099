"""The page of all channels."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup

from reconnect_hook.page.board import Board, Snapshot
from reconnect_hook.page.kept import Kept
from reconnect_hook.page.language import locale
from reconnect_hook.page.listing import Listing, counts
from reconnect_hook.page.panels import Panels
from reconnect_hook.page.rows import Row
from reconnect_hook.web import as_json

_KEPT_ROWS = 50_000
_DIGITS = 18


class Overview:
    """The views; each is one method."""

    def __init__(self, board: Board, panels: Panels) -> None:
        self._board = board
        self._panels = panels
        self._kept = Kept(_KEPT_ROWS)

    def add_to(self, routes: Blueprint) -> None:
        """Make the routes."""
        routes.add_url_rule("/", "overview", self._page)
        routes.add_url_rule("/live/channels", "live_overview", self._live)

    def _page(self) -> str:
        snapshot = self._board.look()
        listing = Listing.parse(request.args)
        rows = listing.of(snapshot.rows.values())
        return render_template(
            "overview.html",
            logged_in=True,
            tag=self._tag(snapshot),
            head=self._head(snapshot),
            listing=listing,
            gateways=list(self._panels.all),
            counts=counts(snapshot.rows.values()),
            rows=Markup("").join(self._row(snapshot, row) for row in rows),
            shown=bool(rows),
        )

    def _live(self) -> Response:
        """Answer what has changed since a snapshot: 204 if nothing has."""
        snapshot = self._board.look()
        boot, _dot, since = request.args.get("since", "").partition(".")
        known = -1
        if boot == self._board.boot and since.isdecimal() and len(since) <= _DIGITS:
            known = int(since)
        if known == snapshot.number:
            return Response(status=204)
        rows = Listing.parse(request.args).of(snapshot.rows.values())
        changed = [row for row in rows if snapshot.changed[row.id] > known]
        body = {
            "tag": self._tag(snapshot),
            "head": self._head(snapshot),
            "order": [row.id for row in rows],
            "rows": {row.id: self._row(snapshot, row) for row in changed},
        }
        return as_json(200, body)

    def _tag(self, snapshot: Snapshot) -> str:
        return f"{self._board.boot}.{snapshot.number}"

    def _head(self, snapshot: Snapshot) -> Markup:
        return self._kept.get(
            (locale(), ""),
            (snapshot.number, self._panels.several),
            lambda: render_template(
                "head.html", snapshot=snapshot, counts=counts(snapshot.rows.values())
            ),
        )

    def _row(self, snapshot: Snapshot, row: Row) -> Markup:
        return self._kept.get(
            (locale(), row.id),
            (snapshot.changed[row.id], self._panels.several),
            lambda: render_template("row.html", row=row),
        )
