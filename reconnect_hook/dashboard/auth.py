"""Who may come in: the token by form, then a session; or with each request, for scripts."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from urllib.parse import urlsplit

from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized

from zapwatch.clock import Clock

WRONG_TOKENS = 5
"""After so many in a row, an address has to wait."""

WAIT_SECONDS = 60.0
"""So long, counted from the last wrong one."""

_SESSION_DAYS = 30
_ADDRESSES = 10_000


class LoginThrottle:
    """Counts the wrong tokens of each address, in bounded memory."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_blocked(self, address: str) -> bool:
        """Whether the address may not try any token now."""
        with self._lock:
            count, at = self._counts.get(address, (0, 0.0))
            if self._clock.monotonic() - at >= WAIT_SECONDS:
                self._counts.pop(address, None)
                return False
            return count >= WRONG_TOKENS

    def note(self, address: str, *, right: bool) -> None:
        """Count a wrong one; a right one lets the address begin anew."""
        with self._lock:
            count, _ = self._counts.pop(address, (0, 0.0))
            if right:
                return
            self._counts[address] = count + 1, self._clock.monotonic()
            while len(self._counts) > _ADDRESSES:
                self._counts.popitem(last=False)


class TokenAuth:
    """Lets in who knows the token."""

    def __init__(self, app: Flask, token: str, *, clock: Clock | None = None) -> None:
        """Set up the application's sessions.

        Their key follows from the token: all hooks with the same one share the sessions, and
        another token ends them.
        """
        self._token = token.encode()
        self._wrong = LoginThrottle(clock=clock)
        app.secret_key = hmac.new(self._token, b"zapwatch sessions 1", hashlib.sha256).digest()
        app.session_interface = _Sessions()
        app.config.update(
            SESSION_COOKIE_NAME="zapwatch",
            SESSION_COOKIE_HTTPONLY=True,
            # Not Strict: the link in a message must lead to the page, not to the form.
            SESSION_COOKIE_SAMESITE="Lax",
            PERMANENT_SESSION_LIFETIME=_SESSION_DAYS * 86400,
            SESSION_REFRESH_EACH_REQUEST=False,
            # Checked here, where it is known whether the session is what let the request in.
            WTF_CSRF_CHECK_DEFAULT=False,
            # As long as the session: a page may stand open for a night.
            WTF_CSRF_TIME_LIMIT=None,
            # It wants the header Referer, which no-referrer keeps back; the cookie is SameSite.
            WTF_CSRF_SSL_STRICT=False,
        )
        self._csrf = CSRFProtect(app)

    def log_in(self, given: str) -> bool:
        """Begin a session if the token is right; raise TooManyRequests, or for a forged form."""
        self._csrf.protect()
        if not self._is_right(given):
            return False
        session.clear()
        session.permanent = True
        session["in"] = True
        return True

    def check(self) -> None:
        """Raise Unauthorized, Forbidden, TooManyRequests or BadRequest unless it may go on."""
        given = _token_of_request()
        if given is not None:
            # A browser may add a password that it remembers to what another site has made it send.
            origin = request.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != request.host:
                raise Forbidden
            if not self._is_right(given):
                raise Unauthorized
        elif session.get("in") is True:
            self._csrf.protect()
        else:
            raise Unauthorized

    def _is_right(self, given: str) -> bool:
        address = request.remote_addr or ""
        if self._wrong.is_blocked(address):
            raise TooManyRequests(retry_after=int(WAIT_SECONDS))
        right = hmac.compare_digest(given.encode("utf-8", "replace"), self._token)
        self._wrong.note(address, right=right)
        return right


def _token_of_request() -> str | None:
    """Return what a script sends: a bearer token, or the password of any user."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    given = request.authorization
    return (given.password or "") if given is not None and given.type == "basic" else None


class _Sessions(SecureCookieSessionInterface):
    """Cookies that browsers send over TLS alone, where there is TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's signature
        """Return what the attribute Secure is to be."""
        return request.is_secure
