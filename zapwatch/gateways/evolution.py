"""Evolution API, written for 2.3 (read from the source of 2.3.6); 1.x lists in another shape.

docs/gateways/README.md says what was tested how.
"""

from __future__ import annotations

from typing import Any, ClassVar

from zapwatch.channels import Channel, Status, is_usable_id
from zapwatch.gateways.base import (
    HINTS,
    Calls,
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
from zapwatch.gateways.helpers import build_channel_list, in_path, map_concurrently, number_of

_STATUSES = {
    "open": Status.CONNECTED,
    "connecting": Status.INITIALIZING,
    "close": Status.DISCONNECTED,
}
_BAILEYS = "WHATSAPP-BAILEYS"
_STATE_SECONDS = 5.0
_PRIVACY = ("readreceipts", "profile", "status", "online", "last", "groupadd")


class EvolutionGateway(Gateway):
    """Evolution's HTTP API."""

    usual_port: ClassVar = 8080
    hints: ClassVar = HINTS | {
        GatewayErrorKind.UNAUTHORIZED: (
            "the API key is wrong: it is AUTHENTICATION_API_KEY, the global one"
        ),
        GatewayErrorKind.INVALID: (
            "it has no instance, is older than version 2, or this is not its base URL"
        ),
    }
    credential_header: ClassVar = "apikey"
    keeps_channel: ClassVar = True
    lists_qr: ClassVar = False
    can_query: ClassVar = True
    can_take_back: ClassVar = True

    def list_channels(self) -> ChannelList:
        """Return the instances. The status is the process's own, since the database's can be old.

        Where the process does not tell it, it is the database's.
        """
        with self._operation(Operation.LIST) as calls:
            entries = _checked(calls.get("/instance/fetchInstances")).json_list()
            listed = build_channel_list(map(_parse_instance, entries))
            asked = [channel.id for channel in listed.channels if channel.repairable]

            def ask(name: str) -> Status:
                return _status(_state(calls.within(_STATE_SECONDS), name))

            try:
                told = dict(zip(asked, map_concurrently(asked, ask), strict=True))
            except Failure:
                told = {}
            channels = (_as_told(channel, told.get(channel.id)) for channel in listed.channels)
            return ChannelList(tuple(channels), listed.left_out)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Connect a closed instance; restart a zombie, and one that is stuck connecting.

        A restart of any other is refused by some releases and makes others flap.
        """
        with self._operation(Operation.RECONNECT) as calls:
            if not channel.repairable:
                raise Failure(
                    GatewayErrorKind.INVALID, "not a session of WhatsApp Web: nothing to reconnect"
                )
            state = _state(calls, channel.id)
            if state == "open" and not silent:
                return QrAnswer(QrKind.ACCEPTED)
            if state == "open" or (stuck and state == "connecting"):
                _checked(calls.post(f"/instance/restart/{in_path(channel.id)}")).json_object()
                return QrAnswer(QrKind.INITIALIZING)
            return _connect(calls, channel.id)

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the present QR code, and connect nothing."""
        with self._operation(Operation.QR) as calls:
            state = _state(calls, channel_id)
            if state == "open":
                return QrAnswer(QrKind.ACCEPTED)
            if state == "connecting":
                return _connect(calls, channel_id)  # which does no more than tell the code
            return QrAnswer(QrKind.NOT_STARTED)

    def start_session(self, channel_id: str) -> None:
        """Connect an instance that is closed."""
        with self._operation(Operation.START_SESSION) as calls:
            _connect(calls, channel_id)

    def delete(self, channel_id: str) -> None:
        """Log the instance out. THE PAIRING IS LOST; the instance and its webhook stay.

        A closed instance refuses to be logged out, so it is connected first.
        """
        with self._operation(Operation.DELETE) as calls:
            if _state(calls, channel_id) == "close":
                _connect(calls, channel_id)
            _checked(calls.send("DELETE", f"/instance/logout/{in_path(channel_id)}")).json_object()

    def create(self, channel_id: str) -> None:
        """Connect the instance that was logged out."""
        with self._operation(Operation.CREATE) as calls:
            _connect(calls, channel_id)

    def query(self, channel: Channel) -> None:
        """Ask WhatsApp for the privacy settings, which Evolution does not keep."""
        with self._operation(Operation.QUERY) as calls:
            path = f"/chat/fetchPrivacySettings/{in_path(channel.id)}"
            body = _checked(calls.get(path)).json_object()
            if not any(isinstance(body.get(name), str) for name in _PRIVACY):
                raise Failure(GatewayErrorKind.INVALID, "JSON without privacy settings")

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text."""
        hide = (number, text)
        with self._operation(Operation.SEND, hide=hide) as calls:
            body = {"number": number, "text": text}
            path = f"/message/sendText/{in_path(channel.id)}"
            key = _checked(calls.post(path, body)).json_object().get("key")
            found = key.get("id") if isinstance(key, dict) else None
            return found if isinstance(found, str) and found else None

    def take_back(self, channel: Channel, number: str, message_id: str) -> None:
        """Delete a message of ours for both sides."""
        hide = (number,)
        with self._operation(Operation.TAKE_BACK, hide=hide) as calls:
            jid = f"{number}@s.whatsapp.net"
            body = {"id": message_id, "remoteJid": jid, "fromMe": True}
            path = f"/chat/deleteMessageForEveryone/{in_path(channel.id)}"
            _checked(calls.send("DELETE", path, body)).json_object()


def _checked(answer: GatewayResponse) -> GatewayResponse:
    """Return the answer unless it is an error that comes with HTTP 200 or 201."""
    parsed = answer.json()
    if answer.is_success and isinstance(parsed, dict) and parsed.get("error") is True:
        raise Failure(GatewayErrorKind.INVALID, error_message(parsed) or "error without a word")
    return answer


def _state(calls: Calls, name: str) -> str:
    """Return the process's own view; the empty string where it does not know the instance."""
    path = f"/instance/connectionState/{in_path(name)}"
    instance = _checked(calls.get(path)).json_object().get("instance")
    state = instance.get("state") if isinstance(instance, dict) else None
    return state if isinstance(state, str) else ""


def _status(state: object) -> Status:
    return _STATUSES.get(state, Status.UNKNOWN) if isinstance(state, str) else Status.UNKNOWN


def _as_told(channel: Channel, told: Status | Failure | None) -> Channel:
    if told is None or isinstance(told, Failure):
        return channel
    return Channel(channel.id, told, number=channel.number, message_count=channel.message_count)


def _connect(calls: Calls, name: str) -> QrAnswer:
    """Connect; the answer to that is the state, or a QR code, all null while there is none."""
    body = _checked(calls.get(f"/instance/connect/{in_path(name)}")).json_object()
    nested = body.get("qrcode")
    image = body.get("base64") or (nested.get("base64") if isinstance(nested, dict) else None)
    if isinstance(image, str) and image.startswith("data:image/"):
        return QrAnswer(QrKind.QR, image)
    instance = body.get("instance")
    if isinstance(instance, dict) and instance.get("state") == "open":
        return QrAnswer(QrKind.ACCEPTED)
    return QrAnswer(QrKind.INITIALIZING)


def _parse_instance(entry: Any) -> Channel | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("name")
    if not isinstance(name, str) or not is_usable_id(name):
        return None
    counts = entry.get("_count")
    messages = counts.get("Message") if isinstance(counts, dict) else None
    counted = isinstance(messages, int) and not isinstance(messages, bool) and messages >= 0
    return Channel(
        name,
        _status(entry.get("connectionStatus")),
        number=number_of(entry.get("ownerJid")),
        # The official Business API is not connected by Evolution: there is nothing to repair.
        repairable=entry.get("integration", _BAILEYS) in {_BAILEYS, None},
        message_count=messages if counted else None,
    )
