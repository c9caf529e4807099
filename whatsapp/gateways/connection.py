"""Calls over HTTP that end in time, stay at one server, and fail in one line without a secret."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import quote

import requests
import urllib3

from whatsapp import __version__
from whatsapp.deadline import DeadlineAdapter
from whatsapp.gateways.answers import Answer, Failure
from whatsapp.gateways.gateway import GatewayError, Observer, Operation, Reason

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
        reason: Reason | None = None
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

    def get(self, path: str) -> Answer:
        """Return the answer to a GET of a path below the base URL, its parts quoted already."""
        return self.send("GET", path)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """Return the answer to a POST with a JSON body, or with none."""
        return self.send("POST", path, body)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
    ) -> Answer:
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
    ) -> Answer:
        left = self._give_up_at - time.monotonic()
        if left <= 0:
            raise Failure(Reason.TIMEOUT, f"no answer within {self._seconds:g} s")
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
                return Answer(response.status_code, content_type, _read(response))
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            raise Failure(Reason.INVALID, "a secret that no HTTP header can carry") from None
        # Time-outs and TLS errors can be ConnectionErrors too: the order matters.
        except requests.ConnectTimeout:
            detail = f"no connection within {connect_timeout:.3g} s"
            raise Failure(Reason.TIMEOUT, detail) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Failure(Reason.TIMEOUT, f"no answer within {self._seconds:g} s") from None
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
            raise Failure(Reason.TLS, _root_cause(error)) from None
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise Failure(Reason.INVALID, "an answer that cannot be decompressed") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Failure(Reason.CONNECTION, _root_cause(error)) from None


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
