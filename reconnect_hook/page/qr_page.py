"""The QR code as the channel's page asks for it."""

from __future__ import annotations

import base64

from flask import Blueprint, Response

from reconnect_hook.page.board import Board
from reconnect_hook.page.panels import Panels
from reconnect_hook.page.qr_images import QrImage
from reconnect_hook.page.qr_watch import QrState
from reconnect_hook.page.rows import Kind, row_id
from reconnect_hook.page.words import QR_STATES
from reconnect_hook.web import as_json
from whatsapp.channels import channel_key

_NOTHING = QrImage(
    "image/gif", base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
)
"""A dot that cannot be seen, while there is no code."""


class QrPage:
    """The views; each is one method."""

    def __init__(self, board: Board, panels: Panels) -> None:
        self._board = board
        self._panels = panels

    def add_to(self, routes: Blueprint) -> None:
        """Make the routes."""
        routes.add_url_rule("/live/qr/<channel:channel>", "live_qr", self._live)
        routes.add_url_rule("/qr/<channel:channel>", "qr_image", self._image)

    def _live(self, channel: str) -> Response:
        """Answer how the code stands, and have it asked for while this goes on."""
        state, number = self._look(channel)
        return as_json(200, {"state": state, "number": number, "words": str(QR_STATES[state])})

    def _image(self, channel: str) -> Response:
        self._look(channel)
        image = self._panels.of_request().watches.image(channel) or _NOTHING
        return Response(image.data, mimetype=image.kind)

    def _look(self, channel: str) -> tuple[QrState, int]:
        panel = self._panels.of_request()
        if panel.watches.scanned(channel_key(channel)):
            # What the page asks for next must know it already.
            self._board.look(now=True)
            return QrState.CONNECTED, 0
        row = self._board.look().rows.get(row_id(panel.name, channel))
        if row is None or row.kind is not Kind.NEEDS_SCAN:
            return QrState.NONE, 0
        return panel.watches.look(row.channel)
