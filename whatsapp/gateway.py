"""Client of the gateway-wrapper's HTTP API: answers become types, failures a GatewayError."""

from __future__ import annotations

import enum
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import quote

import requests
import urllib3
from requests.adapters import HTTPAdapter

from whatsapp import __version__
from whatsapp.channels import Channel, Status, is_usable_id

MAX_BODY_BYTES = 32 * 1024 * 1024
"""A larger answer is no channel list; reading on would only fill the memory."""

_T = TypeVar("_T")
_CONNECT_TIMEOUT = 5.0  # seconds
_DETAIL_LENGTH = 200  # characters of a gateway's own words that may reach a log line


class Reason(enum.StrEnum):
    """Why a call failed: the label ``reason`` of whatsapp_gateway_request_errors_total."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    HTML = "html"
    HTTP = "http"
    INVALID = "invalid"


class Operation(enum.StrEnum):
    """The calls that the API has: the label ``operation`` of the request metrics."""

    LIST = "list"
    QR = "qr"
    START_SESSION = "start_session"
    DELETE = "delete"
    CREATE = "create"


class GatewayError(Exception):
    """A call failed. ``str()`` is one line without any secret."""

    def __init__(
        self,
        operation: Operation,
        reason: Reason,
        detail: str,
        *,
        http_status: int | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{operation}: {reason}: {detail}")
        self.operation = operation
        self.reason = reason
        self.detail = detail
        self.http_status = http_status
        self.request_id = request_id


class QrKind(enum.Enum):
    """What the answer to a QR call means."""

    QR = "a QR code waits for a person"
    ACCEPTED = "no QR is needed: the gateway takes the session for connected"
    INITIALIZING = "the browser is still starting"
    NOT_STARTED = "the session must be started first"


@dataclass(frozen=True, slots=True)
class QrAnswer:
    """The gateway's answer to a QR call; ``image`` only where kind is QR.

    ``image`` is a ``data:`` URL, an ``http(s)`` URL or bare base64 of a PNG. It lets whoever sees
    it take over the WhatsApp account, so it stays out of ``repr()``, logs and URLs.
    """

    kind: QrKind
    image: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ChannelList:
    """The gateway's channels, one for each identity, and how many entries were unusable."""

    channels: tuple[Channel, ...]
    ignored: int = 0


Observer = Callable[[Operation, float, Reason | None], None]
"""Is told of each call: which, its seconds, and the reason if it failed."""


class GatewayClient:
    """Calls one gateway over one pooled session; safe to share between threads.

    Redirects are not followed and cookies are not kept: the secret goes to ``base_url`` alone.
    """

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        list_timeout: float = 90.0,
        qr_timeout: float = 60.0,
        connections: int = 4,
        observe: Observer = lambda _operation, _seconds, _reason: None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._list_timeout = list_timeout
        self._qr_timeout = qr_timeout
        self._observe = observe
        self._http = requests.Session()
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
        self._http.mount("http://", adapter)
        self._http.mount("https://", adapter)
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._http.headers.update(
            {
                "X-Gateway-Secret": secret,
                "Accept": "application/json",
                "User-Agent": f"zapwatch/{__version__}",
            }
        )

    def list_channels(self) -> ChannelList:
        """Return the channels that the gateway has; raise GatewayError, also where it has none.

        The gateway asks WPPConnect for one channel after the other: it may take 90 s.
        """
        return self._call(Operation.LIST, "GET", "/api/channels", self._list_timeout, _parse_list)

    def ask_qr(self, channel_id: str) -> QrAnswer:
        """Ask for the channel's QR code, which makes WPPConnect try to reconnect the session."""
        path = f"{_channel_path(channel_id)}/qr"
        return self._call(Operation.QR, "GET", path, self._qr_timeout, _parse_qr)

    def start_session(self, channel_id: str) -> None:
        """Start a session that the QR call calls not started."""
        path = f"{_channel_path(channel_id)}/start-session"
        self._call(Operation.START_SESSION, "POST", path, self._qr_timeout, _expect_success)

    def recreate(self, channel_id: str) -> None:
        """Throw the session away and make a new one. THE PAIRING IS LOST: a person must scan."""
        path = _channel_path(channel_id)
        self._call(Operation.DELETE, "DELETE", path, self._qr_timeout, _expect_success)
        body = {"channel": channel_id}
        self._call(
            Operation.CREATE, "POST", "/api/channels", self._qr_timeout, _expect_success, body
        )

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _call(
        self,
        operation: Operation,
        method: str,
        path: str,
        timeout: float,
        parse: Callable[[_Answer], _T],
        body: Mapping[str, str] | None = None,
    ) -> _T:
        request_id = uuid.uuid4().hex
        started = time.monotonic()
        reason: Reason | None = None
        answer: _Answer | None = None
        try:
            answer = self._exchange(method, path, timeout, request_id, body)
            return parse(answer)
        except _Failure as failure:
            reason = failure.reason
            status = answer.status if answer else None
            raise GatewayError(
                operation, reason, failure.detail, http_status=status, request_id=request_id
            ) from None
        finally:
            self._observe(operation, time.monotonic() - started, reason)

    def _exchange(
        self,
        method: str,
        path: str,
        timeout: float,
        request_id: str,
        body: Mapping[str, str] | None,
    ) -> _Answer:
        deadline = time.monotonic() + timeout
        try:
            with self._http.request(
                method,
                self.base_url + path,
                headers={"X-Request-Id": request_id},
                json=body,
                timeout=(min(_CONNECT_TIMEOUT, timeout), timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                content_type = response.headers.get("Content-Type", "")
                raw = _read(response, deadline)
                return _Answer(response.status_code, content_type, raw)
        # Time-outs and TLS errors can be ConnectionErrors too: the order matters.
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise _Failure(Reason.TIMEOUT, f"no answer within {timeout:g} s") from None
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise _Failure(Reason.TLS, _root_cause(error)) from None
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise _Failure(Reason.INVALID, "an answer that cannot be decompressed") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _Failure(Reason.CONNECTION, _root_cause(error)) from None


class _Failure(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str
    raw: bytes = field(repr=False)

    @property
    def is_html(self) -> bool:
        return "html" in self.content_type.lower() or self.raw.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """Return the parsed body, or None where it is not JSON."""
        try:
            return json.loads(self.raw)
        except (ValueError, RecursionError):
            return None

    def checked(self) -> dict[str, Any]:
        """Return the JSON object of a successful answer; raise _Failure for any other."""
        parsed = self.json()
        said = _said(parsed)
        if self.status in (401, 403):
            raise _Failure(Reason.UNAUTHORIZED, f"HTTP {self.status}{said}: wrong secret?")
        if self.is_html:
            raise _Failure(Reason.HTML, f"HTTP {self.status} with an HTML page instead of JSON")
        if self.status in range(300, 400):
            raise _Failure(Reason.HTTP, f"HTTP {self.status}, a redirect: wrong base URL?")
        if self.status not in range(200, 300):
            raise _Failure(Reason.HTTP, f"HTTP {self.status}{said}")
        if not self.raw.strip():
            raise _Failure(Reason.INVALID, f"HTTP {self.status} with an empty body")
        if parsed is None:
            raise _Failure(Reason.INVALID, f"HTTP {self.status} with a body that is not JSON")
        if not isinstance(parsed, dict):
            raise _Failure(Reason.INVALID, "JSON that is not an object")
        if parsed.get("success") is False:
            raise _Failure(Reason.INVALID, f"the gateway answered success=false{said}")
        return parsed


def _read(response: requests.Response, deadline: float) -> bytes:
    """Read the body, but no longer than the deadline: a body that drips never times out alone."""
    parts: list[bytes] = []
    size = 0
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _Failure(Reason.INVALID, f"an answer of more than {MAX_BODY_BYTES} bytes")
        if time.monotonic() > deadline:
            raise requests.Timeout
        parts.append(chunk)
    return b"".join(parts)


def _root_cause(error: BaseException) -> str:
    """Return one short line for the innermost cause; requests wraps it three times."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = seen.__cause__ or seen.__context__
        if inner is None or inner is seen:
            break
        seen = inner
    text = seen.strerror if isinstance(seen, OSError) and seen.strerror else str(seen)
    return _one_line(text or type(seen).__name__)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_DETAIL_LENGTH])


def _said(parsed: Any) -> str:
    """Return ``: `` and the gateway's own error text, or nothing; ``error`` may be any JSON."""
    if not isinstance(parsed, dict):
        return ""
    error = parsed.get("error") or parsed.get("message")
    if not error:
        return ""
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return ": " + _one_line(text)


def _channel_path(channel_id: str) -> str:
    return f"/api/channels/{quote(channel_id, safe='')}"


def _parse_list(answer: _Answer) -> ChannelList:
    body = answer.checked()
    entries = body.get("channels")
    if entries is None and isinstance(body.get("data"), dict):
        entries = body["data"].get("channels")
    if not isinstance(entries, list):
        raise _Failure(Reason.INVALID, "JSON without a list of channels")
    channels: dict[str, Channel] = {}
    for entry in entries:
        channel = _parse_channel(entry)
        if channel is not None:
            channels.setdefault(channel.key, channel)
    if not channels:
        raise _Failure(Reason.INVALID, "no channel found in the list")
    return ChannelList(tuple(channels.values()), ignored=len(entries) - len(channels))


def _parse_channel(entry: Any) -> Channel | None:
    if not isinstance(entry, dict):
        return None
    for name in ("id", "name", "channel_id"):
        channel_id = entry.get(name)
        if isinstance(channel_id, int) and not isinstance(channel_id, bool):
            channel_id = str(channel_id)
        if isinstance(channel_id, str) and channel_id.strip():
            break
    else:
        return None
    if not is_usable_id(channel_id):
        return None
    return Channel(channel_id, Status.parse(entry.get("status")))


_QR_FIELDS = (
    "qr",
    "qr_base64",
    "qrcode",
    "base64Qrimg",
    "base64",
    "base64Image",
    "image",
    "qrcode_base64",
)
_PNG_IN_BASE64 = "iVBORw0KGgo"


def _parse_qr(answer: _Answer) -> QrAnswer:
    parsed = answer.json()
    said = _said(parsed).lower()
    if "session not started" in said or "start-session" in said:
        return QrAnswer(QrKind.NOT_STARTED)
    # An older wrapper's words for a session that WPPConnect calls connected.
    if answer.status == 500 and "invalid qr code response" in said:
        return QrAnswer(QrKind.ACCEPTED)
    body = answer.checked()
    image = _find_qr(body)
    if image is not None:
        return QrAnswer(QrKind.QR, image)
    data = body.get("data")
    inner = data.get("status") if isinstance(data, dict) else None
    status = Status.parse(body.get("status") or inner)
    if status is Status.INITIALIZING:
        return QrAnswer(QrKind.INITIALIZING)
    return QrAnswer(QrKind.ACCEPTED)


def _find_qr(body: Mapping[str, Any]) -> str | None:
    candidates = [body.get(name) for name in _QR_FIELDS]
    for outer in ("data", "result"):
        nested = body.get(outer)
        candidates.append(nested)
        if isinstance(nested, dict):
            candidates.extend(nested.get(name) for name in _QR_FIELDS)
    return next((c.strip() for c in candidates if isinstance(c, str) and _is_qr(c.strip())), None)


def _is_qr(text: str) -> bool:
    return text.startswith((_PNG_IN_BASE64, "data:image/", "http://", "https://"))


def _expect_success(answer: _Answer) -> None:
    answer.checked()
