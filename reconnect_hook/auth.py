"""Who may come in: the token with each request, or by a form and then a session."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from flask import request
from werkzeug.datastructures import Authorization
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from zapwatch.clock import Clock

_log = logging.getLogger("reconnect_hook")

WRONG_TOKENS = 5
"""After so many in a row, the wrong ones of an address are answered 429."""

WAIT_SECONDS = 60.0
"""So long, counted from the last wrong one."""

_SESSION_SECONDS = 30 * 86400
_SESSIONS = 10_000
_ADDRESSES = 10_000
_COOKIE = "zapwatch"
_SAFE = {"GET", "HEAD", "OPTIONS"}


class LoginThrottle:
    """Counts the wrong tokens of each address, in bounded memory."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note_wrong(self, address: str) -> bool:
        """Count a wrong token; return whether there were too many of them."""
        now = self._clock.monotonic()
        with self._lock:
            count, at = self._counts.pop(address, (0, 0.0))
            count = count + 1 if now - at < WAIT_SECONDS else 1
            self._counts[address] = count, now
            while len(self._counts) > _ADDRESSES:
                self._counts.popitem(last=False)
        if count == WRONG_TOKENS:
            _log.warning("%s wrong tokens in a row came from %s", count, address)
        return count > WRONG_TOKENS

    def note_right(self, address: str) -> None:
        """Let the address begin anew."""
        if self._counts:
            with self._lock:
                self._counts.pop(address, None)


class _Sessions:
    """Sessions by random names, in memory: each ends with log-out, after 30 days or a restart.

    Nothing in a cookie follows from the token.
    """

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def begin(self) -> str:
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._until[_digest(name)] = self._clock.monotonic() + _SESSION_SECONDS
            while len(self._until) > _SESSIONS:
                self._until.popitem(last=False)
        return name

    def is_open(self, name: str) -> bool:
        return self._clock.monotonic() < self._until.get(_digest(name), 0.0)

    def end(self, name: str) -> None:
        with self._lock:
            self._until.pop(_digest(name), None)


class TokenAuth:
    """Lets in who knows the token.

    The right token is never refused, whatever else comes from its address: Alertmanager may share
    it with others. That the token cannot be guessed is for its length to see to.
    """

    def __init__(self, token: str, *, clock: Clock | None = None) -> None:
        self._token = token.encode()
        self._throttle = LoginThrottle(clock)
        self._sessions = _Sessions(clock)

    def knows(self, environ: Mapping[str, object]) -> bool:
        """Whether a request's head has the token or an open session; counts nothing."""
        given = _token_in(str(environ.get("HTTP_AUTHORIZATION", "")))
        if given is not None:
            return self._is_token(given)
        try:
            cookies = SimpleCookie(str(environ.get("HTTP_COOKIE", "")))
        except CookieError:
            return False
        return _COOKIE in cookies and self._sessions.is_open(cookies[_COOKIE].value)

    def check_token(self) -> None:
        """Raise Unauthorized, Forbidden or TooManyRequests unless the request has the token."""
        given = _token_in(request.headers.get("Authorization", ""))
        if given is None:
            raise Unauthorized
        # A browser may add a password that it remembers to what another site has made it send.
        _refuse_other_sites()
        self._check(given)

    def check(self) -> None:
        """Raise Unauthorized, Forbidden or TooManyRequests unless it may go on."""
        if _token_in(request.headers.get("Authorization", "")) is not None:
            self.check_token()
        elif self._sessions.is_open(request.cookies.get(_COOKIE, "")):
            _refuse_other_sites()
        else:
            raise Unauthorized

    def log_in(self, given: str) -> bool:
        """Whether the token is right; raise Forbidden for another site's form, TooManyRequests."""
        _refuse_other_sites()
        try:
            self._check(given)
        except Unauthorized:
            return False
        return True

    def begin_session(self, response: AnyResponse) -> None:
        """Give the browser a new session."""
        response.set_cookie(
            _COOKIE,
            self._sessions.begin(),
            max_age=_SESSION_SECONDS,
            path=_path(),
            httponly=True,
            # Not Strict: the link in a message must lead to the page, not to the form.
            samesite="Lax",
            secure=request.is_secure,
        )

    def end_session(self, response: AnyResponse) -> None:
        """End the browser's session, for whoever else may have its cookie too."""
        self._sessions.end(request.cookies.get(_COOKIE, ""))
        response.delete_cookie(_COOKIE, path=_path())

    def _check(self, given: str) -> None:
        address = request.remote_addr or ""
        if self._is_token(given):
            self._throttle.note_right(address)
        elif self._throttle.note_wrong(address):
            raise TooManyRequests(retry_after=int(WAIT_SECONDS))
        else:
            raise Unauthorized

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


def _path() -> str:
    """Return the path below which the page is: another program of the same host gets no cookie."""
    return request.script_root or "/"


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()


def _token_in(header: str) -> str | None:
    """Return what a script sends: a bearer token, or the password of any user."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    given = Authorization.from_header(header)
    return (given.password or "") if given is not None and given.type == "basic" else None


def _refuse_other_sites() -> None:
    """Raise Forbidden for what another site has made a browser send.

    Browsers say where a request comes from: in Sec-Fetch-Site where the page has TLS or is this
    machine's, else in Origin. What is no browser sends neither. A link that leads here may come
    from anywhere.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if request.method in _SAFE and origin is None:
        return
    # Origin is "null" for a form of a page that must not tell its address.
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Forbidden
    elif origin is not None and _host(origin) != request.host:
        raise Forbidden


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
