"""What every gateway offers, whatever its API; its answers as types, its failures as one error."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from zapwatch.channels import Channel


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


class GatewayErrorKind(enum.StrEnum):
    """Why a call failed: the label ``reason`` of whatsapp_gateway_request_errors_total."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    HTML = "html"
    HTTP = "http"
    INVALID = "invalid"


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
    ) -> None:
        super().__init__(f"{operation}: {reason}: {detail}")
        self.operation = operation
        self.reason = reason
        self.detail = detail
        self.http_status = http_status
        self.request_id = request_id


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


MAX_CHANNELS = 20_000
"""More of one gateway are not watched: each is a series in a dozen metrics."""


class LeftOut(enum.StrEnum):
    """Why an entry of a list is no channel: label of whatsapp_gateway_channels_left_out."""

    UNUSABLE_ID = "unusable_id"
    DUPLICATE = "duplicate"
    OVER_LIMIT = "over_limit"


@dataclass(frozen=True, slots=True)
class ChannelList:
    """The gateway's channels, one for each identity, and how many entries were left out."""

    channels: tuple[Channel, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)


class Gateway(ABC):
    """One gateway; safe to share between threads. Every method raises GatewayError only."""

    usual_port: ClassVar[int]
    """Where it listens unless told otherwise."""

    hints: ClassVar[Mapping[GatewayErrorKind, str]]
    """What is most likely wrong where the list fails for a reason; each of them has one."""

    reconnect_call: ClassVar[str] = "reconnect"
    """What the log calls reconnect(); the gateway's own name where it always is the same call."""

    keeps_channel: ClassVar[bool] = False
    """Whether delete() leaves the channel in the list, with its settings but unpaired."""

    can_query: ClassVar[bool] = False
    can_take_back: ClassVar[bool] = False

    asks_number: ClassVar[bool] = False
    """Whether own_number() can tell a number that the list does not."""

    @abstractmethod
    def list_channels(self) -> ChannelList:
        """Return the channels that the gateway has. Having none is a failure too."""

    @abstractmethod
    def reconnect(self, channel: Channel, *, silent: bool) -> QrAnswer:
        """Make the gateway try to reconnect the channel, without losing the pairing.

        ``silent``: the gateway calls it connected, yet nothing arrives.
        """

    @abstractmethod
    def qr(self, channel_id: str) -> QrAnswer:
        """Return the channel's present QR code, or why there is none."""

    @abstractmethod
    def start_session(self, channel_id: str) -> None:
        """Start a session that is NOT_STARTED."""

    @abstractmethod
    def get_image(self, url: str) -> bytes:
        """Return the image that a QR answer only links to; no other server is asked for it."""

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

    @abstractmethod
    def close(self) -> None:
        """Let go of what the calls share."""
