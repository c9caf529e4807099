"""HTTP client for JSON: a deadline per call, one server per client, one-line errors."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal
from urllib.parse import quote

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from zapwatch import __version__

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Limit of a response body; no channel list is that large."""

MAX_JSON_MEMORY = 192 * 1024 * 1024
"""Limit of the memory for parsed JSON in bytes, compared with an upper estimate."""

# Bytes of the smallest object with one member, of the smallest array, and of each further value.
_JSON_COSTS = (("{", 240), ("[", 100), (",", 64))
_JSON_KEY = 160  # bytes of a key; the parser stores equal ones once
_JSON_STRING = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"(\s*+:)?+)?+', re.DOTALL)
_MOST_CALLS = 100  # concurrently
_LINE_LENGTH = 240  # characters; a server's error text may end up in a log line


def parse_json(raw: bytes) -> Any:
    """Parse JSON; raise ValueError or RecursionError if it is invalid, too large or too deep.

    Two bytes can become a hundred, so a limit on the text does not limit the memory.
    """
    text = raw.decode(json.detect_encoding(raw), "surrogatepass")
    room = MAX_JSON_MEMORY - sys.getsizeof(text)
    room -= sum(text.count(mark) * cost for mark, cost in _JSON_COSTS)
    # Reading the strings takes longer than parsing, so only if the worst would be too much.
    worst = 4 * len(text) + text.count('"') * _JSON_KEY // 2
    if worst > room and not _have_room(text, room):
        raise ValueError("JSON of too many values")
    return json.loads(text)


def json_or_none(raw: bytes) -> Any:
    """Return parse_json(), None if it raises."""
    try:
        return parse_json(raw)
    except (ValueError, RecursionError):
        return None


def _have_room(text: str, room: int) -> bool:
    """Whether the strings of a JSON text take at most ``room`` bytes, by an upper estimate."""
    keys = set()
    for found in _JSON_STRING.finditer(text):
        length = found.end(1) - found.start(1)
        if 4 * length > room:  # before the string is copied
            return False
        string, is_key = found.groups()
        if is_key and string not in keys:
            keys.add(string)
            room -= _JSON_KEY + 4 * length
        elif not is_key and (length > 1 or not string.isascii()):
            room -= sys.getsizeof(string) + (3 * length if "\\" in string else 0)
    return room >= 0


class HttpError(Exception):
    """A call without a complete response; the detail may be long and contain secrets."""

    def __init__(
        self,
        kind: Literal["timeout", "connection", "tls", "invalid"],
        detail: str,
        *,
        sent: bool = True,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.sent = sent
        """Whether the server may have received the request."""


@dataclass(frozen=True)
class HttpResponse:
    """HTTP response with its whole body."""

    status: int
    content_type: str
    raw: bytes = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status is 2xx."""
        return self.status in range(200, 300)

    @cached_property
    def parsed(self) -> Any:
        """Parsed JSON of the body, or None if it is not JSON."""
        return json_or_none(self.raw)


def one_line(detail: str, *, secrets: Sequence[str] = (), hide: Sequence[str] = ()) -> str:
    """Return one short line with secrets masked, since a server may echo them."""
    for one in filter(None, secrets):
        # Some gateways expect the secret in the path, where it is percent-encoded.
        for text in dict.fromkeys((one, quote(one, safe="", errors="surrogatepass"))):
            detail = detail.replace(text, "[secret]")
    for text in filter(None, hide):
        detail = detail.replace(text, "[hidden]")
    return "".join(c if c.isprintable() else " " for c in detail[:_LINE_LENGTH])


def basic_credentials(pair: str) -> str:
    """Return what HTTP Basic sends of ``user:password``; anyone can read the password from it."""
    return base64.b64encode(pair.encode(errors="surrogatepass")).decode()


def token_in(header: str) -> str | None:
    """Return the token in an Authorization header: a bearer token, or any user's Basic password."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(given).decode().partition(":")[2]
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """TLS trust and HTTP Basic credentials for one server."""

    ca_file: str | None = None
    """Certificates to trust instead of the public ones."""
    user: str = ""
    """User for HTTP Basic; empty for none."""
    password: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must not be shown."""
        if not self.password:
            return ()
        return self.password, basic_credentials(f"{self.user}:{self.password}")


PLAIN_ACCESS = HttpAccess()
"""Access without credentials, with a public certificate or without TLS."""


class HttpClient:
    """Thread-safe HTTP client of one server; times are in seconds.

    Redirects, cookies, and proxies and passwords from the environment are ignored, so that the
    headers reach ``base_url`` only.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        access: HttpAccess = PLAIN_ACCESS,
        connect_timeout: float = 5.0,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._base_url = base_url
        self._connect_timeout = connect_timeout
        self._max_bytes = max_bytes
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = access.ca_file or True
        if access.user:
            # As bytes: requests encodes a str as Latin-1.
            self._session.auth = HTTPBasicAuth(access.user.encode(), access.password.encode())
        # Connections are not reused, but urllib3 warns when one returns to a full pool.
        adapter = _DeadlineAdapter(pool_connections=1, pool_maxsize=_MOST_CALLS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {
                "Accept": "application/json",
                "Connection": "close",
                "User-Agent": f"zapwatch/{__version__}",
                **(headers or {}),
            }
        )

    def request(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | Sequence[object] | int | bytes | None = None,
        stated_seconds: float | None = None,
    ) -> HttpResponse:
        """Return the complete response within ``seconds``; raise HttpError.

        A body of bytes is sent unchanged, any other as JSON. A time-out error names
        ``stated_seconds`` if several calls share a deadline.
        """
        stated = stated_seconds or seconds
        too_late = f"no answer within {stated:g} s"
        if seconds <= 0:
            raise HttpError("timeout", too_late, sent=False)
        connect_timeout = min(self._connect_timeout, seconds)
        try:
            with self._session.request(
                method,
                self._base_url + path,
                headers=headers,
                params=params,
                data=body if isinstance(body, bytes) else None,
                json=None if isinstance(body, bytes) else body,
                timeout=(connect_timeout, seconds),
                stream=True,
            ) as response:
                content_type = response.headers.get("Content-Type", "")
                return HttpResponse(response.status_code, content_type, self._read(response))
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            detail = "a secret that is not allowed in an HTTP header"
            raise HttpError("invalid", detail, sent=False) from None
        # Time-outs and TLS errors can be ConnectionErrors too, so the order matters.
        except requests.ConnectTimeout:
            detail = f"no connection within {min(self._connect_timeout, stated):g} s"
            raise HttpError("timeout", detail, sent=False) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise HttpError("timeout", too_late, sent=_was_sent(error)) from None
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise HttpError("tls", _root_cause(error), sent=_was_sent(error)) from None
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise HttpError("invalid", "an answer that cannot be decompressed") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise HttpError("connection", _root_cause(error), sent=_was_sent(error)) from None

    def _read(self, response: requests.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(65536, decode_content=True):
            size += len(chunk)
            if size > self._max_bytes:
                raise HttpError("invalid", f"an answer of more than {self._max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Hide redirects: requests parses the target and reads the whole body even of others'."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the innermost last; requests wraps it three times."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = seen.__cause__ or seen.__context__
        seen = None if inner is seen else inner


def _was_sent(error: BaseException) -> bool:
    """Whether the connection was established, with TLS if it has any, before the failure."""
    return not any(
        isinstance(cause, urllib3.exceptions.NewConnectionError) or hasattr(cause, _UNSENT)
        for cause in _causes(error)
    )


def _root_cause(error: BaseException) -> str:
    """Return the text of the innermost cause."""
    *_, seen = _causes(error)
    text = seen.strerror if isinstance(seen, OSError) and seen.strerror else str(seen)
    return text or type(seen).__name__


class _UntilDeadline(io.RawIOBase):
    """Socket reader whose reads share one deadline."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._raw = raw
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, seconds))

    def begin(self) -> None:
        super().begin()
        lengths = ",".join(self.headers.get_all("Content-Length", ())).split(",")
        if len({length.strip() for length in lengths}) > 1:
            # urllib3's error looks like that of a header which cannot be sent.
            raise http.client.HTTPException("different values of Content-Length")
        # Connections are not reused: servers close idle ones after seconds (Node after 5), and a
        # call at that moment would fail although the gateway works.
        self.will_close = True


class _DeadlineHttp(HTTPConnection):
    response_class = _DeadlineResponse


_UNSENT = "zapwatch_unsent"


class _DeadlineHttps(HTTPSConnection):
    response_class = _DeadlineResponse

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            # Later errors of TLS have the same types.
            setattr(error, _UNSENT, True)
            raise


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHttp


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHttps


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _DeadlineAdapter(HTTPAdapter):
    """Applies the read time-out to the whole response, head and body; reuses no connection.

    A socket's time-out restarts with each byte, so that a server which sends a byte now and then
    could block its caller indefinitely.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS
