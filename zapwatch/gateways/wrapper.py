"""Adapter of the gateway-wrapper that PixelHub runs in front of WPPConnect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from zapwatch.channels import Channel, Status, is_usable_id
from zapwatch.gateways.base import (
    HINTS,
    N_,
    Calls,
    CallsMade,
    ChannelList,
    Failure,
    Gateway,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    QrAnswer,
    QrKind,
    error_message,
)
from zapwatch.gateways.helpers import in_path
from zapwatch.messages.message import (
    CIPHERTEXT,
    Direction,
    EventMessage,
    object_at,
)
from zapwatch.messages.webhook_log import (
    CHANNEL_PATHS,
    ID_PATHS,
    MESSAGE_EVENTS,
    WRITTEN_BY_GATEWAY,
)


class WrapperGateway(Gateway):
    """HTTP API of the wrapper, which has no version; all known response formats are read."""

    usual_port: ClassVar = 8443
    calls_made: ClassVar = CallsMade(
        down="getQr",
        zombie="getQr",
        stuck="waits",
        proof="",
        code="none",
        messages="none",
        lost="delete, create",
    )
    hints: ClassVar = HINTS | {
        GatewayErrorKind.HTML: N_(
            "a web server or proxy answered, not the gateway. Is the port missing (:8443)?"
        ),
    }
    credential_header: ClassVar = "X-Gateway-Secret"
    reconnect_call: ClassVar = "getQr"

    def list_channels(self) -> ChannelList:
        """Return the channels; takes up to 90 s, since the wrapper queries them one by one."""
        with self._operation(Operation.LIST) as calls:
            return parse_list(calls.get("/api/channels"))

    def reconnect(
        self,
        channel: Channel,
        *,
        silent: bool,  # noqa: ARG002 - the wrapper has one call for everything
        stuck: bool = False,  # noqa: ARG002
    ) -> QrAnswer:
        """Request the QR code, which makes WPPConnect try to reconnect."""
        return self.qr(channel.id)

    def qr(self, channel_id: str) -> QrAnswer:
        """Request the QR code, which makes WPPConnect try to reconnect the session."""
        with self._operation(Operation.QR) as calls:
            return parse_qr(calls.get(f"/api/channels/{in_path(channel_id)}/qr"))

    def _start_session(self, calls: Calls, channel_id: str) -> None:
        """Start a session for which the QR call returned NOT_STARTED."""
        calls.post(f"/api/channels/{in_path(channel_id)}/start-session").json_object()

    def delete(self, channel_id: str) -> None:
        """Delete the session. THE PAIRING IS LOST: create() must follow, and a person must scan."""
        with self._operation(Operation.DELETE) as calls:
            calls.send("DELETE", f"/api/channels/{in_path(channel_id)}").json_object()

    def create(self, channel_id: str) -> None:
        """Create a session, which a person must pair."""
        with self._operation(Operation.CREATE) as calls:
            calls.post("/api/channels", {"channel": channel_id}).json_object()

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; return the message's id, which is in one of three fields."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            body = {"channel": channel.id, "to": number, "text": text}
            sent = calls.post("/api/messages", body).json_object()
            ids = [sent.get(name) for name in ("id", "messageId", "message_id")]
            return next((i for i in ids if isinstance(i, str) and i), None)

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterator[EventMessage]:
        """Read a payload of ``webhook_raw_logs``, by the same rules as webhook_log.py."""
        names = (event.get(name) for name in ("event", "event_type", "type"))
        name = next(filter(None, names), None)
        direction = MESSAGE_EVENTS.get(name.lower()) if isinstance(name, str) else None
        if direction is None or not isinstance(name, str):
            return
        paths = ((), ("message",), ("data",), ("raw", "payload"))
        places = [object_at(event, *path) for path in paths]
        times = (place.get(field) for place in places for field in ("timestamp", "t"))
        yield EventMessage(
            next(filter(None, (_scalar(event, path) for path in CHANNEL_PATHS)), None),
            next((at for at in times if at is not None), None),
            next(filter(None, (_scalar(event, path, str) for path in ID_PATHS)), None),
            direction is Direction.OUT or any(place.get("fromMe") is True for place in places),
            heard=name.lower() not in WRITTEN_BY_GATEWAY,
            ack=next((place["ack"] for place in places if place.get("ack") is not None), None),
            readable=all(place.get("type") != CIPHERTEXT for place in places),
        )


def parse_list(answer: GatewayResponse) -> ChannelList:
    """Return the channels in a response to the list call."""
    body = answer.json_object()
    entries = body.get("channels")
    if entries is None:
        entries = object_at(body, "data").get("channels")
    if not isinstance(entries, list):
        raise Failure("JSON without a list of channels")
    # The list is also empty if the wrapper could not reach WPPConnect.
    return ChannelList.of(map(_parse_channel, entries), may_be_empty=False)


def _parse_channel(entry: Any) -> Channel | None:
    if not isinstance(entry, dict):
        return None
    for name in ("id", "name", "channel_id"):
        channel_id = entry.get(name)
        if isinstance(channel_id, int) and not isinstance(channel_id, bool):
            channel_id = str(channel_id)
        if isinstance(channel_id, str) and channel_id.strip():
            break
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


def parse_qr(answer: GatewayResponse) -> QrAnswer:
    """Interpret a response to the QR call."""
    refusal = _refusal(answer)
    if "session not started" in refusal or "start-session" in refusal:
        return QrAnswer(QrKind.NOT_STARTED)
    # Older wrappers' error for a session that WPPConnect reports as connected.
    if answer.status == 500 and "invalid qr code response" in refusal:
        return QrAnswer(QrKind.ACCEPTED)
    body = answer.json_object()
    image = _find_qr(body)
    if image is not None:
        return QrAnswer(QrKind.QR, image)
    status = Status.parse(body.get("status") or object_at(body, "data").get("status"))
    starts = status is Status.INITIALIZING
    return QrAnswer(QrKind.INITIALIZING if starts else QrKind.ACCEPTED)


def _refusal(answer: GatewayResponse) -> str:
    """Return the gateway's own error for a QR code in lower case, empty if there is none."""
    parsed = answer.parsed
    if not (answer.is_success or answer.status == 500) or not isinstance(parsed, dict):
        return ""
    return "" if parsed.get("success") is True else error_message(parsed).lower()


def _find_qr(body: Mapping[str, Any]) -> str | None:
    candidates = [body.get(name) for name in _QR_FIELDS]
    for outer in ("data", "result"):
        nested = body.get(outer)
        candidates.append(nested)
        if isinstance(nested, dict):
            candidates.extend(nested.get(name) for name in _QR_FIELDS)
    return next((c.strip() for c in candidates if isinstance(c, str) and _is_qr(c.strip())), None)


def _scalar(event: Mapping[str, Any], path: str, kinds: Any = str | int | float) -> str | None:
    """Return the text or number at a path such as ``$.session.id``, None without one."""
    value: object = event
    for name in path.split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return str(value) if isinstance(value, kinds) else None


def _is_qr(text: str) -> bool:
    return text.startswith((_PNG_IN_BASE64, "data:image/", "http://", "https://"))
