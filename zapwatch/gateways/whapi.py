"""Adapter of Whapi.Cloud's API 1.8.7, from its published OpenAPI document.

There is no list: each token is one channel, and the settings name them. docs/gateways/README.md
shows what was tested, and how.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from zapwatch.channels import Channel, NamedChannel, Status, channel_key, is_usable_id
from zapwatch.gateways.base import (
    HINTS,
    N_,
    QR_KINDS,
    Calls,
    CallsMade,
    ChannelList,
    Failure,
    Gateway,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    PairingCode,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.helpers import (
    Entry,
    in_path,
    is_of_a_chat,
    map_concurrently,
    number_of,
    read_chats,
    read_pairing_code,
)
from zapwatch.messages.message import (
    EventMessage,
    Received,
    Wanted,
    bare_id,
    message_id,
    object_at,
    seconds_of,
)

# By text, since the status numbers are only partly documented.
_STATUSES = {
    "AUTH": Status.CONNECTED,
    "NOT_INIT": Status.DISCONNECTED,
    "INIT": Status.INITIALIZING,
    # Connecting or inactive; only the duration distinguishes them.
    "LAUNCH": Status.INITIALIZING,
    "QR": Status.QR_REQUIRED,
    "ERROR": Status.DISCONNECTED,
    "STOP": Status.DISCONNECTED,
    "SYNC_ERROR": Status.UNKNOWN,
}
_FOR_A_PERSON = {
    "STOP": "stopped: its trial or subscription is over, or it was stopped in the panel",
    "SYNC_ERROR": "a synchronisation error: by Whapi's word only a logout and a new pairing help",
}
_STARTING = {"INIT", "LAUNCH"}
_STATUS_SECONDS = 10.0
_PAIRING_SECONDS = 60.0
_PAGE = 500
_NEWEST = 20
# Reactions, votes and changes; notes of the system.
_NO_MESSAGES = ("action", "system", "call", "pin", "story")
_LOOK = "/health?wakeup=false"
_WAKE = "/health?wakeup=true"
_MEANINGS = {
    401: (GatewayErrorKind.HTTP, "the channel is not paired"),
    402: (GatewayErrorKind.LIMIT, "a limit of its trial or plan"),
    403: (GatewayErrorKind.HTTP, "Whapi forbids it, for this recipient perhaps"),
    404: (GatewayErrorKind.UNAUTHORIZED, "no such channel: a wrong token?"),
    429: (GatewayErrorKind.LIMIT, "too many requests"),
}
"""HTTP statuses with a meaning specific to Whapi."""


class _State(NamedTuple):
    """Health of a channel: the status text, and the channel's own number."""

    text: str
    number: str | None


class WhapiGateway(Gateway):
    """HTTP API of Whapi."""

    usual_port: ClassVar = 443
    calls_made: ClassVar = CallsMade(
        down="health with wakeup=true",
        zombie="nothing: a person is notified",
        stuck="health with wakeup=true",
        proof="contacts with force_check of its own number",
        code="users/login with the number",
        messages="messages/list of all chats",
        lost="logout, health with wakeup=true",
    )
    hints: ClassVar = HINTS | {
        GatewayErrorKind.UNAUTHORIZED: N_(
            "every token is wrong: it is the API token on the channel's page in Whapi's panel."
        ),
        GatewayErrorKind.INVALID: N_("not Whapi's API, which is at https://gate.whapi.cloud."),
    }
    keeps_channel: ClassVar = True
    can_query: ClassVar = True
    can_pair = True
    lists_activity: ClassVar = True
    lists_messages: ClassVar = True
    delivery_seconds: ClassVar = 1500.0  # its pauses grow to ten minutes at least
    state_events: ClassVar = re.compile(rb'"type"\s*:\s*"(?:channel|users)"')

    def __init__(self, *arguments: Any, activity: bool = False, **options: Any) -> None:
        """Configure like every adapter; ``activity``: the list also requests the newest message."""
        super().__init__(*arguments, **options)
        self._with_activity = activity
        self._aliases = {key: one.id for key, one in self._named.items() if one.id}

    def list_channels(self) -> ChannelList:
        """Return the channels that the settings name; one whose health call fails is UNKNOWN."""
        return self._budget.listed(self._list_requests, self._list)

    @property
    def _list_requests(self) -> int:
        return (1 + self._with_activity) * len(self._named)

    def _list(self) -> ChannelList:
        with self._operation(Operation.LIST) as calls:

            def ask(key: str) -> Channel:
                return self._channel(calls.within(_STATUS_SECONDS), self._named[key])

            asked = map_concurrently(list(self._named), ask)
            found = zip(self._named.items(), asked, strict=True)
            return ChannelList.of(
                Channel(one.name, Status.UNKNOWN, alias=self._aliases.get(key))
                if isinstance(channel, Failure)
                else channel
                for (key, one), channel in found
            )

    def _channel(self, calls: Calls, named: NamedChannel) -> Channel:
        state = self._look(calls, named)
        asks = self._with_activity and state.text == "AUTH"
        return Channel(
            named.name,
            _STATUSES.get(state.text, Status.UNKNOWN),
            number=state.number,
            activity=_newest_message(calls, named) if asks else None,
            alias=self._aliases.get(channel_key(named.name)),
        )

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Wake a channel that is down, or has been starting for long.

        For a zombie, no call is known that revives it and keeps the pairing.
        """
        with self._operation(Operation.RECONNECT) as calls:
            named = self._find(channel.id)
            text = self._look(calls, named).text
            if text == "AUTH" and silent:
                raise Failure(
                    "Whapi calls it connected and has no call that reconnects such a channel: "
                    "restart it in Whapi's panel"
                )
            if (stuck and text in _STARTING) or text in {"NOT_INIT", "ERROR"}:
                self._wake(calls, named)
                return QrAnswer(QrKind.INITIALIZING)
            return self._answer(calls, named, text)

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the current QR code, without starting the channel."""
        with self._operation(Operation.QR) as calls:
            named = self._find(channel_id)
            return self._answer(calls, named, self._look(calls, named).text)

    def _start_session(self, calls: Calls, channel_id: str) -> None:
        """Wake a channel that is down."""
        self._wake(calls, self._find(channel_id))

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:
        """Request a code for a channel that waits for a scan."""
        with self._operation(Operation.PAIRING_CODE, hide=(phone,)) as calls:
            named = self._find(channel_id)
            text = self._look(calls, named).text
            if text != "QR":
                raise Failure(f"Whapi has the channel in {text or '?'}")
            answer = calls.send("GET", f"/users/login/{in_path(phone)}", token=named.secret)
            return read_pairing_code(_checked(answer).json_object().get("code"), _PAIRING_SECONDS)

    def delete(self, channel_id: str) -> None:
        """Log the channel out. THE PAIRING IS LOST; the channel, token and webhooks stay."""
        with self._operation(Operation.DELETE) as calls:
            named = self._find(channel_id)
            answer = calls.send("POST", "/users/logout", token=named.secret)
            if answer.status != 409:  # already logged out
                _checked(answer).json_object()

    def query(self, channel: Channel) -> None:
        """Query WhatsApp, bypassing Whapi's cache, for the channel's own number."""
        with self._operation(Operation.QUERY, hide=(channel.number or "",)) as calls:
            named = self._find(channel.id)
            if channel.number is None:
                raise Failure("Whapi does not report the channel's own number")
            body = {"contacts": [channel.number], "force_check": True}
            answer = calls.send("POST", "/contacts", body, token=named.secret)
            found = _checked(answer).json_object().get("contacts")
            one = found[0] if isinstance(found, list) and found else None
            if not isinstance(one, dict) or one.get("status") not in ("valid", "invalid"):
                raise Failure("JSON without the status of a contact")

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; a response with HTTP 200 may still report that it was not sent."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            named = self._find(channel.id)
            body = {"to": number, "body": text}
            answer = calls.send("POST", "/messages/text", body, token=named.secret)
            sent = _checked(answer).json_object()
            if sent.get("sent") is not True:
                raise Failure("Whapi answered that it was not sent")
            return message_id(object_at(sent, "message").get("id"))

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        """List the messages of all chats, the newest first, while the channel is paired.

        One request for each 500 messages and one more.
        """
        listed = 0

        def entries() -> Iterator[list[Entry]]:
            nonlocal listed
            for page in self._messages(channel.id, _NEWEST if wanted.newest else _PAGE):
                listed += len(page)
                yield [_entry(row) for row in page]

        alias = self._aliases.get(channel_key(channel.id))
        about = {"event": {"type": "messages", "event": "post"}, "channel_id": alias}
        received = read_chats([entries()], wanted, lambda _, row: {"messages": [row]} | about)
        if not listed and not received.cannot_know:
            return Received(cannot_know="the gateway lists no message of this channel, new or old")
        if received.events and alias is None:
            why = "Whapi has not reported its own name of this channel"
            return replace(received, cannot_know=why, events={})
        return received

    def _messages(self, channel_id: str, size: int) -> Iterator[list[dict[str, Any]]]:
        offset = 0
        while True:
            path = f"/messages/list?count={size}&offset={offset}&from_me=false&sort=desc"
            with self._operation(Operation.MESSAGES) as calls:
                token = self._find(channel_id).secret
                body = _checked(calls.send("GET", path, token=token)).json_object()
                page = body.get("messages")
                if not isinstance(page, list):
                    raise Failure("JSON without a list of messages")
            yield [one for one in page if isinstance(one, dict)]
            offset += size
            if not page:
                return

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> list[EventMessage]:
        """Read an event; all but those of new messages have another ``event``."""
        about = event.get("event")
        told = (about.get("type"), about.get("event")) if isinstance(about, dict) else ()
        return whapi_messages(event) if told == ("messages", "post") else []

    def _find(self, channel_id: str) -> NamedChannel:
        in_path(channel_id)  # raises if it is invalid
        named = self._named.get(channel_key(channel_id))
        if named is None:
            raise Failure("the settings name no such channel")
        return named

    def _look(self, calls: Calls, named: NamedChannel) -> _State:
        """Read the channel's health, without waking it."""
        body = _checked(calls.send("GET", _LOOK, token=named.secret)).json_object()
        if not isinstance(body.get("status"), dict):
            raise Failure("JSON without a status")
        text = body["status"].get("text")
        channel_id = body.get("channel_id")
        if is_usable_id(channel_id):
            self._aliases[channel_key(named.name)] = channel_id
        return _State(
            text.strip().upper() if isinstance(text, str) else "",
            number_of(object_at(body, "user").get("id")),
        )

    def _wake(self, calls: Calls, named: NamedChannel) -> None:
        _checked(calls.send("GET", _WAKE, token=named.secret)).json_object()

    @staticmethod
    def _answer(calls: Calls, named: NamedChannel, text: str) -> QrAnswer:
        if text in _FOR_A_PERSON:
            raise Failure(f"{text}, {_FOR_A_PERSON[text]}")
        if text not in _STATUSES:
            raise Failure(f"a status that is not known: {text or 'none'}")
        if text == "QR":
            return _qr(calls.send("GET", "/users/login?wakeup=false", token=named.secret))
        return QrAnswer(QR_KINDS[_STATUSES[text]])


WHAPI_EVENT_TYPE = "whapi_messages_post"
"""``event_type`` of the rows with messages in PixelHub's log."""


def whapi_messages(event: Mapping[str, Any]) -> list[EventMessage]:
    """Return the messages of `{"channel_id", "messages": [{"id", "from_me", "source", ...}]}`.

    Messages sent by Whapi's own API are not heard: they only record that call. Nor are own
    messages that WhatsApp has not taken.
    """
    entries = event.get("messages")
    return [
        EventMessage(
            event.get("channel_id"),
            one.get("timestamp"),
            one.get("id"),
            # Some databases return a boolean as a number.
            out=(out := one.get("from_me") in (True, 1)),
            heard=not (
                out and (one.get("source") == "api" or one.get("status") in ("pending", "failed"))
            ),
            entry=one,
        )
        for one in (entries if isinstance(entries, list) else [])
        if isinstance(one, dict)
    ]


def _entry(row: dict[str, Any]) -> Entry:
    kind, chat = row.get("type"), row.get("chat_id")
    counts = row.get("from_me") is False and kind not in _NO_MESSAGES and is_of_a_chat(chat)
    id_ = bare_id(row.get("id")) if counts else None
    return Entry(seconds_of(row.get("timestamp")), id_, kind, chat, row)


def _newest_message(calls: Calls, named: NamedChannel) -> float | None:
    """Return the time of the newest received message (Unix seconds), None if unknown."""
    path = "/messages/list?count=1&from_me=false&sort=desc"
    try:
        body = _checked(calls.send("GET", path, token=named.secret)).json_object()
    except Failure:
        return None
    messages = body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return seconds_of(first.get("timestamp")) if isinstance(first, dict) else None


def _checked(answer: GatewayResponse) -> GatewayResponse:
    """Return the response; raise Failure for the HTTP statuses in _MEANINGS."""
    if answer.status not in _MEANINGS or answer.is_html:
        return answer
    kind, meaning = _MEANINGS[answer.status]
    told = _words(answer.parsed)
    raise Failure(f"HTTP {answer.status}, {meaning}" + (f": {told}" if told else ""), kind)


def _words(parsed: Any) -> str:
    message = object_at(parsed, "error").get("message")
    return message if isinstance(message, str) else ""


def _qr(answer: GatewayResponse) -> QrAnswer:
    if answer.status == 409:
        return QrAnswer(QrKind.ACCEPTED)  # scanned since the health call
    if answer.status == 422:
        return QrAnswer(QrKind.INITIALIZING)
    body = _checked(answer).json_object()
    image = body.get("base64")
    if body.get("status") == "OK" and isinstance(image, str) and image:
        return QrAnswer(QrKind.QR, image)
    if body.get("status") in ("WAITING", "TIMEOUT"):
        return QrAnswer(QrKind.INITIALIZING)
    raise Failure("JSON without a QR code")
