"""The form for the token, and the way out."""

from __future__ import annotations

from flask import Blueprint, make_response, redirect, render_template, request, session, url_for
from flask_babel import gettext as _
from werkzeug.exceptions import BadRequest, TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.page.answers import sorry
from reconnect_hook.page.door import WAIT_SECONDS, WRONG_TOKENS, Door
from reconnect_hook.page.rendering import this_address

OPEN = {"page.log_in", "page.login_form", "page.static"}
"""The endpoints that need no session."""


class Login:
    """The views; each is one method."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def add_to(self, routes: Blueprint) -> None:
        """Make the routes."""
        routes.add_url_rule("/login", "login_form", self._form, methods=["GET"])
        routes.add_url_rule("/login", "log_in", self._log_in, methods=["POST"])
        routes.add_url_rule("/logout", "log_out", self._log_out, methods=["POST"])
        routes.register_error_handler(Unauthorized, self._unauthorized)

    def _form(self, wrong: str = "") -> str:
        return render_template("login.html", next=_local(request.args.get("next", "")), wrong=wrong)

    def _log_in(self) -> AnyResponse:
        try:
            right = self._door.log_in(request.form.get("token", ""))
        except TooManyRequests:
            words = _("After %(count)s wrong tokens, please wait a minute.", count=WRONG_TOKENS)
            response = make_response(self._form(words), 429)
            response.headers["Retry-After"] = str(int(WAIT_SECONDS))
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
        return sorry(401, _("Please log in"), _("You are not logged in."))


def _local(address: str) -> str:
    """Return an address if it is one of this site, else that of the overview."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_local and address.isprintable() else "/"
