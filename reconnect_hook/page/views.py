"""The pages, and the parts of them that the script asks for again and again."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import quote

from flask import (
    Blueprint,
    Response,
    abort,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_babel import gettext as _
from markupsafe import Markup
from werkzeug.exceptions import BadRequest, HTTPException, TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.alerts import Reason
from reconnect_hook.database import StateError
from reconnect_hook.desk import Desk
from reconnect_hook.history import Attempt, History, episodes
from reconnect_hook.page import drawing, language
from reconnect_hook.page.board import Board, Snapshot, Trouble
from reconnect_hook.page.door import WAIT_SECONDS, WRONG_TOKENS, Door
from reconnect_hook.page.listing import Listing, counts
from reconnect_hook.page.qr_images import QrImage
from reconnect_hook.page.qr_watch import QrState, QrWatches
from reconnect_hook.page.rendering import this_address
from reconnect_hook.page.rows import Kind, Row
from reconnect_hook.page.sources import quoted
from reconnect_hook.page.week import Weeks
from reconnect_hook.page.words import QR_STATES
from whatsapp.channels import channel_key, is_usable_id

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and do."""

PAUSES = {"1": 3600.0, "8": 8 * 3600.0, "": None}
"""The pauses that people can choose, by their hours; None has no end."""

_NOTHING = QrImage(
    "image/gif", base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
)
"""A dot that cannot be seen, while there is no code."""

_OPEN = {"page.log_in", "page.login_form", "page.static"}
_KEPT_ROWS = 50_000
_JUST_SECONDS = 900.0  # for which the end of a repair that somebody asked for is shown in full


class Pages:
    """The views; each is one method."""

    def __init__(
        self,
        door: Door,
        board: Board,
        weeks: Weeks,
        watches: QrWatches,
        history: History,
        desk: Desk,
        *,
        gateway: str,
        alertmanager_url: str,
    ) -> None:
        self._door = door
        self._board = board
        self._weeks = weeks
        self._watches = watches
        self._history = history
        self._desk = desk
        self._gateway = gateway
        self._alertmanager_url = alertmanager_url
        self._rendered = _RenderedRows()

    def blueprint(self) -> Blueprint:
        """Make the routes. An id comes last in its path, since it may hold slashes."""
        routes = Blueprint(
            "page",
            __name__,
            template_folder="templates",
            static_folder="static",
            static_url_path="/page",
        )
        add = routes.add_url_rule
        add("/login", "login_form", self._login_form, methods=["GET"])
        add("/login", "log_in", self._log_in, methods=["POST"])
        add("/logout", "log_out", self._log_out, methods=["POST"])
        add("/", "overview", self._overview)
        add("/live/channels", "live_overview", self._live_overview)
        add("/channels/<channel:channel>", "channel", self._channel)
        add("/live/channel/<channel:channel>", "live_channel", self._live_channel)
        add("/live/qr/<channel:channel>", "live_qr", self._live_qr)
        add("/qr/<channel:channel>", "qr_image", self._qr_image)
        add("/reconnect/<channel:channel>", "reconnect", self._reconnect, methods=["POST"])
        add("/pause/<channel:channel>", "pause", self._pause, methods=["POST"])
        add("/resume/<channel:channel>", "resume", self._resume, methods=["POST"])
        routes.before_request(self._check)
        routes.after_request(_finish)
        routes.register_error_handler(Unauthorized, self._unauthorized)
        routes.register_error_handler(HTTPException, _http_error)
        routes.register_error_handler(StateError, _state_error)
        return routes

    def _check(self) -> None:
        if request.endpoint not in _OPEN:
            self._door.check()
        channel = (request.view_args or {}).get("channel", "x")
        if not is_usable_id(channel):
            abort(404)

    # Coming and going.

    def _login_form(self) -> str:
        return self._form("")

    def _form(self, wrong: str) -> str:
        return render_template("login.html", next=_local(request.args.get("next", "")), wrong=wrong)

    def _log_in(self) -> AnyResponse:
        try:
            right = self._door.log_in(request.form.get("token", ""))
        except TooManyRequests as error:
            words = _("After %(count)s wrong tokens, please wait a minute.", count=WRONG_TOKENS)
            response = make_response(self._form(words), 429)
            response.headers["Retry-After"] = str(error.retry_after or int(WAIT_SECONDS))
            return response
        except BadRequest:
            # The cookie of the form has gone meanwhile: a new form has a new one.
            return make_response(self._form(_("Please try once more.")), 400)
        if not right:
            return make_response(self._form(_("This is not the token.")), 401)
        return redirect(_local(request.args.get("next", "")), 303)

    def _log_out(self) -> AnyResponse:
        session.clear()
        return redirect(url_for("page.login_form"), 303)

    def _unauthorized(self, _error: Unauthorized) -> AnyResponse:
        is_page = request.method == "GET" and not request.path.startswith(("/live/", "/qr/"))
        if is_page and "Authorization" not in request.headers:
            return redirect(url_for("page.login_form", next=this_address()), 303)
        return make_response(_sorry(_("Please log in"), _("You are not logged in.")), 401)

    # All channels.

    def _overview(self) -> str:
        snapshot = self._board.look()
        listing = Listing.parse(request.args)
        rows = listing.of(snapshot.rows.values())
        return render_template(
            "overview.html",
            logged_in=True,
            tag=self._tag(snapshot),
            head=self._head(snapshot),
            listing=listing,
            counts=counts(snapshot.rows.values()),
            rows=Markup("").join(self._row(snapshot, row) for row in rows),
            shown=bool(rows),
        )

    def _live_overview(self) -> Response:
        """Answer what has changed since a snapshot: 204 if nothing has."""
        snapshot = self._board.look()
        boot, _dot, since = request.args.get("since", "").partition(".")
        known = int(since) if boot == self._board.boot and since.isdecimal() else -1
        if known == snapshot.number:
            return Response(status=204)
        rows = Listing.parse(request.args).of(snapshot.rows.values())
        body = {
            "tag": self._tag(snapshot),
            "head": self._head(snapshot),
            "order": [row.key for row in rows],
            "rows": {
                row.key: self._row(snapshot, row)
                for row in rows
                if snapshot.changed[row.key] > known
            },
        }
        return _json(body)

    def _tag(self, snapshot: Snapshot) -> str:
        return f"{self._board.boot}.{snapshot.number}"

    def _head(self, snapshot: Snapshot) -> Markup:
        head = render_template(
            "head.html", snapshot=snapshot, counts=counts(snapshot.rows.values())
        )
        return Markup(head)  # noqa: S704 - a template's own

    def _row(self, snapshot: Snapshot, row: Row) -> Markup:
        return self._rendered.get(language.locale(), row, snapshot.changed[row.key])

    # One channel.

    def _channel(self, channel: str) -> str:
        snapshot = self._board.look()
        return render_template(
            "channel.html",
            logged_in=True,
            name=_name(snapshot, channel),
            row=snapshot.rows.get(channel_key(channel)),
            tag=self._tag(snapshot),
            parts=self._parts(snapshot, channel),
        )

    def _live_channel(self, channel: str) -> Response:
        snapshot = self._board.look()
        tag = self._tag(snapshot)
        if request.args.get("since") == tag:
            return Response(status=204)
        return _json({"tag": tag, "parts": self._parts(snapshot, channel)})

    def _parts(self, snapshot: Snapshot, channel: str) -> Markup:
        key, name = channel_key(channel), _name(snapshot, channel)
        row = snapshot.rows.get(key)
        watch = snapshot.watch
        told = self._told(key)
        hours = () if Trouble.PROMETHEUS in snapshot.troubles else self._weeks.of(name)
        last = row.last if row else None
        parts = render_template(
            "channel_parts.html",
            name=name,
            row=row,
            snapshot=snapshot,
            watched=watch.channels.get(key) if watch else None,
            alerts=watch.alerts.get(key, ()) if watch else (),
            episodes=None if told is None else episodes(told)[:30],
            chart=drawing.chart(hours) if hours else None,
            silence=self._silence(name),
            just_asked=last is not None
            and last.reason is Reason.MANUAL
            and not (row and row.waiting)
            and time.time() - last.finished_at < _JUST_SECONDS,
        )
        return Markup(parts)  # noqa: S704 - a template's own

    def _told(self, key: str) -> list[Attempt] | None:
        try:
            return self._history.of_channel(key)
        except StateError:
            return None

    def _silence(self, channel: str) -> str:
        """Return the address at which Alertmanager makes a silence for the channel."""
        matchers = f"{{gateway={quoted(self._gateway)},channel={quoted(channel)}}}"
        return f"{self._alertmanager_url}/#/silences/new?filter={quote(matchers, safe='')}"

    # The QR code.

    def _live_qr(self, channel: str) -> Response:
        """Answer how the code stands, and have it asked for while this goes on."""
        state, number = self._look_at_qr(channel)
        return _json({"state": state, "number": number, "words": str(QR_STATES[state])})

    def _look_at_qr(self, channel: str) -> tuple[QrState, int]:
        key = channel_key(channel)
        if self._watches.scanned(key):
            # What the page asks for next must know it already.
            self._board.look(now=True)
            return QrState.CONNECTED, 0
        row = self._board.look().rows.get(key)
        if row is None or row.kind is not Kind.NEEDS_SCAN:
            return QrState.NONE, 0
        return self._watches.look(row.channel)

    def _qr_image(self, channel: str) -> Response:
        self._look_at_qr(channel)
        image = self._watches.image(channel) or _NOTHING
        return Response(image.data, mimetype=image.kind)

    # What can be asked for.

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


class _RenderedRows:
    """The rows as HTML, each rendered once and not for each of those who look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[int, Markup]] = OrderedDict()

    def get(self, locale: str, row: Row, number: int) -> Markup:
        """Return the row as it became with the snapshot of this number."""
        with self._lock:
            known, html = self._kept.get((locale, row.key), (-1, Markup("")))
        if known != number:
            html = Markup(render_template("row.html", row=row))  # noqa: S704 - a template's own
            with self._lock:
                self._kept[locale, row.key] = number, html
                while len(self._kept) > _KEPT_ROWS:
                    self._kept.popitem(last=False)
        return html


def _name(snapshot: Snapshot, channel: str) -> str:
    """Return the gateway's spelling of an id where it is known."""
    row = snapshot.rows.get(channel_key(channel))
    return row.channel if row else channel


def _local(address: str) -> str:
    """Return an address if it is one of this site, else that of the overview."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_local and address.isprintable() else "/"


def _json(body: Mapping[str, object]) -> Response:
    return Response(json.dumps(body), mimetype="application/json")


def _finish(response: Response) -> Response:
    language.remember(response)
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    if request.endpoint == "page.static" and response.status_code < 400:
        # Their address changes with their content, and nothing in them is secret.
        response.headers["Cache-Control"] = "public, max-age=604800"
    return response


def _sorry(title: str, text: str) -> str:
    return render_template("sorry.html", title=title, text=text, logged_in=False)


def _state_error(_error: StateError) -> AnyResponse:
    text = _("The hook's own memory cannot be read or written just now. Please try again.")
    return make_response(_sorry(_("That did not work"), text), 503)


def _http_error(error: HTTPException) -> AnyResponse:
    titles = {
        400: (_("That did not work"), _("The form was too old. Please go back and try again.")),
        403: (_("Not allowed"), _("The request came from another site.")),
        404: (_("Not found"), _("There is no such page or channel.")),
        429: (_("Too many wrong tokens"), _("Please wait a minute.")),
    }
    title, text = titles.get(error.code or 500, (_("That did not work"), error.name))
    response = make_response(_sorry(title, text), error.code or 500)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(int(WAIT_SECONDS))
    return response
