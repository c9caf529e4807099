"""Gateway interface over HTTP: operations, answers as types, failures as one error."""

from __future__ import annotations

import enum
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

from zapwatch.channels import Channel, NamedChannel, channel_key
from zapwatch.http import PLAIN_ACCESS, HttpAccess, HttpClient, HttpError, HttpResponse, one_line
from zapwatch.messages.received import Received


class Operation(enum.StrEnum):
    """What can be asked of a gateway: the label ``operation`` of the request metrics."""

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
    """Why a call failed: the label ``reason`` of whatsapp_gateway_request_errors_total."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    HTML = "html"
    HTTP = "http"
    INVALID = "invalid"
    LIMIT = "limit"


class GatewayError(Exception):
    """A call failed. ``str()`` is one line without any secret."""

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
        """Take the operation and why it failed; ``one_channel``: it is about that channel alone."""
        super().__init__(f"{operation}: {reason}: {detail}")
        self.operation = operation
        self.reason = reason
        self.detail = detail
        self.http_status = http_status
        self.request_id = request_id
        self.one_channel = one_channel


Observer = Callable[[Operation, float, GatewayErrorKind | None], None]
"""Is told of each operation: which, its seconds, and the reason if it failed."""


class QrKind(enum.Enum):
    """What the answer to a QR call means."""

    QR = "a QR code waits for a person"
    ACCEPTED = "no QR is needed: the gateway takes the session for connected"
    INITIALIZING = "the session is still starting"
    NOT_STARTED = "the session must be started first"


@dataclass(frozen=True, slots=True)
class QrAnswer:
    """The gateway's answer to a QR call; ``image`` only where kind is QR, and not always there.

    ``image`` is a ``data:`` URL, an ``http(s)`` URL or bare base64 of a PNG. It lets whoever sees
    it take over the WhatsApp account, so it stays out of ``repr()``, logs and URLs.
    """

    kind: QrKind
    image: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PairingCode:
    """A code that is typed on the phone instead of a scan, and for how many seconds it lives.

    It lets whoever types it connect an account here: out of ``repr()``, logs and URLs.
    """

    code: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Where a session of its own settings posts its messages.

    The ``urls`` may hold secrets: out of ``repr()``, logs and the state. None, where the session
    has none of its own; what is set for the whole gateway is in no answer.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    enabled: bool = True
    posts_messages: bool = True
    """Whether the event of a message is among those that are selected."""


MAX_CHANNELS = 20_000
"""More of one gateway are not watched: each is a series in a dozen metrics."""


class LeftOut(enum.StrEnum):
    """Why an entry of a list is no channel: label of whatsapp_gateway_channels_left_out."""

    UNUSABLE_ID = "unusable_id"
    DUPLICATE = "duplicate"
    OVER_LIMIT = "over_limit"


LEFT_OUT_WORDS = {
    LeftOut.UNUSABLE_ID: "without a usable id",
    LeftOut.DUPLICATE: "with an id that is there already, letter case and spaces apart",
    LeftOut.OVER_LIMIT: f"over the limit of {MAX_CHANNELS} channels",
}


@dataclass(frozen=True, slots=True)
class ChannelList:
    """The gateway's channels, one for each identity, and how many entries were left out.

    ``ignored`` are the ids of those that the operator does not want watched.
    """

    channels: tuple[Channel, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Channel | None], *, may_be_empty: bool = True) -> ChannelList:
        """Return the channels among the entries of a list; None stands for an entry that is none.

        Raises Failure where all the entries are none, and, unless the list ``may_be_empty``, where
        there are no entries.
        """
        channels: dict[str, Channel] = {}
        left_out: Counter[LeftOut] = Counter()
        for channel in entries:
            if channel is None:
                left_out[LeftOut.UNUSABLE_ID] += 1
            elif channels.setdefault(channel.key, channel) is not channel:
                # Two sessions whose ids differ in letter case alone cannot be told apart in the
                # log.
                left_out[LeftOut.DUPLICATE] += 1
        if not channels and (left_out or not may_be_empty):
            raise Failure(GatewayErrorKind.INVALID, "no channel found in the list")
        # By their keys, so that it is the same ones each time, however the gateway sorts its list.
        for key in sorted(channels)[MAX_CHANNELS:]:
            del channels[key]
            left_out[LeftOut.OVER_LIMIT] += 1
        return cls(tuple(channels.values()), left_out)


class Failure(Exception):  # noqa: N818 - GatewayError is what callers see
    """Cause of a failed call; the detail may be long, and may repeat what was sent."""

    def __init__(self, reason: GatewayErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class GatewayResponse(HttpResponse):
    """HTTP response of a gateway; what is no usable JSON raises Failure."""

    @property
    def is_html(self) -> bool:
        """Whether it is a proxy's page rather than the gateway's own response."""
        return "html" in self.content_type.lower() or self.raw.lstrip()[:1] == b"<"

    def json_object(self) -> dict[str, Any]:
        """Return the JSON object of a successful answer; raise Failure for any other."""
        parsed = self.json_value()
        if not isinstance(parsed, dict):
            raise Failure(GatewayErrorKind.INVALID, "JSON that is not an object")
        return parsed

    def json_list(self) -> list[Any]:
        """Return the JSON list of a successful answer; raise Failure for any other."""
        parsed = self.json_value()
        if not isinstance(parsed, list):
            raise Failure(GatewayErrorKind.INVALID, "JSON that is not a list")
        return parsed

    def json_value(self) -> Any:
        """Return the JSON of a successful answer; raise Failure for any other."""
        parsed = self.json()
        message = error_message(parsed)
        suffix = f": {message}" if message else ""
        if self.is_html and self.status in (401, 403):
            raise Failure(
                GatewayErrorKind.HTML,
                f"HTTP {self.status} with an HTML page: a firewall or proxy in between refused it",
            )
        if self.is_html and self.status in (502, 503, 504):
            raise Failure(
                GatewayErrorKind.HTML,
                f"HTTP {self.status} with an HTML page: the proxy runs, its gateway does not",
            )
        if self.status in (401, 403):
            raise Failure(
                GatewayErrorKind.UNAUTHORIZED, f"HTTP {self.status}, wrong secret?{suffix}"
            )
        if self.status in range(300, 400):
            raise Failure(GatewayErrorKind.HTTP, f"HTTP {self.status}, a redirect: wrong base URL?")
        if self.is_html:
            raise Failure(
                GatewayErrorKind.HTML, f"HTTP {self.status} with an HTML page instead of JSON"
            )
        if not self.is_success:
            raise Failure(GatewayErrorKind.HTTP, f"HTTP {self.status}{suffix}")
        if not self.raw.strip():
            raise Failure(GatewayErrorKind.INVALID, f"HTTP {self.status} with an empty body")
        if parsed is None:
            raise Failure(
                GatewayErrorKind.INVALID, f"HTTP {self.status} with a body that is not JSON"
            )
        if isinstance(parsed, dict) and parsed.get("success") is False:
            raise Failure(GatewayErrorKind.INVALID, f"the gateway answered success=false{suffix}")
        return parsed


def error_message(parsed: Any) -> str:
    """Return the text that a gateway puts in ``error``, ``message`` and ``response.message``.

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


_List = TypeVar("_List")


class RequestBudget:
    """How many requests a gateway may get: this one without bounds. See registry.py."""

    def take(self) -> bool:
        """Take one request out of the budget; false where none is left."""
        return True

    def spares(self, requests: int) -> bool:  # noqa: ARG002
        """Whether this many requests are left for work that can wait, beside the repairs."""
        return True

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:  # noqa: ARG002
        """Return the list that ``ask`` makes with so many requests; raise what it raises."""
        return ask()


NO_BUDGET = RequestBudget()


class Calls:
    """HTTP calls of one operation, with one request id and one deadline; each raises Failure."""

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
        """Return calls of the same operation for another thread, with a deadline of their own."""
        left = self._give_up_at - time.monotonic()
        return Calls(self._http, max(0.0, min(seconds, left)), self.request_id, self._budget)

    def get(self, path: str) -> GatewayResponse:
        """Send a GET to a path below the base URL, its parts quoted already."""
        return self.send("GET", path)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> GatewayResponse:
        """Send a POST with a JSON body, or with none."""
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
        """Send a request with any method, and with a bearer token if there is one."""
        self.last_status = None
        if not self._budget.take():
            raise Failure(GatewayErrorKind.LIMIT, "requests_per_month leaves no request for now")
        headers = {"X-Request-Id": self.request_id, **(headers or {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        left = self._give_up_at - time.monotonic()
        try:
            response = self._http.request(
                method, path, left, headers=headers, body=body, stated_seconds=self._seconds
            )
        except HttpError as error:
            raise Failure(GatewayErrorKind(error.kind), error.detail) from None
        self.last_status = response.status
        return GatewayResponse(response.status, response.content_type, response.raw)


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
    GatewayErrorKind.LIMIT: "no more requests for now: the gateway's limit, or requests_per_month",
}
"""What is most likely wrong with any gateway; an adapter replaces what it knows better."""


class CallsMade(NamedTuple):
    """What a gateway is called for, in its own words; empty where there is no such call."""

    down: str
    """For a channel that is down."""
    zombie: str
    stuck: str
    """For one that has been starting for long."""
    proof: str
    """For a query."""
    code: str
    """For a pairing code."""
    messages: str
    """For the messages that a channel has received."""
    lost: str
    """With RECONNECT_ALLOW_RESTART: the pairing is lost."""


class Gateway(ABC):
    """One gateway; safe to share between threads. Every method raises GatewayError only."""

    usual_port: ClassVar[int]
    """Where it listens unless told otherwise."""

    hints: ClassVar[Mapping[GatewayErrorKind, str]]
    """What is most likely wrong where the list fails for a reason; each of them has one."""

    calls_made: ClassVar[CallsMade]
    """For people; docs/gateways/README.md has the same."""

    reconnect_call: ClassVar[str] = "reconnect"
    """What the log calls reconnect(); the gateway's own name where it always is the same call."""

    keeps_channel: ClassVar[bool] = False
    """Whether delete() leaves the channel in the list, with its settings but unpaired."""

    starting_hint: ClassVar[str] = ""
    """What a person should look at where a repair leaves a session INITIALIZING."""

    has_aliases: ClassVar[bool] = False
    """Whether its list tells channels by other names than log and events do."""

    lists_qr: ClassVar[bool] = True
    """Whether the list tells a session that waits for a scan from one that starts."""

    can_query: ClassVar[bool] = False
    can_take_back: ClassVar[bool] = False

    can_pair: bool = False
    """Whether pairing_code() works."""

    asks_number: ClassVar[bool] = False
    """Whether own_number() can tell a number that the list does not."""

    lists_messages: ClassVar[bool] = False
    """Whether received() can tell anything."""

    delivery_seconds: ClassVar[float] = 60.0
    """For so long the gateway may try to post a message to its webhook by itself."""

    credential_header: ClassVar[str | None] = None
    """The header that carries the secret, where it is the same one in each call."""

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
        """Let the list take ``list_timeout`` seconds, and every other call ``qr_timeout``.

        ``channels``: those that the settings name. ``budget`` bounds the calls.
        """
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._password = access.password
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
        """Return all that no error may repeat."""
        of_channels = (channel.secret for channel in self._named.values())
        return [self._secret, self._password, *of_channels]

    @contextmanager
    def _operation(self, operation: Operation, *, hide: Sequence[str] = ()) -> Iterator[Calls]:
        """Lend calls that share a request id and a deadline, and observe the operation.

        A Failure in the block, of a call or of what is made of its answer, becomes a GatewayError,
        which repeats neither the secret nor what is to ``hide``.
        """
        timeout = self._list_timeout if operation is Operation.LIST else self._qr_timeout
        calls = Calls(self._http, timeout, budget=self._budget)
        started = time.monotonic()
        reason: GatewayErrorKind | None = None
        try:
            yield calls
        except Failure as failure:
            reason = failure.reason
            secrets = self._secrets()
            of_secret = reason in {GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT}
            raise GatewayError(
                operation,
                reason,
                # The longest first: one may be a part of another.
                one_line(failure.detail, secrets=sorted(secrets, key=len, reverse=True), hide=hide),
                http_status=calls.last_status,
                request_id=calls.request_id,
                one_channel=bool(self._named) and of_secret and calls.last_status is not None,
            ) from None
        except GatewayError as error:
            reason = error.reason
            raise
        finally:
            self._observe(operation, time.monotonic() - started, reason)

    @abstractmethod
    def list_channels(self) -> ChannelList:
        """Return the channels that the gateway has.

        None at all is a failure too, unless the gateway can tell "no session yet" from a mistake.
        """

    @abstractmethod
    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Make the gateway try to reconnect the channel, without losing the pairing.

        ``silent``: the gateway calls it connected, yet nothing arrives. ``stuck``: it has been
        starting for so long that the start itself must be repeated; ignored where it is not
        starting any more.
        """

    def can_spare_list(self) -> bool:
        """Whether the budget has a list left for somebody who only looks."""
        return self._budget.spares(self._list_requests)

    @property
    def _list_requests(self) -> int:
        """How many requests a list costs, where they are counted."""
        return 1

    def planned_call(self, channel: Channel, *, silent: bool) -> str:  # noqa: ARG002
        """Return what reconnect() would call, for whoever asks before it is called."""
        return self.reconnect_call

    @abstractmethod
    def qr(self, channel_id: str) -> QrAnswer:
        """Return the channel's present QR code, or why there is none."""

    @abstractmethod
    def start_session(self, channel_id: str) -> None:
        """Start a session that is NOT_STARTED."""

    def get_image(self, url: str) -> bytes:
        """Return the image that a QR answer only links to; no other server is asked for it."""
        with self._operation(Operation.QR) as calls:
            if not url.startswith(f"{self._base_url}/"):
                raise Failure(GatewayErrorKind.INVALID, "a QR code at some other server")
            answer = calls.get(url.removeprefix(self._base_url))
            if not answer.is_success or answer.is_html:
                raise Failure(GatewayErrorKind.HTTP, f"HTTP {answer.status} instead of an image")
            return answer.raw

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:  # noqa: ARG002
        """Return a new pairing code for a number (digits, as WhatsApp registered it).

        Only where ``can_pair``, and only of a session without a pairing: no other loses one by it.
        """
        raise GatewayError(
            Operation.PAIRING_CODE, GatewayErrorKind.INVALID, "this gateway has no pairing codes"
        )

    @abstractmethod
    def delete(self, channel_id: str) -> None:
        """Throw the pairing away. IT IS LOST: create() must follow, and a person must scan."""

    @abstractmethod
    def create(self, channel_id: str) -> None:
        """Make a session, which a person must scan, of a channel after its delete()."""

    def query(self, channel: Channel) -> None:  # noqa: ARG002 - adapters use it
        """Ask WhatsApp's servers for something harmless; only where ``can_query``.

        That it works proves the way from the gateway to WhatsApp, not that events come in.
        """
        raise GatewayError(
            Operation.QUERY,
            GatewayErrorKind.INVALID,
            "this gateway has no request that proves a connection",
        )

    def own_number(self, channel: Channel) -> str | None:
        """Return the number (digits only) of the session itself, None where it is not told."""
        return channel.number

    @abstractmethod
    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text to a number (digits only); return the message's id where it is told.

        After a failure, but for TLS and UNAUTHORIZED, the text may have been sent all the same.
        """

    def take_back(
        self,
        channel: Channel,  # noqa: ARG002 - adapters use it, and the next two
        number: str,  # noqa: ARG002
        message_id: str,  # noqa: ARG002
    ) -> None:
        """Delete a message of ours for both sides; only where ``can_take_back``."""
        raise GatewayError(
            Operation.TAKE_BACK, GatewayErrorKind.INVALID, "this gateway takes no message back"
        )

    def received(
        self,
        channel: Channel,  # noqa: ARG002 - adapters use them
        since: float,  # noqa: ARG002
        until: float,  # noqa: ARG002
        events_of: Collection[str] = (),  # noqa: ARG002
        *,
        newest: bool = False,  # noqa: ARG002
    ) -> Received:
        """Return what the channel has received between two moments in Unix seconds.

        Nothing is changed by it: no message counts as read afterwards. Of the ids in ``events_of``
        there are the events as well, as the gateway itself would post them.
        ``newest``: only the newest of them, by a few short calls.
        """
        return Received(cannot_know="this gateway has no call that lists messages")

    @staticmethod
    def event_headers(token: str, body: bytes) -> dict[str, str]:  # noqa: ARG004 - WAHA signs it
        """Return the headers by which the receiver of an event of this gateway trusts it."""
        return {"Authorization": f"Bearer {token}"}

    def webhook(self, channel: Channel) -> WebhookConfig | None:  # noqa: ARG002 - adapters use it
        """Return where the session posts its messages; None where the gateway does not say."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
