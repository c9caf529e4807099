"""What a gateway's answers mean: the shapes of the contract become types, others a Failure."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from whatsapp.channels import Channel, Status, is_usable_id


class Reason(enum.StrEnum):
    """Why a call failed: the label ``reason`` of whatsapp_gateway_request_errors_total."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    HTML = "html"
    HTTP = "http"
    INVALID = "invalid"


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


class Failure(Exception):  # noqa: N818 - GatewayError is what callers see
    """Why a call did not work; the detail may be long, and may repeat what was sent."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Answer:
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
        parsed = self.json()
        said = _said(parsed)
        if self.status in (401, 403):
            raise Failure(Reason.UNAUTHORIZED, f"HTTP {self.status}, wrong secret?{said}")
        if self.status in range(300, 400):
            raise Failure(Reason.HTTP, f"HTTP {self.status}, a redirect: wrong base URL?")
        if self.is_html:
            raise Failure(Reason.HTML, f"HTTP {self.status} with an HTML page instead of JSON")
        if not self.is_success:
            raise Failure(Reason.HTTP, f"HTTP {self.status}{said}")
        if not self.raw.strip():
            raise Failure(Reason.INVALID, f"HTTP {self.status} with an empty body")
        if parsed is None:
            raise Failure(Reason.INVALID, f"HTTP {self.status} with a body that is not JSON")
        if not isinstance(parsed, dict):
            raise Failure(Reason.INVALID, "JSON that is not an object")
        if parsed.get("success") is False:
            raise Failure(Reason.INVALID, f"the gateway answered success=false{said}")
        return parsed

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status says that it worked."""
        return self.status in range(200, 300)


def _said(parsed: Any) -> str:
    words = _words(parsed)
    return f": {words}" if words else ""


def _words(parsed: Any) -> str:
    """Return what the gateway says in ``error`` and ``message``; either may be any JSON."""
    if not isinstance(parsed, dict):
        return ""
    values = (parsed.get(name) for name in ("error", "message"))
    return "; ".join(_text(value) for value in values if value and not isinstance(value, bool))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply)"


def parse_list(answer: Answer) -> ChannelList:
    """Return the channels that an answer to the list call holds."""
    body = answer.checked()
    entries = body.get("channels")
    if entries is None and isinstance(body.get("data"), dict):
        entries = body["data"].get("channels")
    if not isinstance(entries, list):
        raise Failure(Reason.INVALID, "JSON without a list of channels")
    channels: dict[str, Channel] = {}
    left_out: Counter[LeftOut] = Counter()
    for entry in entries:
        channel = _parse_channel(entry)
        if channel is None:
            left_out[LeftOut.UNUSABLE_ID] += 1
        elif channels.setdefault(channel.key, channel) is not channel:
            # Two sessions whose ids differ in letter case alone cannot be told apart in the log.
            left_out[LeftOut.DUPLICATE] += 1
    if not channels:
        raise Failure(Reason.INVALID, "no channel found in the list")
    # By their keys, so that it is the same ones each time, however the gateway sorts its list.
    for key in sorted(channels)[MAX_CHANNELS:]:
        del channels[key]
        left_out[LeftOut.OVER_LIMIT] += 1
    return ChannelList(tuple(channels.values()), left_out)


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


def parse_qr(answer: Answer) -> QrAnswer:
    """Return what an answer to the QR call means."""
    refusal = _refusal(answer)
    if "session not started" in refusal or "start-session" in refusal:
        return QrAnswer(QrKind.NOT_STARTED)
    # An older wrapper's words for a session that WPPConnect calls connected.
    if answer.status == 500 and "invalid qr code response" in refusal:
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


def _refusal(answer: Answer) -> str:
    """Return the words, in small letters, with which the gateway itself refuses a QR code."""
    parsed = answer.json()
    if not (answer.is_success or answer.status == 500) or not isinstance(parsed, dict):
        return ""
    return "" if parsed.get("success") is True else _words(parsed).lower()


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


def expect_success(answer: Answer) -> None:
    """Accept any answer that does not say that the call failed."""
    answer.checked()


def expect_image(answer: Answer) -> bytes:
    """Return the body of an answer that succeeded and is no page."""
    if not answer.is_success or answer.is_html:
        raise Failure(Reason.HTTP, f"HTTP {answer.status} instead of an image")
    return answer.raw
