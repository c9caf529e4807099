"""Calls over HTTP that end in time, stay at one server, and fail in one line without a secret."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import requests
import urllib3

from zapwatch import __version__
from zapwatch.channels import Channel, is_usable_id
from zapwatch.gateways.base import (
    MAX_CHANNELS,
    ChannelList,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    LeftOut,
    Observer,
    Operation,
)
from zapwatch.gateways.timeout_adapter import DeadlineAdapter


class Failure(Exception):  # noqa: N818 - GatewayError is what callers see
    """Why a call did not work; the detail may be long, and may repeat what was sent."""

    def __init__(self, reason: GatewayErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """An HTTP answer, whole but not yet looked into."""

    status: int
    content_type: str
    raw: bytes = field(repr=False)

    @property
    def is_html(self) -> bool:
        """Whether it is a proxy's page rather than the gateway's words."""
        return "html" in self.content_type.lower() or self.raw.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """Return the parsed body, or None where it is not JSON."""
        try:
            return json.loads(self.raw)
        except (ValueError, RecursionError):
            return None

    def checked(self) -> dict[str, Any]:
        """Return the JSON object of a successful answer; raise Failure for any other."""
        parsed = self.checked_json()
        if not isinstance(parsed, dict):
            raise Failure(GatewayErrorKind.INVALID, "JSON that is not an object")
        return parsed

    def checked_list(self) -> list[Any]:
        """Return the JSON list of a successful answer; raise Failure for any other."""
        parsed = self.checked_json()
        if not isinstance(parsed, list):
            raise Failure(GatewayErrorKind.INVALID, "JSON that is not a list")
        return parsed

    def checked_json(self) -> Any:
        """Return the JSON of a successful answer; raise Failure for any other."""
        parsed = self.json()
        said = _said(parsed)
        if self.status in (401, 403):
            raise Failure(GatewayErrorKind.UNAUTHORIZED, f"HTTP {self.status}, wrong secret?{said}")
        if self.status in range(300, 400):
            raise Failure(GatewayErrorKind.HTTP, f"HTTP {self.status}, a redirect: wrong base URL?")
        if self.is_html:
            raise Failure(
                GatewayErrorKind.HTML, f"HTTP {self.status} with an HTML page instead of JSON"
            )
        if not self.is_success:
            raise Failure(GatewayErrorKind.HTTP, f"HTTP {self.status}{said}")
        if not self.raw.strip():
            raise Failure(GatewayErrorKind.INVALID, f"HTTP {self.status} with an empty body")
        if parsed is None:
            raise Failure(
                GatewayErrorKind.INVALID, f"HTTP {self.status} with a body that is not JSON"
            )
        if isinstance(parsed, dict) and parsed.get("success") is False:
            raise Failure(GatewayErrorKind.INVALID, f"the gateway answered success=false{said}")
        return parsed

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status says that it worked."""
        return self.status in range(200, 300)


def _said(parsed: Any) -> str:
    said = words(parsed)
    return f": {said}" if said else ""


def words(parsed: Any) -> str:
    """Return what a gateway says in ``error``, ``message`` and ``response.message``.

    Each may be any JSON.
    """
    if not isinstance(parsed, dict):
        return ""
    values = [parsed.get(name) for name in ("error", "message")]
    if isinstance(parsed.get("response"), dict):
        values.append(parsed["response"].get("message"))
    return "; ".join(_text(value) for value in values if value and not isinstance(value, bool))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply)"


def gather(found: Iterable[Channel | None]) -> ChannelList:
    """Return the channels among the entries of a list; None stands for an entry that is none."""
    channels: dict[str, Channel] = {}
    left_out: Counter[LeftOut] = Counter()
    for channel in found:
        if channel is None:
            left_out[LeftOut.UNUSABLE_ID] += 1
        elif channels.setdefault(channel.key, channel) is not channel:
            # Two sessions whose ids differ in letter case alone cannot be told apart in the log.
            left_out[LeftOut.DUPLICATE] += 1
    if not channels:
        raise Failure(GatewayErrorKind.INVALID, "no channel found in the list")
    # By their keys, so that it is the same ones each time, however the gateway sorts its list.
    for key in sorted(channels)[MAX_CHANNELS:]:
        del channels[key]
        left_out[LeftOut.OVER_LIMIT] += 1
    return ChannelList(tuple(channels.values()), left_out)


def expect_success(answer: GatewayResponse) -> None:
    """Accept any answer that does not say that the call failed."""
    answer.checked()


def expect_image(answer: GatewayResponse) -> bytes:
    """Return the body of an answer that succeeded and is no page."""
    if not answer.is_success or answer.is_html:
        raise Failure(GatewayErrorKind.HTTP, f"HTTP {answer.status} instead of an image")
    return answer.raw


MAX_BODY_BYTES = 32 * 1024 * 1024
"""A larger answer is no channel list; reading on would only fill the memory."""

_CONNECT_TIMEOUT = 5.0  # seconds
_MOST_CALLS = 100  # at a time
_DETAIL_LENGTH = 240  # characters, since a gateway's own words may reach a log line


class Connection:
    """Makes the calls to one gateway; safe to share between threads.

    Redirects are not followed, cookies are not kept, and proxies and passwords that the environment
    names are not used: the secret goes to ``base_url`` alone. ``ca_file`` holds the certificates
    that are trusted instead of the public ones.
    """

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        headers: Mapping[str, str],
        ca_file: str | None,
        observe: Observer,
    ) -> None:
        self.base_url = base_url
        self._secret = secret
        self._observe = observe
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = ca_file or True
        # No connection is kept, yet urllib3 warns of each that comes back to a pool that is full.
        adapter = DeadlineAdapter(pool_connections=1, pool_maxsize=_MOST_CALLS)
        self._http.mount("http://", adapter)
        self._http.mount("https://", adapter)
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._http.headers.update(
            {
                "Accept": "application/json",
                "Connection": "close",
                "User-Agent": f"zapwatch/{__version__}",
                **headers,
            }
        )

    @contextmanager
    def operation(
        self, operation: Operation, seconds: float, *, hide: Sequence[str] = ()
    ) -> Iterator[Calls]:
        """Lend calls that share a request id and have ``seconds`` together.

        A Failure in the block, of a call or of what is made of its answer, becomes a GatewayError,
        which repeats nothing of what is to ``hide``.
        """
        calls = Calls(self._http, self.base_url, seconds)
        started = time.monotonic()
        reason: GatewayErrorKind | None = None
        try:
            yield calls
        except Failure as failure:
            reason = failure.reason
            raise GatewayError(
                operation,
                reason,
                self._presentable(failure.detail, hide),
                http_status=calls.last_status,
                request_id=calls.request_id,
            ) from None
        except GatewayError as error:
            reason = error.reason
            raise
        finally:
            self._observe(operation, time.monotonic() - started, reason)

    def close(self) -> None:
        """Let go of what the calls share."""
        self._http.close()

    def _presentable(self, detail: str, hide: Sequence[str]) -> str:
        """Return one short line without the secret, which a gateway may repeat in its answer."""
        # Some gateways want the secret in the path, where it stands quoted.
        for secret in filter(None, (self._secret, quote(self._secret, safe=""))):
            detail = detail.replace(secret, "[secret]")
        for text in filter(None, hide):
            detail = detail.replace(text, "[hidden]")
        return "".join(c if c.isprintable() else " " for c in detail[:_DETAIL_LENGTH])


class Calls:
    """The calls of one operation; each raises Failure where no answer comes."""

    def __init__(
        self, http: requests.Session, base_url: str, seconds: float, request_id: str | None = None
    ) -> None:
        self.request_id = request_id or uuid.uuid4().hex
        self.last_status: int | None = None
        self._http = http
        self._base_url = base_url
        self._seconds = seconds
        self._give_up_at = time.monotonic() + seconds

    def within(self, seconds: float) -> Calls:
        """Return calls of the same operation for another thread, which may take so long at most."""
        left = self._give_up_at - time.monotonic()
        return Calls(self._http, self._base_url, max(0.0, min(seconds, left)), self.request_id)

    def get(self, path: str) -> GatewayResponse:
        """Return the answer to a GET of a path below the base URL, its parts quoted already."""
        return self.send("GET", path)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> GatewayResponse:
        """Return the answer to a POST with a JSON body, or with none."""
        return self.send("POST", path, body)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
    ) -> GatewayResponse:
        """Return the answer to a call with any method, and with a bearer token if there is one."""
        self.last_status = None
        headers = {"X-Request-Id": self.request_id}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = self._exchange(method, path, body, headers)
        self.last_status = answer.status
        return answer

    def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> GatewayResponse:
        left = self._give_up_at - time.monotonic()
        if left <= 0:
            raise Failure(GatewayErrorKind.TIMEOUT, f"no answer within {self._seconds:g} s")
        connect_timeout = min(_CONNECT_TIMEOUT, left)
        try:
            with self._http.request(
                method,
                self._base_url + path,
                headers=headers,
                json=body,
                timeout=(connect_timeout, left),
                allow_redirects=False,
                stream=True,
            ) as response:
                content_type = response.headers.get("Content-Type", "")
                return GatewayResponse(response.status_code, content_type, _read(response))
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            raise Failure(
                GatewayErrorKind.INVALID, "a secret that no HTTP header can carry"
            ) from None
        # Time-outs and TLS errors can be ConnectionErrors too: the order matters.
        except requests.ConnectTimeout:
            detail = f"no connection within {connect_timeout:.3g} s"
            raise Failure(GatewayErrorKind.TIMEOUT, detail) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Failure(
                GatewayErrorKind.TIMEOUT, f"no answer within {self._seconds:g} s"
            ) from None
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise Failure(GatewayErrorKind.TLS, _root_cause(error)) from None
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise Failure(
                GatewayErrorKind.INVALID, "an answer that cannot be decompressed"
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Failure(GatewayErrorKind.CONNECTION, _root_cause(error)) from None


def _read(response: requests.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := response.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Failure(
                GatewayErrorKind.INVALID, f"an answer of more than {MAX_BODY_BYTES} bytes"
            )
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


HINTS = {
    GatewayErrorKind.TIMEOUT: "the gateway hangs, or a firewall drops what is sent to this port",
    GatewayErrorKind.CONNECTION: (
        "nothing answers there: is the port right, and does the gateway run?"
    ),
    GatewayErrorKind.TLS: "the certificate or TLS itself: is it https, and the host's own name?",
    GatewayErrorKind.UNAUTHORIZED: (
        "the secret is wrong: compare the fingerprint with the gateway's"
    ),
    GatewayErrorKind.HTML: "a web server or proxy answered, not the gateway: is the port right?",
    GatewayErrorKind.HTTP: "the gateway answered, but not with its list: look at its log",
    GatewayErrorKind.INVALID: "no channel found or invalid answer: is this the gateway's base URL?",
}
"""What is most likely wrong with any gateway; an adapter replaces what it knows better."""


class HttpGateway(Gateway):
    """A gateway with an HTTP API. ``ca_file``: PEM certificates to trust instead of public ones."""

    credential_header: ClassVar[str | None] = None
    """The header that carries the secret, where it is the same one in each call."""

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        list_timeout: float = 90.0,
        qr_timeout: float = 60.0,
        ca_file: str | None = None,
        observe: Observer = lambda _operation, _seconds, _reason: None,
    ) -> None:
        """Let the list take ``list_timeout`` seconds, and every other call ``qr_timeout``."""
        self._base_url = base_url.rstrip("/")
        self._list_timeout = list_timeout
        self._qr_timeout = qr_timeout
        self._connection = Connection(
            self._base_url,
            secret,
            headers={self.credential_header: secret} if self.credential_header else {},
            ca_file=ca_file,
            observe=observe,
        )

    def get_image(self, url: str) -> bytes:
        """Return the image that a QR answer links to; the gateway's own server is asked alone."""
        with self._connection.operation(Operation.QR, self._qr_timeout) as calls:
            if not url.startswith(f"{self._base_url}/"):
                raise Failure(GatewayErrorKind.INVALID, "a QR code at some other server")
            return expect_image(calls.get(url.removeprefix(self._base_url)))

    def close(self) -> None:
        """Let go of what the calls share."""
        self._connection.close()


def in_path(channel_id: str) -> str:
    """Return an id as one part of a path; raise Failure where no URL can hold it."""
    if not is_usable_id(channel_id):
        raise Failure(GatewayErrorKind.INVALID, "a channel id that no URL can hold")
    return quote(channel_id, safe="")


_LONGEST = 15  # digits of a phone number, by ITU-T E.164


def number_of(jid: object) -> str | None:
    """Return the digits of ``55...@c.us`` or ``55...:7@s.whatsapp.net``; None for anything else.

    ``@lid`` names an account without its number.
    """
    if not isinstance(jid, str):
        return None
    digits, _, server = jid.partition("@")
    digits = digits.partition(":")[0].removeprefix("+")
    known = server in {"", "c.us", "s.whatsapp.net"}
    return digits if known and _is_number(digits) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST


_T = TypeVar("_T")
_AT_ONCE = 8


def map_concurrently(ids: Sequence[str], ask: Callable[[str], _T]) -> list[_T | Failure]:
    """Return what ``ask`` returns for each id, or the Failure that it raised.

    Where all of them failed it is the gateway that did: the first Failure is raised.
    """

    def asked(channel_id: str) -> _T | Failure:
        try:
            return ask(channel_id)
        except Failure as failure:
            return failure

    if not ids:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids)), thread_name_prefix="sessions") as pool:
        answers = list(pool.map(asked, ids))
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if len(failures) == len(answers):
        raise failures[0]
    return answers


class SessionStartTracker:
    """Remembers starts for one gateway; safe to share between threads."""

    def __init__(self, *, settle_seconds: float, stuck_seconds: float) -> None:
        """Let a started session alone for a while, and give it up after another."""
        self._settle_seconds = settle_seconds
        self._stuck_seconds = stuck_seconds
        self._lock = threading.Lock()
        self._started_at: dict[str, float] = {}
        self._starting_since: dict[str, float] = {}

    def started(self, channel_id: str) -> None:
        """Note that the session has just been started."""
        with self._lock:
            self._started_at[channel_id] = time.monotonic()
            self._starting_since.pop(channel_id, None)

    def settles(self, channel_id: str) -> bool:
        """Whether it was started so lately that it must not even be asked."""
        with self._lock:
            started_at = self._started_at.get(channel_id)
            if started_at is None:
                return False
            if time.monotonic() - started_at < self._settle_seconds:
                return True
            del self._started_at[channel_id]
            return False

    def saw(self, channel_id: str, *, starting: bool) -> bool:
        """Note what the gateway says of a session, and tell whether it has got stuck.

        It has when it was seen starting each time, the first time long ago.
        """
        with self._lock:
            if not starting:
                self._starting_since.pop(channel_id, None)
                return False
            now = time.monotonic()
            return now - self._starting_since.setdefault(channel_id, now) >= self._stuck_seconds
