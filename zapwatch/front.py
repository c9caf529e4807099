"""The web server of both programs: granian, and what stands between it and the application.

``Front`` is a coroutine a request, so that a client which sends or reads slowly costs a connection
and no thread. The application is called in threads when a request is complete.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import bcrypt
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mt import MTServer
from werkzeug.datastructures import Authorization

from zapwatch.config import Listen, SettingsError
from zapwatch.config.readers import PATH_PREFIX
from zapwatch.config.web import Tls, read_web_config
from zapwatch.server import fail, notify, start_thread, vouch_for

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    Head = Callable[[WSGIEnvironment], bool]

_log = logging.getLogger("server")

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""A larger body is answered 413."""

MAX_HEADER_BYTES = 32 * 1024
"""Larger headers are answered 431."""

STRANGER_BYTES = 8 * 1024
"""Of the body of a request without a valid token: a form to log in, and no more."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""What every answer of the hook carries."""

REQUEST_SECONDS = 30
"""For a request to be complete, for the next one to begin, and for a client to read anything."""

_BACKLOG = 1024  # connections that wait to be taken
_CONNECTIONS = 4096
_OTHER_FILES = 128  # that a program has open besides its connections
_END_SECONDS = 1  # for requests under way when a signal ends the program
_HEALTH = "/-/healthy"
_METRICS = "/metrics"
_UNFINISHED_BYTES = 64 * 1024 * 1024  # of all bodies that are not complete yet
_DISCARDED = 4  # times what a body may have: read and thrown away, so that its sender sees the 413
_THREADS = 8
_METRICS_THREADS = 2
_PASSWORDS = 100  # right ones that are remembered
_PASSWORD_BYTES = 72  # that bcrypt looks at
# Takes as long as anybody's, so that the time does not tell which users there are.
_NOBODY = b"$2b$10$" + b"." * 53
_WATCH_SECONDS = 1.0  # between two looks whether certificates or users have changed
_SLOW_SECONDS = 1.0  # until a client that guesses learns that it was wrong once more
# Until the database is asked, and for its answer: less than a second in all.
_PATIENCE_SECONDS = 0.5
_PING_SECONDS = 0.4


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Front:
    """One WSGI application, for granian's interface RSGI.

    ``/-/healthy`` is answered at once whatever the threads do, ``/metrics`` has threads of its own,
    and so have the paths that begin with ``urgent``. Those that begin with ``keyed`` hold a key of
    their own: they need no password, and stay out of the log. ``is_known`` finds by its head alone
    whether a request may send a large body. ``external_url`` is where clients reach the
    application: its path begins every address that an answer has, and a request may have it or not.
    ``ping`` asks the database: while it gets no answer and nothing ``urgent`` is accepted (202),
    requests that wait for a thread or in one are answered 503 within a second.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        is_known: Head,
        urgent: str,
        external_url: str = "",
        keyed: str | None = None,
        trusted_proxy: str | None = None,
        ping: Callable[[], object] | None = None,
    ) -> None:
        self.users: Mapping[str, bytes] = {}
        self._of_passwords = ThreadPoolExecutor(1, "passwords")
        self._right_passwords: set[tuple[bytes, bytes]] = set()
        self._app = app
        self._is_known = is_known
        self._urgent = urgent
        self._external = urlsplit(external_url)
        self._keyed = keyed
        self._trusted_proxy = trusted_proxy
        self._ping = ping
        self._of_metrics = ThreadPoolExecutor(_METRICS_THREADS, "metrics")
        self._of_urgent = ThreadPoolExecutor(_THREADS, "urgent")
        self._of_others = ThreadPoolExecutor(_THREADS, "pages")
        self._of_ping = ThreadPoolExecutor(1, "ping")
        self._pinging: asyncio.Future[object] | None = None
        self._silent_since = 0.0  # monotonic: the ping's begin, or the last proof of life since
        self._unfinished_bytes = 0

    async def __call__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope, protocol)
        except Exception:  # noqa: BLE001 - the next one may work
            _log.exception("a request failed, a fault of the program itself")
            answer = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        is_limited = any(name == "Retry-After" for name, _ in answer.headers)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS or is_limited:
            await asyncio.sleep(_SLOW_SECONDS)
        # Granian would name itself.
        protocol.response_bytes(answer.status, [*answer.headers, ("server", "")], answer.body)

    async def _answer(self, scope: Any, protocol: Any) -> Answer:
        headers = list(scope.headers.items())
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        environ = self._environ(scope, headers)
        path = environ["PATH_INFO"]
        is_open = path == _HEALTH or self._is_keyed(path)
        if self.users and not is_open and not self._is_known(environ):
            if not await self._has_password(environ):
                return _refusal(HTTPStatus.UNAUTHORIZED, asks='Basic realm="Zapwatch"')
            # It is none of the application's, which may have a token of its own.
            environ.pop("HTTP_AUTHORIZATION")
        body: bytes | None = b""
        if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
            known = self._is_known(environ)
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    body = await self._read(environ, protocol, known=known)
            except TimeoutError:
                return _refusal(HTTPStatus.REQUEST_TIMEOUT)
            except _TooManyBytesError:
                return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)
            # What is larger than it may be, the application answers without having seen it.
            too_large = str(MAX_REQUEST_BYTES + 1) if known else "0"
            environ["CONTENT_LENGTH"] = too_large if body is None else str(len(body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["wsgi.input"] = io.BytesIO(body or b"")
        if path == _HEALTH:
            return self._call(environ)
        loop = asyncio.get_running_loop()
        if path == _METRICS:
            return await loop.run_in_executor(self._of_metrics, self._call, environ)
        pool = self._of_urgent if path.startswith(self._urgent) else self._of_others
        if self._ping is None:
            return await loop.run_in_executor(pool, self._call, environ)
        return await self._unless_hung(pool, environ, self._ping)

    def _is_keyed(self, path: str) -> bool:
        return self._keyed is not None and path.startswith(self._keyed)

    async def _has_password(self, environ: WSGIEnvironment) -> bool:
        """Whether the head has the password of one of ``users``."""
        given = Authorization.from_header(environ.get("HTTP_AUTHORIZATION"))
        if given is None or given.type != "basic":
            return False
        password = (given.password or "").encode()[:_PASSWORD_BYTES]
        expected = self.users.get(given.username or "", _NOBODY)
        # A hash takes a twentieth of a second by design: one at a time, and each right one once.
        seen = expected, hashlib.sha256(password).digest()
        if seen in self._right_passwords:
            return True
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._of_passwords, bcrypt.checkpw, password, expected)
        if right and expected != _NOBODY:
            self._right_passwords = {seen, *list(self._right_passwords)[:_PASSWORDS]}
        return right and expected != _NOBODY

    async def _read(self, environ: WSGIEnvironment, protocol: Any, *, known: bool) -> bytes | None:
        """Return the body, None where it is larger than it may be.

        Raises _TooManyBytesError, and TimeoutError where it is not complete in time.
        """
        limit = MAX_REQUEST_BYTES if known else STRANGER_BYTES
        declared = environ.get("CONTENT_LENGTH", "0")
        if not known and int(declared) > limit:
            return None
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
                    raise _TooManyBytesError
                chunks.append(bytes(chunk))
        finally:
            self._unfinished_bytes -= kept
        return None if size > limit else b"".join(chunks)

    async def _unless_hung(
        self, pool: ThreadPoolExecutor, environ: WSGIEnvironment, ping: Callable[[], object]
    ) -> Answer:
        """Call the application; give up where the database does not answer either."""
        loop = asyncio.get_running_loop()
        if self._pinging is not None and self._pinging.get_loop() is not loop:
            self._pinging = None  # of before the certificate was read again
        pinging = self._pinging
        is_pinging = pinging is not None and not pinging.done()
        if is_pinging and self._is_silent():
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the state does not answer")
        calling = loop.run_in_executor(pool, self._call, environ)
        while True:
            done, _ = await asyncio.wait((calling,), timeout=_PATIENCE_SECONDS)
            if done:
                answer = calling.result()
                # On a machine with too much to do the ping is late, and the state answers.
                if pool is self._of_urgent and answer.status == HTTPStatus.ACCEPTED:
                    self._silent_since = time.monotonic()
                return answer
            if self._pinging is None or self._pinging.done():
                self._silent_since = time.monotonic()
                self._pinging = loop.run_in_executor(self._of_ping, _quietly(ping))
            left = self._silent_since + _PING_SECONDS - time.monotonic()
            either = asyncio.FIRST_COMPLETED
            await asyncio.wait((calling, self._pinging), timeout=max(0.0, left), return_when=either)
            if not calling.done() and not self._pinging.done() and self._is_silent():
                calling.cancel()
                path = environ["PATH_INFO"]
                shown = self._keyed if self._is_keyed(path) else path
                _log.warning("the state does not answer: %s is refused", shown)
                return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the state does not answer")

    def _is_silent(self) -> bool:
        return time.monotonic() - self._silent_since >= _PING_SECONDS

    def _call(self, environ: WSGIEnvironment) -> Answer:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _exc_info: object = None
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return _no_write

        body: Iterable[bytes] = self._app(environ, start_response)
        try:
            content = b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        return Answer(int(status[:3]), headers, content)

    def _environ(self, scope: Any, headers: list[tuple[str, str]]) -> WSGIEnvironment:
        """Return WSGI's form of a request's head."""
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": scope.method,
            "SCRIPT_NAME": "",
            # WSGI's form of text: each byte a character.
            "PATH_INFO": scope.path.encode().decode("latin-1"),
            "QUERY_STRING": scope.query_string,
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
            if "_" in name:  # it would pass for the one with a hyphen, which a proxy has checked
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
        # Some proxies leave the prefix in the path, others take it out.
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path.removeprefix(prefix)
        # As the application reads it: it must be the same path for both.
        environ["PATH_INFO"] = "/" + path.lstrip("/")
        return environ

    def _believe_the_proxy(self, environ: WSGIEnvironment) -> str:
        """Take from the trusted proxy who its client is, how it came and below which path it is.

        From others nothing. Returns the path, empty where none is named.
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


class _TooManyBytesError(Exception):
    """All bodies together are larger than they may be."""


def refuse_nobody(_environ: WSGIEnvironment) -> bool:
    """Let every request send a large body."""
    return True


def _no_write(_data: bytes) -> object:
    raise NotImplementedError("WSGI's old way to write a body")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _quietly(ping: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        try:
            return ping()
        except Exception:  # noqa: BLE001 - an error is an answer too
            return None

    return run


def _refusal(status: HTTPStatus, error: str | None = None, *, asks: str = "") -> Answer:
    body = json.dumps({"error": error or status.phrase}).encode() + b"\n"
    headers = [*SECURITY_HEADERS.items(), ("Content-Type", "application/json")]
    if asks:
        headers.append(("WWW-Authenticate", asks))
    return Answer(status, [*headers, ("Content-Length", str(len(body)))], body)


class _Listener(MTServer):
    """Granian on a thread of this process, beside the program's own threads.

    On a Python with its interpreter lock, granian offers a second process for that: 40 MiB more,
    and signals, readiness and the watchdog by way of a supervisor. Both run the same code.
    """

    def __init__(self, bound: socket.socket, front: Front, tls: Tls | None) -> None:
        """Prepare to take connections from ``bound``."""
        super().__init__(
            "",
            interface=Interfaces.RSGI,
            loop=Loops.asyncio,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=REQUEST_SECONDS * 1000, max_buffer_size=2 * MAX_HEADER_BYTES
            ),
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_connections(),
            # Into the program's own log; nothing is set up anew.
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

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; only the main thread may."""
        self.serve(target_loader=lambda: self._front, wrap_loader=False)

    def _respawn_workers(self, *args: Any, **kwargs: Any) -> None:
        self._init_shared_socket()  # the worker that ends closes its own
        super()._respawn_workers(*args, **kwargs)

    def reload(self) -> None:
        """Read the certificates again, for the connections to come."""
        self.signal_handler_reload()  # type: ignore[no-untyped-call]

    def _keep_hangup(self) -> None:
        # Granian would start its worker again; SIGHUP is the program's own.
        signal.signal(signal.SIGHUP, self._hangup)

    def _check_gil(self) -> None:
        """Refuse no Python."""

    def _init_shared_socket(self) -> None:
        # Bound already, and by nobody else: granian shares a port with whoever wants it.
        holder: Any = SocketHolder  # its stub lacks the arguments
        self._shd = holder(os.dup(self._bound.fileno()), False, _BACKLOG)  # noqa: FBT003 - a TCP socket


def _connections() -> int:
    """Return how many connections may be open at once, and let the system allow as many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (
        _CONNECTIONS if soft == resource.RLIM_INFINITY else min(_CONNECTIONS, soft - _OTHER_FILES)
    )


class Server:
    """Serves one WSGI application with granian; binds at once, so that a bad address shows."""

    def __init__(
        self, program: str, setting: str, where: Listen, web_config_file: Path | None = None
    ) -> None:
        """Bind to ``where``, the value of ``setting``; end the program where that cannot be.

        ``web_config_file`` has certificates and users, and is read again when it changes. Raises
        SettingsError where it cannot be read.
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
        # For each connection: one that reads nothing, or whose other end has gone, is ended.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, REQUEST_SECONDS * 1000)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own interface
        host = f"[{where.host}]" if ":" in where.host else where.host
        scheme = "https" if self._web.tls else "http"
        self.url = f"{scheme}://{host}:{self._socket.getsockname()[1]}"

    def run(self, front: Front) -> None:
        """Serve until a signal ends it; only the main thread may."""
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
        """Take up new certificates and users; what cannot be read changes nothing."""
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
                _log.warning("tls_server_config has changed: it counts from the next start")
                web = replace(web, tls=self._web.tls)
            self._web = web
            front.users = web.users
            if web.tls is not None:
                listener.reload()
            _log.info("certificates and users were read again")


def _changed_at(paths: Iterable[Path]) -> list[int | None]:
    """Return when each file was last changed, None where it is not there."""
    times: list[int | None] = []
    for path in paths:
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            times.append(None)
    return times
