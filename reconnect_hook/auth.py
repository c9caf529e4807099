"""Authentication: the token with each request, or a login form and a session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import request
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized
from werkzeug.sansio.http import parse_cookie
from werkzeug.wrappers import Response as AnyResponse
from werkzeug.wsgi import get_host

from zapwatch.clock import Clock
from zapwatch.front import WAIT_SECONDS, LoginThrottle
from zapwatch.http import token_in

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_SESSION_SECONDS = 30 * 86400
_SESSIONS = 10_000
_COOKIE = "zapwatch"
_SAFE = {"GET", "HEAD", "OPTIONS"}


class TokenAuth:
    """Authenticates requests by the token or a session.

    The right token always passes, also from a blocked address, which Alertmanager may share with
    others. The token's length protects it against guessing. Sessions are independent of it, and in
    memory: each ends at log-out, after 30 days or at a restart.
    """

    def __init__(self, token: str, *, clock: Clock | None = None) -> None:
        self._token = token.encode()
        self.throttle = LoginThrottle(clock)
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._open_until: OrderedDict[bytes, float] = OrderedDict()

    def is_known(self, environ: WSGIEnvironment) -> bool:
        """Whether a request's headers have the token or an open session; counts no attempt."""
        given = token_in(environ.get("HTTP_AUTHORIZATION", ""))
        if given is not None:
            return self._is_token(given)
        return self._is_open(parse_cookie(environ.get("HTTP_COOKIE")).get(_COOKIE, ""))

    def has_credentials(self, environ: WSGIEnvironment) -> bool:
        """Whether a request's headers have a token, right or wrong."""
        return token_in(environ.get("HTTP_AUTHORIZATION", "")) is not None

    def check_token(self, environ: WSGIEnvironment) -> None:
        """Raise Unauthorized, Forbidden or TooManyRequests unless a request has the token."""
        given = token_in(environ.get("HTTP_AUTHORIZATION", ""))
        if given is None:
            raise Unauthorized
        # A browser may add a remembered password to a cross-site request.
        _refuse_other_sites(environ)
        self._check(given, environ)

    def check(self) -> None:
        """Raise Unauthorized, Forbidden or TooManyRequests without a token or session."""
        if token_in(request.headers.get("Authorization", "")) is not None:
            self.check_token(request.environ)
        elif self._is_open(request.cookies.get(_COOKIE, "")):
            _refuse_other_sites(request.environ)
        else:
            raise Unauthorized

    def log_in(self, given: str) -> None:
        """Raise Unauthorized, Forbidden (cross-site) or TooManyRequests unless it is the token."""
        _refuse_other_sites(request.environ)
        self._check(given, request.environ)

    def begin_session(self, response: AnyResponse) -> None:
        """Set the cookie of a new session."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._open_until[_digest(name)] = self._clock.monotonic() + _SESSION_SECONDS
            while len(self._open_until) > _SESSIONS:
                self._open_until.popitem(last=False)
        set_cookie(response, _COOKIE, name, _SESSION_SECONDS)

    def end_session(self, response: AnyResponse) -> None:
        """End the session on the server too, so that copies of its cookie are void."""
        with self._lock:
            self._open_until.pop(_digest(request.cookies.get(_COOKIE, "")), None)
        response.delete_cookie(_COOKIE, path=_path())

    def _is_open(self, session: str) -> bool:
        return self._clock.monotonic() < self._open_until.get(_digest(session), 0.0)

    def _check(self, given: str, environ: WSGIEnvironment) -> None:
        if self._is_token(given):
            return
        if self.throttle.note_wrong(environ.get("REMOTE_ADDR", "")):
            raise TooManyRequests(retry_after=int(WAIT_SECONDS))
        raise Unauthorized

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


def set_cookie(response: AnyResponse, name: str, value: str, seconds: int) -> None:
    """Set a cookie of the page."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=_path(),
        httponly=True,
        # Not Strict: a link in a message must open the page, not the login form.
        samesite="Lax",
        secure=request.is_secure,
    )


def _path() -> str:
    """Return the page's path prefix, which keeps the cookie from other programs on the host."""
    return request.script_root or "/"


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()


def _refuse_other_sites(environ: WSGIEnvironment) -> None:
    """Raise Forbidden if a browser sends the request from another site's page.

    Browsers send its source in Sec-Fetch-Site if the page has TLS or is on localhost, else in
    Origin; other clients send neither. Links from other sites (safe methods without Origin) are
    allowed.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    origin = environ.get("HTTP_ORIGIN")
    if origin is None and environ["REQUEST_METHOD"] in _SAFE:
        return
    # Origin is "null" for a form on a page with Referrer-Policy: no-referrer.
    is_other = origin is not None and _host(origin) != get_host(environ)
    if is_other if site is None else site not in {"same-origin", "none"}:
        raise Forbidden


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
