"""QR codes, pairing codes and scan links: the page behind a link, and the links' dialog."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import as_json
from reconnect_hook.dashboard.channel_view import ChannelHealth, ChannelView
from reconnect_hook.dashboard.i18n import QR_STATES, VALID_FOR
from reconnect_hook.dashboard.qr import NO_IMAGE, PairingLimitError, QrState
from reconnect_hook.dashboard.snapshot import DashboardCache, GatewayPanel, GatewayPanels
from reconnect_hook.dashboard.timeline import ConnectedShares
from reconnect_hook.event_log import EventLog
from reconnect_hook.scan_links import HOURS, MAX_NAME_LENGTH, LinkKind, ScanLink, TooManyLinksError
from zapwatch.channels import Status, channel_key
from zapwatch.config import hook_link
from zapwatch.db import StateError
from zapwatch.front import RETRY_LATER, LoginThrottle
from zapwatch.gateways.base import GatewayError, GatewayErrorKind
from zapwatch.gateways.helpers import other_form, phone_number

_log = logging.getLogger("reconnect_hook")

_VISITS = 10_000
_AWAY_SECONDS = 600.0  # after which a returning visitor counts as another opening
_SHOWN_DIGITS = 4
_OWN_WORDS = {GatewayErrorKind.HTTP, GatewayErrorKind.INVALID}


def usable_name(text: object) -> str | None:
    """Return a link's name stripped; None if it is too long or not one printable line."""
    if not isinstance(text, str) or len(text) > MAX_NAME_LENGTH:
        return None
    return text.strip() if text.isprintable() else None


def create_link(
    panels: GatewayPanels, channel: str, name: str, hours: int, kind: str
) -> tuple[ScanLink, str]:
    """Return a new link and its address; raise TooManyLinksError, StateError.

    The address is below HOOK_EXTERNAL_URL, else on the host of the current request.
    """
    panel = panels.of_request()
    link, token = panels.supervisor.scan_links.create(panel.name, channel, name, hours, kind)
    _note(panel.controller.events, link, "created", hours=hours)
    if panels.settings.hook_external_url:
        return link, hook_link(panels.settings, f"/scan/{token}")
    return link, url_for("scan.page", token=token, _external=True)


def revoke_link(panels: GatewayPanels, link_id: str) -> bool:
    """Revoke a link; return whether it existed."""
    link = panels.supervisor.scan_links.revoke(link_id)
    if link is not None:
        _note(panels.supervisor.events_of(link.gateway), link, "revoked")
    return link is not None


def _note(events: EventLog, link: ScanLink, outcome: str, **more: object) -> None:
    events.write(
        channel=link.channel,
        action=f"{link.kind}_link",
        outcome=outcome,
        link=link.id,
        name=link.name or None,
        address=request.remote_addr,
        **more,
    )


def pairing_answer(
    panel: GatewayPanel,
    channel: str,
    typed: object,
    *,
    link: ScanLink | None = None,
    shows_other: bool = True,
) -> Response:
    """Return a pairing code for the typed number as JSON, or why there is none.

    The number goes to the gateway and is never stored or logged. ``shows_other``: the answer has
    the number's other form, which may be the registered one.
    """

    def answer(status: int, other: str | None = None, **body: object) -> Response:
        return as_json(status, body | ({"other": other} if shows_other else {}))

    if not panel.controller.client.can_pair:
        return answer(409, error=_("This gateway has no pairing codes."))
    phone = phone_number(typed) if isinstance(typed, str) else None
    if phone is None:
        words = _("Enter a phone number with its country code, such as +55 29 91234-5678.")
        return answer(400, error=words)
    note = panel.controller.events.write
    about = {
        "channel": channel,
        "action": "pairing_code",
        "link": link.id if link else None,
        "address": request.remote_addr,
    }
    try:
        made = panel.watches.pair(channel, phone)
    except PairingLimitError as error:
        seconds = round(error.seconds) + 1
        words = _("Please wait %(seconds)s seconds for the next code.", seconds=seconds)
        response = answer(429, error=words)
        response.headers["Retry-After"] = str(seconds)
        return response
    except GatewayError as error:
        note(**about, outcome="failed", detail=str(error))
        # A connection error may contain the gateway's address: hide it from visitors.
        tells = link is None or error.reason in _OWN_WORDS
        said = _("The gateway's error message: %(words)s", words=error.detail) if tells else ""
        no_code = _("There is no code.")
        return answer(409, other_form(phone), error=f"{no_code} {said}".strip())
    note(**about, outcome="issued")
    return answer(200, other_form(phone), code=made.code, expires_in=made.seconds)


def _code_state(state: QrState, number: int) -> Response:
    """Return the state of a code as JSON for page.js."""
    return as_json(200, {"state": state, "number": number, "words": str(QR_STATES[state])})


def _code_image(panel: GatewayPanel, channel: str) -> Response:
    image = panel.watches.image(channel) or NO_IMAGE
    return Response(image.data, mimetype=image.kind)


class ScanDialogs:
    """QR codes, pairing codes and links of a channel, for operators.

    The links are a page, which page.js shows as a dialog.
    """

    def __init__(self, board: DashboardCache) -> None:
        self._board = board
        self._panels = board.panels

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes."""
        routes.add_url_rule("/share/<channel:channel>", "share", self._show)
        routes.add_url_rule("/share/<channel:channel>", "new_link", self._create, methods=["POST"])
        routes.add_url_rule("/unshare/<channel:channel>", "unshare", self._end, methods=["POST"])
        routes.add_url_rule("/live/qr/<channel:channel>", "live_qr", self._live)
        routes.add_url_rule("/qr/<channel:channel>", "qr_image", self._image)
        routes.add_url_rule("/pair/<channel:channel>", "pair", self._pair, methods=["POST"])

    def _live(self, channel: str) -> Response:
        """Return the code's state; each call keeps the poll running."""
        return _code_state(*self._look(channel))

    def _image(self, channel: str) -> Response:
        self._look(channel)
        return _code_image(self._panels.of_request(), channel)

    def _look(self, channel: str) -> tuple[QrState, int]:
        panel = self._panels.of_request()
        if panel.watches.scanned(channel_key(channel)):
            # The page's next request must see the connection.
            self._board.look(now=True)
            return QrState.CONNECTED, 0
        row = self._board.look().row(panel.name, channel)
        if row is None or row.kind is not ChannelHealth.NEEDS_SCAN:
            return QrState.NONE, 0
        return panel.watches.look(row.channel)

    def _pair(self, channel: str) -> Response:
        panel = self._panels.of_request()
        row = self._board.known(channel)  # some gateways would create an unknown session
        return pairing_answer(panel, row.channel, request.form.get("phone", ""))

    def _show(
        self, channel: str, *, address: str = "", kind: str = LinkKind.SCAN, wrong: str = ""
    ) -> str:
        panel = self._panels.of_request()
        return render_template(
            "share.html",
            logged_in=True,
            name=channel,
            gateway=panel.name,
            links=self._panels.supervisor.scan_links.of_channel(panel.name, channel),
            valid_for={one: {hours: VALID_FOR[hours] for hours in HOURS[one]} for one in LinkKind},
            most=MAX_NAME_LENGTH,
            address=address,
            kind=kind,
            wrong=wrong,
        )

    def _create(self, channel: str) -> str:
        name, hours = usable_name(request.form.get("name", "")), request.form.get("hours", "")
        kind = request.form.get("kind", LinkKind.SCAN)
        if name is None or hours not in {str(one) for one in HOURS.get(kind, ())}:
            abort(400)
        listed = self._board.known(channel).channel
        try:
            _link, address = create_link(self._panels, listed, name, int(hours), kind)
        except TooManyLinksError:
            return self._show(channel, wrong=_("There are too many links. End one first."))
        return self._show(channel, address=address, kind=kind)

    def _end(self, channel: str) -> str:
        revoke_link(self._panels, request.form.get("link", ""))
        return self._show(channel)


class ScanPage:
    """The visitors' pages: one channel's codes or status, nothing else of the installation."""

    def __init__(self, board: DashboardCache) -> None:
        self._board = board
        self._panels = board.panels
        self._links = board.panels.supervisor.scan_links
        self._shares = ConnectedShares(board.prometheus, clock=board.clock)
        self._throttle = LoginThrottle(board.clock)
        self._clock = board.clock
        self._visits: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = threading.Lock()

    def blueprint(self) -> Blueprint:
        """Register the routes."""
        routes = Blueprint(
            "scan",
            __name__,
            url_prefix="/scan",
            template_folder="templates",
            static_folder="static",
            static_url_path="/-",
        )
        routes.add_url_rule("/<token>", "page", self._page)
        routes.add_url_rule("/<token>/live", "live", self._live)
        routes.add_url_rule("/<token>/qr", "image", self._image)
        routes.add_url_rule("/<token>/pair", "pair", self._pair, methods=["POST"])
        routes.after_request(_finish)
        # By code too: the application's handlers of 404 and 405 precede a blueprint's general one.
        for kind in (404, 405, HTTPException):
            routes.register_error_handler(kind, _refuse)
        # Flask's own handler would log the URL, and with it the token.
        routes.register_error_handler(Exception, _fail)
        return routes

    def _find(self, token: str, *kinds: LinkKind) -> tuple[ScanLink, GatewayPanel]:
        """Return a valid link and its gateway; all invalid tokens get the same answer."""
        link = self._links.find(token)
        panel = self._panels.all.get(link.gateway) if link else None
        if link is not None and panel is not None and link.kind in kinds:
            return link, panel
        answer = _not_valid()
        if self._throttle.note_wrong(request.remote_addr or ""):
            answer.headers.set(*RETRY_LATER)
        raise NotFound(response=answer)

    def _page(self, token: str) -> str:
        link, panel = self._find(token, *LinkKind)
        if link.kind == LinkKind.STATUS:
            return self._status(link, panel)
        number = panel.number_of(link.channel)
        return render_template(
            "scan.html",
            channel=link.channel,
            token=token,
            can_pair=panel.controller.client.can_pair,
            # Enough for its owner to recognise the phone, without revealing the number.
            ends_in=number[-_SHOWN_DIGITS:] if number else "",
        )

    def _status(self, link: ScanLink, panel: GatewayPanel) -> str:
        self._note_visit(link, panel)
        row, is_gone = self._view(link)
        shares = self._shares.of(link.gateway, link.channel)
        since: float | None = None
        if is_gone or (row is not None and row.is_down):
            state, since = ChannelHealth.DISCONNECTED, shares.connected_at
        elif row is not None and row.said == Status.CONNECTED:
            state, since = ChannelHealth.CONNECTED, shares.dropped_at
        else:
            state = ChannelHealth.UNKNOWN
        name = link.name or link.channel
        return render_template("status.html", name=name, state=state, since=since, shares=shares)

    def _live(self, token: str) -> Response:
        """Return the code's state; each call keeps the poll running."""
        return _code_state(*self._look(*self._find(token, LinkKind.SCAN)))

    def _image(self, token: str) -> Response:
        link, panel = self._find(token, LinkKind.SCAN)
        self._look(link, panel)
        return _code_image(panel, link.channel)

    def _pair(self, token: str) -> Response:
        link, panel = self._find(token, LinkKind.SCAN)
        _row, is_gone = self._view(link)
        if is_gone:
            raise NotFound
        self._note_visit(link, panel)
        return pairing_answer(panel, link.channel, request.form.get("phone", ""), link=link)

    def _note_visit(self, link: ScanLink, panel: GatewayPanel) -> None:
        """Record a visit, again only after _AWAY_SECONDS without one.

        Loading a scan page alone is no visit: messengers fetch it for a preview.
        """
        visitor, now = (link.id, request.remote_addr or ""), self._clock.monotonic()
        with self._lock:
            seen_at = self._visits.pop(visitor, float("-inf"))
            self._visits[visitor] = now
            while len(self._visits) > _VISITS:
                self._visits.popitem(last=False)
        if now - seen_at >= _AWAY_SECONDS:
            self._links.note_opened(link)
            _note(panel.controller.events, link, "opened")

    def _look(self, link: ScanLink, panel: GatewayPanel) -> tuple[QrState, int]:
        self._note_visit(link, panel)
        if panel.watches.scanned(channel_key(link.channel)):
            return QrState.CONNECTED, 0
        row, is_gone = self._view(link)
        if is_gone:
            return QrState.NONE, 0
        needs_scan = row is None or row.kind is ChannelHealth.NEEDS_SCAN
        if row is not None and row.said == Status.CONNECTED and not needs_scan:
            # The wrapper's call for a code would reconnect this working session.
            return QrState.CONNECTED, 0
        return panel.watches.look(link.channel)

    def _view(self, link: ScanLink) -> tuple[ChannelView | None, bool]:
        """Return the channel's row, and whether the gateway no longer lists the channel.

        A call for an unlisted channel would create a session of that name.
        """
        snapshot = self._board.look()
        row = snapshot.row(link.gateway, link.channel)
        return row, row is None and snapshot.has_list(link.gateway)


def _finish(response: Response) -> Response:
    """Keep the URL, which contains the token, from other sites and search engines."""
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response


def _message(status: int, title: str, text: str) -> AnyResponse:
    return make_response(render_template("scan_message.html", title=title, text=text), status)


def _not_valid() -> AnyResponse:
    text = _("It may have expired or been ended. Please ask the sender for a new one.")
    return _message(404, _("This link does not work"), text)


def _refuse(error: HTTPException) -> AnyResponse:
    if error.response is not None:
        return error.get_response()
    code = error.code or 500
    return _not_valid() if code == 404 else _message(code, _("Something went wrong"), error.name)


def _fail(error: Exception) -> AnyResponse:
    status = 503 if isinstance(error, StateError) else 500
    if status == 500:
        _log.error("a scan link's page failed: internal error", exc_info=error)
    return _message(status, _("Something went wrong"), _("Please try again in a moment."))
