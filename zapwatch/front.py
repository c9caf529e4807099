"""Web server of both programs: granian, and an RSGI front for the WSGI application.

``Front`` runs one coroutine per request, so that a slow client occupies a connection but no thread.
Once a request is complete, a thread calls the application.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from ipaddress import IPv6Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import bcrypt
from granian._granian import RSGIProtocolClosed, RSGIProtocolError, SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mt import MTServer
from werkzeug.datastructures import Authorization
from werkzeug.test import run_wsgi_app

from zapwatch.clock import Clock
from zapwatch.config import Listen, SettingsError
from zapwatch.config.files import Tls, read_web_config
from zapwatch.config.readers import PATH_PREFIX
from zapwatch.server import fail, ignore_further_signals, notify, start_thread, vouch_for

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from zapwatch.metrics import Page

    AnswerTogether = Callable[[Sequence[WSGIEnvironment]], Sequence["Answer" | None]]
    _Outcome = tuple[asyncio.Future["Answer"], "Answer" | Exception]

_log = logging.getLogger("server")

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""Limit of a body; a larger one gets a 413."""

MAX_HEADER_BYTES = 32 * 1024
"""Limit of all headers together; larger ones get a 431."""

STRANGER_BYTES = 8 * 1024
"""Limit of a body without a valid token: enough for the login form."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Headers of every response of the hook."""

REQUEST_SECONDS = 30
"""Time-out for a complete request, for the next request, and for a client that does not read."""

WRONG_TOKENS = 5
"""Wrong tokens from an address, each within WAIT_SECONDS of the last; then they get 429."""

WAIT_SECONDS = 60.0
"""Length of that block, from the last wrong token."""

RETRY_LATER = "Retry-After", str(int(WAIT_SECONDS))
"""Header of an answer during that block; it comes a second late."""

_BACKLOG = 1024  # connections that wait for accept()
_CONNECTIONS = 4096
_OTHER_FILES = 128  # open files of a program besides its connections
_END_SECONDS = 1  # for requests in progress at shutdown
_LINGER_SECONDS = 1.0  # for the rest of a refused body
_LINGER_BYTES = 1024 * 1024
_HEALTH = "/-/healthy"
_METRICS = "/metrics"
_UNFINISHED_BYTES = 64 * 1024 * 1024  # of all incomplete bodies together
_DISCARDED = 4  # multiple of the limit that is read and discarded, so that the sender sees the 413
_THREADS = 8
# Limits of a batch: its first answer waits for its last, and all its bodies are parsed at once.
_BATCH_REQUESTS = 64
_BATCH_BYTES = 1024 * 1024
# Senders who were answered together send again together, but not in the same instant.
_BATCH_SECONDS = 0.0005
_METRICS_THREADS = 2
_PASSWORDS = 100  # accepted ones in the cache
_PASSWORD_BYTES = 72  # limit of bcrypt
# A check against it takes the usual time, so that timing does not reveal which users exist.
_NOBODY = b"$2b$10$" + b"." * 53
_ADDRESSES = 10_000
_WATCH_SECONDS = 1.0  # between two checks of certificates and users for changes
_SLOW_SECONDS = 1.0  # delay of a response to a rate-limited client
# Until the ping of the database, and for its response: less than a second in all. Many short waits
# for it, since an overloaded machine delays each of them as it delays the ping.
_PATIENCE_SECONDS = 0.5
_PING_TICKS = 20
_TICK_SECONDS = 0.02


class Answer(NamedTuple):
    """Complete response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class LoginThrottle:
    """Counts wrong tokens by address, in bounded memory; thread-safe.

    Right tokens reset nothing: behind a proxy, the address may be shared by those who guess.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note_wrong(self, address: str) -> bool:
        """Count a wrong token; return whether the address has exceeded WRONG_TOKENS."""
        now = self._clock.monotonic()
        network = _network(address)
        with self._lock:
            count, at = self._counts.pop(network, (0, 0.0))
            count = count + 1 if now - at < WAIT_SECONDS else 1
            self._counts[network] = count, now
            while len(self._counts) > _ADDRESSES:
                self._counts.popitem(last=False)
        if count == WRONG_TOKENS:
            _log.warning("%s wrong tokens came from %s", count, address)
        return count > WRONG_TOKENS


class Authentication(Protocol):
    """The application's answers to the front about a client."""

    throttle: LoginThrottle
    """Counts the wrong tokens, also those that reach the application."""

    def is_known(self, environ: WSGIEnvironment) -> bool:
        """Whether the request's headers permit a large body; counts no attempt."""

    def has_credentials(self, environ: WSGIEnvironment) -> bool:
        """Whether the request has a token or password, right or wrong: without, it is no guess."""


class Front:
    """Adapter from RSGI, granian's interface, to one WSGI application.

    ``/-/healthy`` bypasses the threads; plain ``/metrics`` has its own, or bypasses them
    if ``cached_metrics`` returns a page for Accept and Accept-Encoding. One thread handles waiting
    requests to the path ``urgent`` (below it, if it ends with a slash): ``answer_together`` may
    store their data in one transaction, and returns None for those that the application is to
    answer, one by one. Paths with the prefix ``keyed`` contain a key: they need no password and are
    not logged. ``external_url`` is the address for clients: its path prefixes every address in a
    response, and is optional in requests. ``ping`` queries the database: while it gets no response
    and no ``urgent`` request is accepted (202), waiting requests get a 503 within a second.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        auth: Authentication,
        urgent: str,
        answer_together: AnswerTogether | None = None,
        external_url: str = "",
        keyed: str | None = None,
        trusted_proxy: str | None = None,
        ping: Callable[[], object] | None = None,
    ) -> None:
        self.users: Mapping[str, bytes] = {}
        self.cached_metrics: Callable[[str, str], Page | None] = lambda *_: None
        self._of_passwords = ThreadPoolExecutor(1, "passwords")
        self._right_passwords: set[tuple[bytes, bytes]] = set()
        self._turns: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()
        self._app = app
        self._auth = auth
        self._urgent = urgent
        self._external = urlsplit(external_url)
        self._keyed = keyed
        self._trusted_proxy = trusted_proxy
        self._ping = ping
        self._of_metrics = ThreadPoolExecutor(_METRICS_THREADS, "metrics")
        self._of_urgent = _Batches(self._call, answer_together)
        self._of_others = ThreadPoolExecutor(_THREADS, "pages")
        self._of_ping = ThreadPoolExecutor(1, "ping")
        self._pinging: asyncio.Task[None] | None = None
        self._ticks = 0  # since the ping's start, or the last urgent success since
        self._unfinished_bytes = 0

    async def __call__(self, scope: Any, protocol: Any) -> None:
        """Handle one request."""
        try:
            answer = await self._answer(scope, protocol)
        except Exception:  # noqa: BLE001 - the next one may succeed
            _log.exception("a request failed: internal error")
            answer = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        is_limited = any(name == "Retry-After" for name, _ in answer.headers)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS or is_limited:
            await asyncio.sleep(_SLOW_SECONDS)
        # Otherwise granian sets its own name.
        protocol.response_bytes(answer.status, [*answer.headers, ("server", "")], answer.body)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            await _drop_rest(protocol)

    async def _answer(self, scope: Any, protocol: Any) -> Answer:
        headers = list(scope.headers.items())
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        environ = self._environ(scope, headers)
        path = environ["PATH_INFO"]
        is_open = path == _HEALTH or self._is_keyed(path)
        if self.users and not is_open and not self._auth.is_known(environ):
            if not await self._has_password(environ):
                return self._turn_away(environ)
            # The application may expect its own token in this header.
            environ.pop("HTTP_AUTHORIZATION")
        refusal = await self._take_body(environ, protocol)
        if refusal is not None:
            return refusal
        if path == _HEALTH:
            return self._call(environ)
        if path == _METRICS and not environ["QUERY_STRING"]:  # name[] is rendered each time
            accepted = environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", "")
            page = self.cached_metrics(*accepted) if environ["REQUEST_METHOD"] == "GET" else None
            if page is not None:
                return Answer(HTTPStatus.OK, list(page.headers.items()), page.body)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._of_metrics, self._call, environ)
        if self._ping is None:
            return await self._calling(environ)
        return await self._unless_hung(environ, self._ping)

    async def _take_body(self, environ: WSGIEnvironment, protocol: Any) -> Answer | None:
        """Read the body into ``environ``; return an answer if it is refused."""
        environ["wsgi.input"] = io.BytesIO()
        if environ.get("CONTENT_LENGTH", "0") == "0" and "HTTP_TRANSFER_ENCODING" not in environ:
            return None
        # Only a known client's body is waited for, which confirms a guess: so each guess counts.
        is_post = environ["REQUEST_METHOD"] == "POST" and not self._is_keyed(environ["PATH_INFO"])
        known = is_post and self._auth.is_known(environ)
        is_wrong = is_post and not known and self._auth.has_credentials(environ)
        if is_wrong and not self._is_urgent(environ):  # there the application counts it
            return self._turn_away(environ)
        try:
            body = await self._body(environ, protocol, known=known)
        except _RefusedError as refused:
            return _refusal(*refused.args)
        # The application rejects an oversized body by its declared length.
        too_large = str(MAX_REQUEST_BYTES + 1) if known else "0"
        environ["CONTENT_LENGTH"] = too_large if body is None else str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["wsgi.input"] = io.BytesIO(body or b"")
        return None

    def _turn_away(self, environ: WSGIEnvironment) -> Answer:
        """Refuse a request without a valid token or password; count a wrong one."""
        address = environ["REMOTE_ADDR"]
        if self._auth.has_credentials(environ) and self._auth.throttle.note_wrong(address):
            return _refusal(HTTPStatus.TOO_MANY_REQUESTS, None, RETRY_LATER)
        scheme = "Basic" if self.users else "Bearer"
        asks = ("WWW-Authenticate", f'{scheme} realm="Zapwatch"')
        return _refusal(HTTPStatus.UNAUTHORIZED, None, asks)

    def _is_urgent(self, environ: WSGIEnvironment) -> bool:
        path: str = environ["PATH_INFO"]
        return path == self._urgent or (self._urgent[-1] == "/" and path.startswith(self._urgent))

    def _calling(self, environ: WSGIEnvironment) -> asyncio.Future[Answer]:
        if self._is_urgent(environ):
            return self._of_urgent.submit(environ)
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._of_others, self._call, environ)

    def _is_keyed(self, path: str) -> bool:
        return self._keyed is not None and path.startswith(self._keyed)

    async def _has_password(self, environ: WSGIEnvironment) -> bool:
        """Whether the request has the password of one of ``users``."""
        given = Authorization.from_header(environ.get("HTTP_AUTHORIZATION"))
        if given is None or given.type != "basic":
            return False
        password = (given.password or "").encode()[:_PASSWORD_BYTES]
        expected = self.users.get(given.username or "", _NOBODY)
        # A hash takes a twentieth of a second by design: check one at a time, cache accepted ones.
        seen = expected, hashlib.sha256(password).digest()
        if seen in self._right_passwords:
            return True
        loop = asyncio.get_running_loop()
        # One check of an address at a time, so that its wrong passwords delay no other's.
        async with self._turns.setdefault((loop, _network(environ["REMOTE_ADDR"])), asyncio.Lock()):
            if seen in self._right_passwords:
                return True
            check = partial(bcrypt.checkpw, password, expected)
            right = await loop.run_in_executor(self._of_passwords, check)
        if right and expected != _NOBODY:
            self._right_passwords = {seen, *list(self._right_passwords)[:_PASSWORDS]}
        return right and expected != _NOBODY

    async def _body(self, environ: WSGIEnvironment, protocol: Any, *, known: bool) -> bytes | None:
        """Return the body, None if it exceeds its limit; raise _RefusedError."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._read(environ, protocol, known=known)
        except TimeoutError:
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT) from None
        except RSGIProtocolClosed:
            raise _RefusedError(HTTPStatus.BAD_REQUEST) from None

    async def _read(self, environ: WSGIEnvironment, protocol: Any, *, known: bool) -> bytes | None:
        limit = MAX_REQUEST_BYTES if known else STRANGER_BYTES
        # Python limits the digits of a number, leading zeros too.
        declared = int(environ.get("CONTENT_LENGTH", "").lstrip("0") or "0")
        if not known and declared > limit:
            return None
        is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        if declared <= STRANGER_BYTES and not is_chunked:
            # In one piece, since each costs handovers between granian's threads and the loop.
            return bytes(await protocol())
        chunks: list[bytes] = []
        size = kept = 0
        try:
            async for chunk in protocol:
                size += len(chunk)
                if size > limit:
                    chunks.clear()
                    if not known or size > limit * _DISCARDED:
                        return None
                    continue
                kept += len(chunk)
                self._unfinished_bytes += len(chunk)
                if self._unfinished_bytes > _UNFINISHED_BYTES:
                    raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE)
                chunks.append(bytes(chunk))
        finally:
            self._unfinished_bytes -= kept
        if size < declared and not is_chunked:  # granian's iterator just ends
            raise RSGIProtocolClosed
        return None if size > limit else b"".join(chunks)

    async def _unless_hung(self, environ: WSGIEnvironment, ping: Callable[[], object]) -> Answer:
        """Call the application; return a 503 if neither it nor the database responds."""
        loop = asyncio.get_running_loop()
        if self._pinging is not None and self._pinging.get_loop() is not loop:
            self._pinging = None  # from before a reload of the certificate
        if self._hangs(self._pinging):
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the state does not answer")
        calling = self._calling(environ)
        while True:
            done, _ = await asyncio.wait((calling,), timeout=_PATIENCE_SECONDS)
            if done:
                answer = calling.result()
                # On an overloaded machine the ping may be late although the database responds.
                if answer.status == HTTPStatus.ACCEPTED and self._is_urgent(environ):
                    self._ticks = 0
                return answer
            if self._pinging is None or self._pinging.done():
                self._pinging = loop.create_task(self._await_ping(ping))
            pinging, either = self._pinging, asyncio.FIRST_COMPLETED
            while not (calling.done() or pinging.done()):
                await asyncio.wait((calling, pinging), timeout=_TICK_SECONDS, return_when=either)
                if self._hangs(pinging) and not calling.done():
                    calling.cancel()
                    path = environ["PATH_INFO"]
                    shown = self._keyed if self._is_keyed(path) else path
                    _log.warning("the state does not answer: %s is refused", shown)
                    return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the state does not answer")

    async def _await_ping(self, ping: Callable[[], object]) -> None:
        """Ping the database, and count the waits for its response."""
        self._ticks = 0
        pinging = asyncio.get_running_loop().run_in_executor(self._of_ping, _quietly, ping)
        while not pinging.done():
            await asyncio.wait((pinging,), timeout=_TICK_SECONDS)
            self._ticks += 1

    def _hangs(self, pinging: asyncio.Task[None] | None) -> bool:
        return pinging is not None and not pinging.done() and self._ticks >= _PING_TICKS

    def _call(self, environ: WSGIEnvironment) -> Answer:
        body, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        return Answer(int(status[:3]), list(headers), b"".join(body))

    def _environ(self, scope: Any, headers: list[tuple[str, str]]) -> WSGIEnvironment:
        """Return the WSGI environment of a request, without its body."""
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": scope.method,
            "SCRIPT_NAME": "",
            # WSGI decodes each byte as one character.
            "PATH_INFO": scope.path.encode().decode("latin-1"),
            "QUERY_STRING": scope.query_string.encode().decode("latin-1"),
            "REMOTE_ADDR": _host(scope.client),
            "SERVER_NAME": _host(scope.server),
            "SERVER_PORT": scope.server.rpartition(":")[2],
            "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scope.scheme,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in headers:
            if "_" in name:  # WSGI cannot tell it from the hyphenated name, which proxies check
                continue
            key = name.upper().replace("-", "_")
            if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
                key = f"HTTP_{key}"
            several = "; " if name == "cookie" else ","
            environ[key] = f"{environ[key]}{several}{value}" if key in environ else value
        environ.setdefault("HTTP_HOST", scope.authority or "")
        if environ["HTTP_HOST"] == self._external.netloc:
            environ["wsgi.url_scheme"] = self._external.scheme
        prefix = self._believe_the_proxy(environ) or self._external.path
        environ["SCRIPT_NAME"] = prefix
        path = environ["PATH_INFO"]
        # Some proxies keep the prefix in the path, others strip it.
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path.removeprefix(prefix)
        # Normalized as the application does, so that both see the same path.
        environ["PATH_INFO"] = "/" + path.lstrip("/")
        return environ

    def _believe_the_proxy(self, environ: WSGIEnvironment) -> str:
        """Apply the X-Forwarded headers of the trusted proxy; remove those of others.

        Returns the path prefix, empty without one.
        """
        client = environ.pop("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        scheme = environ.pop("HTTP_X_FORWARDED_PROTO", "").strip().lower()
        prefix = environ.pop("HTTP_X_FORWARDED_PREFIX", "").rstrip("/")
        if environ["REMOTE_ADDR"] != self._trusted_proxy:
            return ""
        if client:
            environ["REMOTE_ADDR"] = client
        if scheme in {"http", "https"}:
            environ["wsgi.url_scheme"] = scheme
        return prefix if PATH_PREFIX.fullmatch(prefix) else ""


class _Batches:
    """One thread that answers all waiting requests together.

    Each handover between threads costs a wait for the GIL, each transaction a commit, and the
    application more than the rest of a request.
    """

    def __init__(
        self,
        call: Callable[[WSGIEnvironment], Answer],
        answer_together: AnswerTogether | None,
    ) -> None:
        self._call = call
        self._answer_together = answer_together
        self._waiting: queue.SimpleQueue[tuple[WSGIEnvironment, asyncio.Future[Answer]]] = (
            queue.SimpleQueue()
        )
        start_thread("urgent", self._work)

    def submit(self, environ: WSGIEnvironment) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put((environ, future))
        return future

    def _work(self) -> None:
        batch: list[tuple[WSGIEnvironment, asyncio.Future[Answer]]] = []
        while True:
            is_storm = len(batch) > 1
            batch = [self._waiting.get()]
            if is_storm:
                time.sleep(_BATCH_SECONDS)
            size = _size(batch[0][0])
            with suppress(queue.Empty):
                while len(batch) < _BATCH_REQUESTS and size < _BATCH_BYTES:
                    batch.append(self._waiting.get_nowait())
                    size += _size(batch[-1][0])
            # A request that was refused meanwhile is cancelled.
            batch = [(environ, future) for environ, future in batch if not future.done()]
            answers = self._answers([environ for environ, _ in batch])
            outcomes: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
            for (environ, future), answer in zip(batch, answers, strict=True):
                outcome = answer or self._outcome(environ)
                outcomes.setdefault(future.get_loop(), []).append((future, outcome))
            for loop, those in outcomes.items():
                with suppress(RuntimeError):  # closed by a reload of the certificate
                    loop.call_soon_threadsafe(_deliver, those)

    def _answers(self, environs: Sequence[WSGIEnvironment]) -> Sequence[Answer | None]:
        if self._answer_together is not None:
            try:
                return self._answer_together(environs)
            except Exception:  # noqa: BLE001 - the application answers each by itself
                _log.exception("requests were not answered: internal error")
        return [None] * len(environs)

    def _outcome(self, environ: WSGIEnvironment) -> Answer | Exception:
        try:
            return self._call(environ)
        except Exception as error:  # noqa: BLE001 - the front logs it and answers
            return error


def _size(environ: WSGIEnvironment) -> int:
    return int(environ.get("CONTENT_LENGTH") or 0)


def _deliver(outcomes: list[_Outcome]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


class _RefusedError(Exception):
    """A body is not read to its end; the argument is the HTTPStatus of the answer."""


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _network(address: str) -> str:
    """Return an address as one spelling, IPv6 as its /64: a single client has a whole one."""
    try:
        interface = IPv6Interface(f"{address}/64")
    except ValueError:
        return address
    return str(interface.ipv4_mapped or interface.network)


def _quietly(ping: Callable[[], object]) -> None:
    with suppress(Exception):  # an error is a response too
        ping()


def json_answer(status: int, body: Mapping[str, object], *headers: tuple[str, str]) -> Answer:
    """Return a JSON response that ends with a newline, with SECURITY_HEADERS and ``headers``."""
    content = json.dumps(body).encode() + b"\n"
    about = ("Content-Type", "application/json"), ("Content-Length", str(len(content)))
    return Answer(status, [*SECURITY_HEADERS.items(), *about, *headers], content)


async def _drop_rest(protocol: Any) -> None:
    """Read the rest of a refused body: a sender that is reset may not see the answer."""
    left = _LINGER_BYTES
    with suppress(RSGIProtocolError):  # reading has begun
        aiter(protocol)
    with suppress(TimeoutError, StopAsyncIteration, RSGIProtocolClosed, RSGIProtocolError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left >= 0:
                left -= len(await anext(protocol))


def _refusal(status: HTTPStatus, error: str | None = None, *headers: tuple[str, str]) -> Answer:
    return json_answer(status, {"error": error or status.phrase}, *headers)


class _Wakeup:
    """``threading.Event`` for granian's main thread that signal handlers may set.

    A handler that interrupts an Event's own method never gets its lock.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)  # noqa: FBT003 - the socket's own interface

    def set(self) -> None:
        with suppress(BlockingIOError):  # full, so it will wake up
            self._sender.send(b"\0")

    def wait(self) -> None:
        self._receiver.recv(1)

    def clear(self) -> None:
        """Do nothing: ``wait`` has taken one byte, and another may be for a later cause."""

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Set it on each signal, too: the kernel may deliver one to another thread."""
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)


class _Listener(MTServer):
    """Granian on a thread of this process, beside the program's own threads.

    With the GIL, granian only offers a worker process for the same code: 40 MiB more, and a
    supervisor between it and signals, readiness and the watchdog.
    """

    def __init__(self, bound: socket.socket, front: Front, tls: Tls | None) -> None:
        """Configure granian to accept connections from ``bound``."""
        super().__init__(
            "",
            interface=Interfaces.RSGI,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=REQUEST_SECONDS * 1000, max_buffer_size=2 * MAX_HEADER_BYTES
            ),
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_connections(),
            # Keeps the program's log configuration.
            log_level=LogLevels.error,
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
            workers_kill_timeout=_END_SECONDS,
            respawn_interval=0.1,
            ssl_cert=tls.certificate if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_ca=tls.client_ca if tls else None,
            ssl_client_verify=tls is not None and tls.client_ca is not None,
            ssl_protocol_min=SSLProtocols(tls.min_version) if tls else SSLProtocols.tls13,
        )
        self._bound = bound
        self._front = front
        self._hangup = signal.getsignal(signal.SIGHUP)
        self.on_startup(self._keep_hangup)
        self.main_loop_interrupt = self._wakeup = _Wakeup()  # type: ignore[assignment]

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; call from the main thread."""
        with self._wakeup.on_signals():
            self.serve(target_loader=lambda: self._front, wrap_loader=False)

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        """Override granian's handler: the first signal is enough."""
        ignore_further_signals()
        super().signal_handler_interrupt(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _respawn_workers(self, *args: Any, **kwargs: Any) -> None:
        self._init_shared_socket()  # the old worker closes its own
        super()._respawn_workers(*args, **kwargs)

    def reload(self) -> None:
        """Reload the certificates, for new connections."""
        self.signal_handler_reload()  # type: ignore[no-untyped-call]

    def _keep_hangup(self) -> None:
        # Granian's handler restarts its worker; here SIGHUP reloads the settings.
        signal.signal(signal.SIGHUP, self._hangup)

    def _check_gil(self) -> None:
        """Override granian's check, which rejects an interpreter with the GIL."""

    def _init_shared_socket(self) -> None:
        # Already bound, and exclusively: granian's own socket shares its port.
        holder: Any = SocketHolder  # its stub lacks the arguments
        self._shd = holder(os.dup(self._bound.fileno()), False, _BACKLOG)  # noqa: FBT003 - a TCP socket


def _connections() -> int:
    """Return the limit of open connections, and raise the limit of open files accordingly."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (
        _CONNECTIONS if soft == resource.RLIM_INFINITY else min(_CONNECTIONS, soft - _OTHER_FILES)
    )


class Server:
    """Server of one WSGI application; binds on creation, so that a bad address fails early."""

    def __init__(
        self, program: str, setting: str, where: Listen, web_config_file: Path | None = None
    ) -> None:
        """Bind to ``where``, the value of ``setting``; exit if that fails.

        ``web_config_file`` has certificates and users, and is reloaded when it changes. Raises
        SettingsError if it is invalid.
        """
        self._web_config_file = web_config_file
        self._web = read_web_config(web_config_file)
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        try:
            self._socket = socket.create_server(
                (where.host, where.port), family=family, backlog=_BACKLOG
            )
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            what = "is in use by another program" if in_use else f"cannot be listened on ({error})"
            fail(program, f"{setting}: {where} {what}; choose another")
        # Closes connections whose client does not read or has disappeared.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, REQUEST_SECONDS * 1000)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own interface
        scheme = "https" if self._web.tls else "http"
        self.url = f"{scheme}://{replace(where, port=self._socket.getsockname()[1])}"

    def run(self, front: Front) -> None:
        """Serve until SIGTERM or SIGINT; call from the main thread."""
        front.users = self._web.users
        listener = _Listener(self._socket, front, self._web.tls)
        vouch_for(*self._socket.getsockname()[:2], tls=self._web.tls is not None)
        if self._web_config_file is not None:
            start_thread("web", partial(self._watch, self._web_config_file, front, listener))
        try:
            listener.run()
        finally:
            notify("STOPPING=1")
            self._socket.close()

    def _watch(self, path: Path, front: Front, listener: _Listener) -> None:
        """Reload changed certificates and users; an invalid file changes nothing."""
        before = _changed_at((path, *self._web.files))
        while True:
            time.sleep(_WATCH_SECONDS)
            now = _changed_at((path, *self._web.files))
            if now == before:
                continue
            before = now
            try:
                web = read_web_config(path)
            except SettingsError as error:
                _log.error("certificates and users stay as they are: %s", error)
                continue
            if web.tls != self._web.tls:
                _log.warning("tls_server_config has changed: it takes effect at the next start")
                web = replace(web, tls=self._web.tls)
            self._web = web
            front.users = web.users
            if web.tls is not None:
                listener.reload()
            _log.info("certificates and users were read again")


def _changed_at(paths: Iterable[Path]) -> list[int | None]:
    """Return each file's modification time in nanoseconds, None if it does not exist."""
    times: list[int | None] = []
    for path in paths:
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            times.append(None)
    return times
