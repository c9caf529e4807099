"""Client of the gateway-wrapper's HTTP API: answers become types, failures a GatewayError."""

from __future__ import annotations

import enum
import time
import uuid
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import quote

import requests
import urllib3

from whatsapp import __version__
from whatsapp.answers import (
    Answer,
    ChannelList,
    Failure,
    QrAnswer,
    QrKind,
    Reason,
    expect_image,
    expect_success,
    parse_list,
    parse_qr,
)
from whatsapp.channels import is_usable_id
from whatsapp.deadline import DeadlineAdapter

__all__ = [
    "ChannelList",
    "GatewayClient",
    "GatewayError",
    "Observer",
    "Operation",
    "QrAnswer",
    "QrKind",
    "Reason",
]

MAX_BODY_BYTES = 32 * 1024 * 1024
"""A larger answer is no channel list; reading on would only fill the memory."""

_T = TypeVar("_T")
_CONNECT_TIMEOUT = 5.0  # seconds
_DETAIL_LENGTH = 240  # characters, since a gateway's own words may reach a log line


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


Observer = Callable[[Operation, float, Reason | None], None]
"""Is told of each call: which, its seconds, and the reason if it failed."""


class GatewayClient:
    """Calls one gateway; safe to share between threads.

    Redirects are not followed, cookies are not kept, and proxies and passwords that the environment
    names are not used: the secret goes to ``base_url`` alone. ``ca_file`` holds the certificates
    that are trusted instead of the public ones.
    """

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        list_timeout: float = 90.0,
        qr_timeout: float = 60.0,
        connections: int = 4,
        ca_file: str | None = None,
        observe: Observer = lambda _operation, _seconds, _reason: None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._list_timeout = list_timeout
        self._qr_timeout = qr_timeout
        self._observe = observe
        self._secret = secret
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = ca_file or True
        adapter = DeadlineAdapter(pool_connections=1, pool_maxsize=connections)
        self._http.mount("http://", adapter)
        self._http.mount("https://", adapter)
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._http.headers.update(
            {
                "X-Gateway-Secret": secret,
                "Accept": "application/json",
                "Connection": "close",
                "User-Agent": f"zapwatch/{__version__}",
            }
        )

    def list_channels(self) -> ChannelList:
        """Return the channels that the gateway has; raise GatewayError, also where it has none.

        The gateway asks WPPConnect for one channel after the other: it may take 90 s.
        """
        return self._call(Operation.LIST, "GET", "/api/channels", self._list_timeout, parse_list)

    def ask_qr(self, channel_id: str) -> QrAnswer:
        """Ask for the channel's QR code, which makes WPPConnect try to reconnect the session."""
        path = f"{_channel_path(Operation.QR, channel_id)}/qr"
        return self._call(Operation.QR, "GET", path, self._qr_timeout, parse_qr)

    def get_image(self, url: str) -> bytes:
        """Return the image that a QR answer only links to; the gateway's own server is asked alone.

        Raises GatewayError.
        """
        if not url.startswith(f"{self.base_url}/"):
            raise GatewayError(Operation.QR, Reason.INVALID, "a QR code at some other server")
        path = url.removeprefix(self.base_url)
        return self._call(Operation.QR, "GET", path, self._qr_timeout, expect_image)

    def start_session(self, channel_id: str) -> None:
        """Start a session that the QR call calls not started."""
        path = f"{_channel_path(Operation.START_SESSION, channel_id)}/start-session"
        self._call(Operation.START_SESSION, "POST", path, self._qr_timeout, expect_success)

    def delete(self, channel_id: str) -> None:
        """Throw the session away. THE PAIRING IS LOST: a new one must be made and scanned."""
        path = _channel_path(Operation.DELETE, channel_id)
        self._call(Operation.DELETE, "DELETE", path, self._qr_timeout, expect_success)

    def create(self, channel_id: str) -> None:
        """Make a new session, which a person must scan."""
        body = {"channel": channel_id}
        self._call(
            Operation.CREATE, "POST", "/api/channels", self._qr_timeout, expect_success, body
        )

    def close(self) -> None:
        """Let go of what the calls share."""
        self._http.close()

    def _call(
        self,
        operation: Operation,
        method: str,
        path: str,
        timeout: float,
        parse: Callable[[Answer], _T],
        body: Mapping[str, str] | None = None,
    ) -> _T:
        request_id = uuid.uuid4().hex
        started = time.monotonic()
        reason: Reason | None = None
        answer: Answer | None = None
        try:
            answer = self._exchange(method, path, timeout, request_id, body)
            return parse(answer)
        except Failure as failure:
            reason = failure.reason
            status = answer.status if answer else None
            detail = self._presentable(failure.detail)
            raise GatewayError(
                operation, reason, detail, http_status=status, request_id=request_id
            ) from None
        finally:
            self._observe(operation, time.monotonic() - started, reason)

    def _presentable(self, detail: str) -> str:
        """Return one short line without the secret, which a gateway may repeat in its answer."""
        if self._secret:
            detail = detail.replace(self._secret, "[secret]")
        return "".join(c if c.isprintable() else " " for c in detail[:_DETAIL_LENGTH])

    def _exchange(
        self,
        method: str,
        path: str,
        timeout: float,
        request_id: str,
        body: Mapping[str, str] | None,
    ) -> Answer:
        connect_timeout = min(_CONNECT_TIMEOUT, timeout)
        try:
            with self._http.request(
                method,
                self.base_url + path,
                headers={"X-Request-Id": request_id},
                json=body,
                timeout=(connect_timeout, timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                content_type = response.headers.get("Content-Type", "")
                return Answer(response.status_code, content_type, _read(response))
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            raise Failure(Reason.INVALID, "a secret that no HTTP header can carry") from None
        # Time-outs and TLS errors can be ConnectionErrors too: the order matters.
        except requests.ConnectTimeout:
            detail = f"no connection within {connect_timeout:g} s"
            raise Failure(Reason.TIMEOUT, detail) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Failure(Reason.TIMEOUT, f"no answer within {timeout:g} s") from None
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise Failure(Reason.TLS, _root_cause(error)) from None
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise Failure(Reason.INVALID, "an answer that cannot be decompressed") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Failure(Reason.CONNECTION, _root_cause(error)) from None


def _channel_path(operation: Operation, channel_id: str) -> str:
    if not is_usable_id(channel_id):
        raise GatewayError(operation, Reason.INVALID, "a channel id that no URL can hold")
    return f"/api/channels/{quote(channel_id, safe='')}"


def _read(response: requests.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Failure(Reason.INVALID, f"an answer of more than {MAX_BODY_BYTES} bytes")
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
    return text or type(seen).__name__
