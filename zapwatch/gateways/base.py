"""Gateway interface over HTTP: operations, typed responses, a single error class."""

from __future__ import annotations

import enum
import json
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

from zapwatch.channels import Channel, NamedChannel, Status, channel_key, folded
from zapwatch.http import PLAIN_ACCESS, HttpAccess, HttpClient, HttpError, HttpResponse, one_line
from zapwatch.messages.message import EventMessage, Received, Wanted


class Operation(enum.StrEnum):
    """Operation of a gateway; the label ``operation`` of the request metrics."""

    LIST = "list"
    QR = "qr"
    START_SESSION = "start_session"
    DELETE = "delete"
    CREATE = "create"
    QUERY = "query"
    NUMBER = "number"
    SEND = "send"
    TAKE_BACK = "take_back"
    RECONNECT = "reconnect"
    PAIRING_CODE = "pairing_code"
    MESSAGES = "messages"
    WEBHOOK = "webhook"


class GatewayErrorKind(enum.StrEnum):
    """Reason of a failed call; the label ``reason`` of whatsapp_gateway_request_errors_total."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    HTML = "html"
    HTTP = "http"
    INVALID = "invalid"
    LIMIT = "limit"


class GatewayError(Exception):
    """A call failed. ``str()`` is one line without secrets."""

    def __init__(
        self,
        operation: Operation,
        reason: GatewayErrorKind,
        detail: str,
        *,
        http_status: int | None = None,
        request_id: str = "",
        one_channel: bool = False,
    ) -> None:
        """Describe the failure; ``one_channel``: it concerns that channel only."""
        super().__init__(f"{operation}: {reason}: {detail}")
        self.operation = operation
        self.reason = reason
        self.detail = detail
        self.http_status = http_status
        self.request_id = request_id
        self.one_channel = one_channel


Observer = Callable[[Operation, float, GatewayErrorKind | None], None]
"""Called after each operation with its duration in seconds, and the reason if it failed."""


class QrKind(enum.Enum):
    """Meaning of the response to a QR call."""

    QR = "a QR code waits for a person"
    ACCEPTED = "no QR is needed: the gateway takes the session for connected"
    INITIALIZING = "the session is still starting"
    NOT_STARTED = "the session must be started first"


QR_KINDS = {
    Status.CONNECTED: QrKind.ACCEPTED,
    Status.QR_REQUIRED: QrKind.QR,
    Status.INITIALIZING: QrKind.INITIALIZING,
    Status.DISCONNECTED: QrKind.NOT_STARTED,
}
"""Responses to a QR call by the session's status."""


@dataclass(frozen=True, slots=True)
class QrAnswer:
    """Response to a QR call; ``image`` only if the kind is QR, and not always.

    ``image`` is a ``data:`` URL, an ``http(s)`` URL or bare base64 of a PNG. With it, anyone can
    take over the WhatsApp account, so it must not appear in ``repr()``, logs and URLs.
    """

    kind: QrKind
    image: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PairingCode:
    """Code to type on the phone instead of a scan, and its lifetime in seconds.

    With it, anyone can connect an account here, so it must not appear in ``repr()``, logs and URLs.
    """

    code: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Webhooks in a session's own settings.

    The ``urls`` may contain secrets, and must not appear in ``repr()``, logs and the state. Without
    ``urls``, the session has none of its own; responses omit those of the whole gateway.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    enabled: bool = True
    posts_messages: bool = True
    """Whether events of messages are selected."""


MAX_CHANNELS = 20_000
"""Limit of watched channels per gateway: each is a series in a dozen metrics."""


class LeftOut(enum.StrEnum):
    """Why an entry of a list was left out; label of whatsapp_gateway_channels_left_out."""

    UNUSABLE_ID = "unusable_id"
    DUPLICATE = "duplicate"
    OVER_LIMIT = "over_limit"


LEFT_OUT_WORDS = {
    LeftOut.UNUSABLE_ID: "without a usable id",
    LeftOut.DUPLICATE: "with an id that is there already",
    LeftOut.OVER_LIMIT: f"over the limit of {MAX_CHANNELS} channels",
}


@dataclass(frozen=True, slots=True)
class ChannelList:
    """A gateway's channels, one for each identity, and the numbers of entries left out.

    ``ignored`` are the ids of channels that the operator ignores.
    """

    channels: tuple[Channel, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Channel | None], *, may_be_empty: bool = True) -> ChannelList:
        """Build a list from its entries, in which None marks an unusable one.

        Raises Failure if all entries are unusable, and if there are none unless ``may_be_empty``.
        """
        channels: dict[str, Channel] = {}
        left_out: Counter[LeftOut] = Counter()
        for channel in entries:
            if channel is None:
                left_out[LeftOut.UNUSABLE_ID] += 1
            elif channels.setdefault(channel.key, channel) is not channel:
                left_out[LeftOut.DUPLICATE] += 1
        if not channels and (left_out or not may_be_empty):
            raise Failure("no channel found in the list")
        # Sorted by key, so that the same ones remain for any order of the gateway's list.
        for key in sorted(channels)[MAX_CHANNELS:]:
            del channels[key]
            left_out[LeftOut.OVER_LIMIT] += 1
        alike = {key: folded(key) for key in channels}
        count = Counter(alike.values())
        for key, one in channels.items():
            if count[alike[key]] > 1:
                channels[key] = replace(one, has_twin=True)
        return cls(tuple(channels.values()), left_out)


class Failure(Exception):  # noqa: N818 - callers see GatewayError
    """Cause of a failed call, an invalid answer if not stated.

    The detail may be long and contain secrets.
    """

    def __init__(self, detail: str, reason: GatewayErrorKind = GatewayErrorKind.INVALID) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason


_PAGES = {
    **dict.fromkeys((401, 403), "a firewall or proxy in between refused it"),
    **dict.fromkeys((502, 503, 504), "the proxy runs, its gateway does not"),
}
"""Meanings of HTML pages by their HTTP status."""


class GatewayResponse(HttpResponse):
    """HTTP response of a gateway; the JSON methods raise Failure."""

    @property
    def is_html(self) -> bool:
        """Whether this is a proxy's page rather than the gateway's own response."""
        return "html" in self.content_type.lower() or self.raw.lstrip()[:1] == b"<"

    def json_object(self) -> dict[str, Any]:
        """Return the JSON object of a successful response; raise Failure for any other."""
        parsed = self.json_value()
        if not isinstance(parsed, dict):
            raise Failure("JSON that is not an object")
        return parsed

    def json_list(self) -> list[Any]:
        """Return the JSON list of a successful response; raise Failure for any other."""
        parsed = self.json_value()
        if not isinstance(parsed, list):
            raise Failure("JSON that is not a list")
        return parsed

    def json_value(self) -> Any:
        """Return the JSON of a successful response; raise Failure for any other."""
        is_html, parsed = self.is_html, self.parsed
        refused = isinstance(parsed, dict) and parsed.get("success") is False
        if self.is_success and not is_html and parsed is not None and not refused:
            return parsed
        message = error_message(parsed)
        suffix = f": {message}" if message else ""
        http = f"HTTP {self.status}"
        if self.status == 429:
            raise Failure(f"{http}, too many requests{suffix}", GatewayErrorKind.LIMIT)
        if is_html and self.status in _PAGES:
            meaning = _PAGES[self.status]
            raise Failure(f"{http} with an HTML page: {meaning}", GatewayErrorKind.HTML)
        if self.status in (401, 403):
            raise Failure(f"{http}, wrong secret?{suffix}", GatewayErrorKind.UNAUTHORIZED)
        if self.status in range(300, 400):
            raise Failure(f"{http}, a redirect: wrong base URL?", GatewayErrorKind.HTTP)
        if is_html:
            raise Failure(f"{http} with an HTML page instead of JSON", GatewayErrorKind.HTML)
        if not self.is_success:
            raise Failure(f"{http}{suffix}", GatewayErrorKind.HTTP)
        if not self.raw.strip():
            raise Failure(f"{http} with an empty body")
        if parsed is None:
            raise Failure(f"{http} with a body that is not JSON")
        raise Failure(f"the gateway answered success=false{suffix}")


def error_message(parsed: Any) -> str:
    """Join the texts in ``error``, ``message`` and ``response.message``, which may be any JSON."""
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


_List = TypeVar("_List")


class RequestBudget:
    """Budget of a gateway's requests; this one is unlimited. See registry.py."""

    def take(self) -> bool:
        """Take one request from the budget; return false if none is left."""
        return True

    def spares(self, requests: int) -> bool:  # noqa: ARG002
        """Whether this many requests are left for work other than repairs."""
        return True

    def may_list(self, requests: int) -> bool:  # noqa: ARG002
        """Whether a list may cost this many requests now."""
        return True

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:  # noqa: ARG002
        """Return the list from ``ask``, which costs ``requests``; raise its exceptions."""
        return ask()


NO_BUDGET = RequestBudget()


class Calls:
    """HTTP calls of one operation, which share a request id and a deadline; each raises Failure."""

    def __init__(
        self,
        http: HttpClient,
        seconds: float,
        request_id: str | None = None,
        budget: RequestBudget = NO_BUDGET,
    ) -> None:
        self.request_id = request_id or uuid.uuid4().hex
        self.last_status: int | None = None
        self._http = http
        self._seconds = seconds
        self._budget = budget
        self._give_up_at = time.monotonic() + seconds

    def within(self, seconds: float) -> Calls:
        """Return calls of the same operation for another thread, with their own deadline."""
        left = self._give_up_at - time.monotonic()
        return Calls(self._http, max(0.0, min(seconds, left)), self.request_id, self._budget)

    def get(self, path: str) -> GatewayResponse:
        """Send a GET to a quoted path below the base URL."""
        return self.send("GET", path)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> GatewayResponse:
        """Send a POST, with a JSON body if there is one."""
        return self.send("POST", path, body)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | int | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> GatewayResponse:
        """Send a request, with a bearer token if there is one."""
        self.last_status = None
        if not self._budget.take():
            raise Failure("requests_per_month leaves no request for now", GatewayErrorKind.LIMIT)
        headers = {"X-Request-Id": self.request_id, **(headers or {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        left = self._give_up_at - time.monotonic()
        try:
            response = self._http.request(
                method, path, left, headers=headers, body=body, stated_seconds=self._seconds
            )
        except HttpError as error:
            raise Failure(error.detail, GatewayErrorKind(error.kind)) from None
        self.last_status = response.status
        return GatewayResponse(response.status, response.content_type, response.raw)


def N_(text: str) -> str:  # noqa: N802 - the name that gettext's tools know
    """Mark a text that ``zapwatch init`` translates."""
    return text


HINTS = {
    GatewayErrorKind.TIMEOUT: N_(
        "the gateway hangs, or a firewall drops what is sent to this port."
    ),
    GatewayErrorKind.CONNECTION: N_(
        "nothing answers there. Is the port right, and does the gateway run?"
    ),
    GatewayErrorKind.TLS: N_(
        "the certificate. Is it https, and the host's name? "
        "One of your own: set WPP_GATEWAY_CA_FILE."
    ),
    GatewayErrorKind.UNAUTHORIZED: N_("the secret is wrong. Copy it again, without blanks."),
    GatewayErrorKind.HTML: N_(
        "a web server or proxy answered, not the gateway. Is the port right?"
    ),
    GatewayErrorKind.HTTP: N_(
        "an answer without the list. Is the type right? Does the address end with the port?"
    ),
    GatewayErrorKind.INVALID: N_(
        "the answer is no channel list, or an empty one. Is this the gateway's address?"
    ),
    GatewayErrorKind.LIMIT: N_(
        "no more requests for now: the gateway's limit, or requests_per_month."
    ),
}
"""Most likely causes of failed lists; adapters override some."""


class CallsMade(NamedTuple):
    """Gateway's own names of the calls for each purpose; empty for no call."""

    down: str
    """Repair of a disconnected channel."""
    zombie: str
    stuck: str
    """Repair of a channel that has been starting for long."""
    proof: str
    """Query."""
    code: str
    """Pairing code."""
    messages: str
    """Messages that a channel has received."""
    lost: str
    """With RECONNECT_ALLOW_RESTART: the pairing is lost."""


class Gateway(ABC):
    """One gateway; thread-safe. Every method raises GatewayError only."""

    usual_port: ClassVar[int]
    """Default port of the gateway."""

    hints: ClassVar[Mapping[GatewayErrorKind, str]] = HINTS
    """Most likely cause of a failed list for each reason."""

    calls_made: ClassVar[CallsMade]
    """Text for people, the same as in docs/gateways/README.md."""

    reconnect_call: ClassVar[str] = "reconnect"
    """Name of reconnect() in the log; the gateway's own if it is always the same call."""

    keeps_channel: ClassVar[bool] = False
    """Whether delete() leaves the channel in the list, with its settings but unpaired."""

    starting_hint: ClassVar[str] = ""
    """Advice for people if a repair leaves a session INITIALIZING."""

    lists_qr: ClassVar[bool] = True
    """Whether the list distinguishes sessions that wait for a scan from starting ones."""

    can_query: ClassVar[bool] = False
    can_take_back: ClassVar[bool] = False

    can_pair: bool = False
    """Whether pairing_code() works."""

    asks_number: ClassVar[bool] = False
    """Whether own_number() can return a number that the list omits."""

    lists_activity: ClassVar[bool] = False
    """Whether the list may have times of activity, or message counts."""

    lists_messages: ClassVar[bool] = False
    """Whether received() works."""

    makes_events: ClassVar[bool] = True
    """Whether received() has the events as well, so that a message can be delivered again."""

    delivery_seconds: ClassVar[float] = 60.0
    """Time for which the gateway itself may retry to post a message to its webhook."""

    state_events: ClassVar[re.Pattern[bytes] | None] = None
    """Pattern of events about a session's state, if the gateway posts any."""

    signature_header: ClassVar[str] = ""
    """Header with the HMAC of an event's body, made with the token; empty if it signs none."""

    signature_algorithm: ClassVar[str] = "sha256"

    credential_header: ClassVar[str | None] = None
    """Header of the secret, if it is the same in each call."""

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        list_timeout: float = 90.0,
        qr_timeout: float = 60.0,
        access: HttpAccess = PLAIN_ACCESS,
        channels: Sequence[NamedChannel] = (),
        budget: RequestBudget = NO_BUDGET,
        observe: Observer = lambda _operation, _seconds, _reason: None,
    ) -> None:
        """Configure time-outs in seconds: ``list_timeout``, and ``qr_timeout`` for other calls.

        ``channels`` are those that the settings name. ``budget`` limits the calls.
        """
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._access = access
        self._list_timeout = list_timeout
        self._qr_timeout = qr_timeout
        self._named = {channel_key(channel.name): channel for channel in channels}
        self._budget = budget
        self._observe = observe
        self._http = HttpClient(self._base_url, headers=self._credentials(), access=access)

    def _credentials(self) -> dict[str, str]:
        """Return the headers of every call."""
        return {self.credential_header: self._secret} if self.credential_header else {}

    def _secrets(self) -> list[str]:
        """Return the secrets to mask in errors."""
        of_channels = (channel.secret for channel in self._named.values())
        return [self._secret, *self._access.secrets, *of_channels]

    @contextmanager
    def _operation(self, operation: Operation, *, hide: Sequence[str] = ()) -> Iterator[Calls]:
        """Yield calls that share a request id and a deadline, and observe the operation.

        A Failure in the block, of a call or of parsing its response, becomes a GatewayError, in
        which secrets and the texts in ``hide`` are masked.
        """
        timeout = self._list_timeout if operation is Operation.LIST else self._qr_timeout
        calls = Calls(self._http, timeout, budget=self._budget)
        started = time.monotonic()
        reason: GatewayErrorKind | None = None
        try:
            self._check_budget(operation)
            yield calls
        except Failure as failure:
            reason = failure.reason
            secrets = self._secrets()
            of_secret = reason in {GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT}
            raise GatewayError(
                operation,
                reason,
                # Longest first, since one may be part of another.
                one_line(failure.detail, secrets=sorted(secrets, key=len, reverse=True), hide=hide),
                http_status=calls.last_status,
                request_id=calls.request_id,
                one_channel=bool(self._named) and of_secret and calls.last_status is not None,
            ) from None
        finally:
            self._observe(operation, time.monotonic() - started, reason)

    def _check_budget(self, operation: Operation) -> None:
        """Raise Failure if what is left of the budget is kept for other calls."""
        if operation is Operation.MESSAGES and not self._budget.spares(1):
            raise Failure("requests_per_month is kept for repairs", GatewayErrorKind.LIMIT)
        if operation is Operation.LIST and not self._budget.may_list(self._list_requests):
            raise Failure(
                "requests_per_month is kept for calls and QR codes", GatewayErrorKind.LIMIT
            )

    @abstractmethod
    def list_channels(self) -> ChannelList:
        """Return the gateway's channels.

        An empty list is a failure unless the gateway reliably reports that there are no sessions.
        """

    @abstractmethod
    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Make the gateway reconnect the channel, without losing the pairing.

        ``silent``: the channel is reported as connected, but nothing arrives. ``stuck``: it has
        been starting for so long that the start must be repeated; ignored if it is not starting.
        """

    def can_spare_list(self) -> bool:
        """Whether the budget allows a list for work other than repairs."""
        return self._budget.spares(self._list_requests)

    @property
    def _list_requests(self) -> int:
        """Requests that a list costs."""
        return 1

    def planned_call(self, channel: Channel, *, silent: bool) -> str:
        """Return the names of the calls that reconnect() would make for the listed status."""
        if silent:
            return self.calls_made.zombie
        down = channel.status is Status.DISCONNECTED
        return self.calls_made.down if down else self.reconnect_call

    @abstractmethod
    def qr(self, channel_id: str) -> QrAnswer:
        """Return the channel's current QR code, or the reason for its absence."""

    def start_session(self, channel_id: str) -> None:
        """Start a session that is NOT_STARTED."""
        with self._operation(Operation.START_SESSION) as calls:
            self._start_session(calls, channel_id)

    @abstractmethod
    def _start_session(self, calls: Calls, channel_id: str) -> object:
        """Start a session that is down; raise Failure."""

    def get_image(self, url: str) -> bytes:
        """Return the image of a QR response with a link, which must lead to the gateway.

        Behind a proxy, the gateway may not know its own scheme and port.
        """
        with self._operation(Operation.QR) as calls:
            own = urlsplit(self._base_url)
            host, path = re.escape(own.hostname or ""), re.escape(own.path)
            found = re.fullmatch(rf"(?i:https?://\[?{host}\]?)(?::\d+)?{path}(/.*)", url)
            if found is None:
                raise Failure("a QR code at some other server")
            answer = calls.get(found[1])
            if not answer.is_success or answer.is_html:
                raise Failure(f"HTTP {answer.status} instead of an image", GatewayErrorKind.HTTP)
            return answer.raw

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:  # noqa: ARG002
        """Return a new pairing code for a number (digits, as registered with WhatsApp).

        Requires ``can_pair``. Paired sessions are refused, so that they keep their pairing.
        """
        raise GatewayError(
            Operation.PAIRING_CODE, GatewayErrorKind.INVALID, "this gateway has no pairing codes"
        )

    @abstractmethod
    def delete(self, channel_id: str) -> None:
        """Delete the pairing. IT IS LOST: create() must follow, and a person must scan."""

    def create(self, channel_id: str) -> None:
        """Create a channel's session after delete(), or start it; a person must pair it."""
        with self._operation(Operation.CREATE) as calls:
            self._start_session(calls, channel_id)

    def query(self, channel: Channel) -> None:  # noqa: ARG002 - adapters use it
        """Send WhatsApp's servers a harmless query; requires ``can_query``.

        Success proves the connection from the gateway to WhatsApp, but not that events arrive.
        """
        raise GatewayError(
            Operation.QUERY,
            GatewayErrorKind.INVALID,
            "this gateway has no request that proves a connection",
        )

    def own_number(self, channel: Channel) -> str | None:
        """Return the session's own number (digits only), None if unknown."""
        return channel.number

    @abstractmethod
    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text to a number (digits only); return the message's id, None if unknown.

        After a failure other than TLS and UNAUTHORIZED, the text may have been sent.
        """

    def take_back(
        self,
        channel: Channel,  # noqa: ARG002 - adapters use it, and the next two
        number: str,  # noqa: ARG002
        message_id: str,  # noqa: ARG002
    ) -> None:
        """Delete one of our messages for both sides; requires ``can_take_back``."""
        raise GatewayError(
            Operation.TAKE_BACK, GatewayErrorKind.INVALID, "this gateway cannot delete messages"
        )

    def received(self, channel: Channel, wanted: Wanted) -> Received:  # noqa: ARG002
        """Return messages that the channel received; they are not marked as read."""
        return Received(cannot_know="this gateway has no call that lists messages")

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterable[EventMessage]:  # noqa: ARG003
        """Return the messages in a posted event, none if it reports something else."""
        return ()

    def with_media(self, channel: Channel, event: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return an event of received() with the link to its file, if the list omits that."""
        return event

    @staticmethod
    def event_headers(token: str, body: bytes) -> dict[str, str]:  # noqa: ARG004 - WAHA signs it
        """Return the headers that authenticate an event of this gateway to its receiver."""
        return {"Authorization": f"Bearer {token}"}

    def webhook(self, channel: Channel) -> WebhookConfig | None:  # noqa: ARG002 - adapters use it
        """Return the session's webhooks; None if the gateway does not report them."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
