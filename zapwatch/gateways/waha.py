"""Adapter of WAHA's API 2024.9 to 2026.8, for all engines.

From its OpenAPI documents and documentation, and responses of a real 2024.10.8 Core;
docs/gateways/README.md shows what was tested, and how.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import urlencode

from zapwatch.channels import Channel, Status, is_usable_id
from zapwatch.gateways.base import (
    HINTS,
    N_,
    QR_KINDS,
    Calls,
    CallsMade,
    ChannelList,
    Failure,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    PairingCode,
    QrAnswer,
    QrKind,
    WebhookConfig,
    error_message,
)
from zapwatch.gateways.helpers import (
    NO_MESSAGE_KINDS,
    NO_MESSAGE_TYPES,
    Entry,
    in_path,
    is_of_a_chat,
    number_of,
    read_chats,
    read_pairing_code,
    status_of,
)
from zapwatch.messages.message import (
    CIPHERTEXT,
    EventMessage,
    Received,
    Wanted,
    bare_id,
    is_from_me,
    is_stub,
    message_id,
    object_at,
    seconds_of,
)

_STATUSES = {
    "WORKING": Status.CONNECTED,
    # A working session briefly changes to STARTING and back, about every half hour.
    "STARTING": Status.INITIALIZING,
    "SCAN_QR_CODE": Status.QR_REQUIRED,
    # Since 2026: a person has to continue the pairing in WAHA's dashboard.
    "PASSKEY_REQUIRED": Status.QR_REQUIRED,
    "PASSKEY_CONFIRMATION_REQUIRED": Status.QR_REQUIRED,
    "STOPPED": Status.DISCONNECTED,
    "FAILED": Status.DISCONNECTED,
}
# A code expires with the last QR code, which may already be shown: after 20 to 160 s.
_PAIRING_SECONDS = 60.0
_LISTS_ALL_CHATS = {"NOWEB", "GOWS"}
_PAGE = 200  # messages or chats
_NEWEST = 20  # messages or chats
# Failures of a download, after which a message is delivered again without its file.
_NO_FILE = {GatewayErrorKind.HTTP, GatewayErrorKind.INVALID, GatewayErrorKind.TIMEOUT}
_MESSAGE_EVENTS = {"message", "message.any", "*"}
# WAHA drops rows without content after paging, so that a page before the end may be empty.
_EMPTY_PAGES = 2


class WahaGateway(Gateway):
    """HTTP API of WAHA."""

    usual_port: ClassVar = 3000
    calls_made: ClassVar = CallsMade(
        down="start; restart where it has failed",
        zombie="restart",
        stuck="restart",
        proof="check-exists of its own number",
        code="request-code",
        messages="messages of all chats (NOWEB, GOWS), else overview and messages of each chat; "
        "downloads only files that are delivered again",
        lost="logout, start",
    )
    hints: ClassVar = HINTS | {
        GatewayErrorKind.UNAUTHORIZED: N_("the API key is wrong: it is WAHA_API_KEY, unhashed."),
    }
    credential_header: ClassVar = "X-Api-Key"
    keeps_channel: ClassVar = True
    starting_hint: ClassVar = "it is still starting: see WAHA's log; can WAHA reach WhatsApp?"
    can_query: ClassVar = True
    can_take_back: ClassVar = True
    can_pair = True
    lists_activity: ClassVar = True
    lists_messages: ClassVar = True
    delivery_seconds: ClassVar = 300.0
    state_events: ClassVar = re.compile(rb'"event"\s*:\s*"session\.status"')
    signature_header: ClassVar = "X-Webhook-Hmac"
    signature_algorithm: ClassVar = "sha512"

    def list_channels(self) -> ChannelList:
        """Return the sessions, stopped ones included."""
        with self._operation(Operation.LIST) as calls:
            entries = calls.get("/api/sessions?all=true").json_list()
            return ChannelList.of(map(_parse_session, entries))

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Start a stopped session; restart a failed one, a zombie, or one stuck starting."""
        with self._operation(Operation.RECONNECT) as calls:
            status = _status(calls, channel.id)
            stuck = stuck and status == "STARTING"
            if status in {"STOPPED", "FAILED"} or stuck or (silent and status == "WORKING"):
                self._start(calls, channel.id, status)
                return QrAnswer(QrKind.INITIALIZING)
            return self._answer(calls, channel.id, status)

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the QR code. If it is never scanned, the session ends and is NOT_STARTED."""
        with self._operation(Operation.QR) as calls:
            return self._answer(calls, channel_id, _status(calls, channel_id))

    def _start_session(self, calls: Calls, channel_id: str) -> None:
        """Start a stopped session, or restart one that has failed."""
        self._start(calls, channel_id, _status(calls, channel_id))

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:
        """Request a code for a session that shows a QR code; start one that is down."""
        with self._operation(Operation.PAIRING_CODE, hide=(phone,)) as calls:
            # Not every engine checks the status itself.
            status = _status(calls, channel_id)
            if status in {"STOPPED", "FAILED"}:
                self._start(calls, channel_id, status)
                raise Failure("the session is starting: ask again then")
            if status != "SCAN_QR_CODE":
                raise Failure(f"the session is {status}")
            path = f"/api/{in_path(channel_id)}/auth/request-code"
            answer = calls.post(path, {"phoneNumber": phone}).json_object()
            return read_pairing_code(answer.get("code"), _PAIRING_SECONDS)

    def delete(self, channel_id: str) -> None:
        """Log the session out. THE PAIRING IS LOST; the session and its webhooks stay."""
        with self._operation(Operation.DELETE) as calls:
            calls.post(f"/api/sessions/{in_path(channel_id)}/logout").json_object()

    def query(self, channel: Channel) -> None:
        """Query WhatsApp for the channel's own number."""
        with self._operation(Operation.QUERY, hide=(channel.number or "",)) as calls:
            if channel.number is None:
                raise Failure("WAHA does not report the session's own number")
            asked = urlencode({"phone": channel.number, "session": channel.id})
            answer = calls.get(f"/api/contacts/check-exists?{asked}").json_object()
            if not isinstance(answer.get("numberExists"), bool):
                raise Failure("JSON without numberExists")

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; return the message's id, None if unknown."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            body = {"session": channel.id, "chatId": f"{number}@c.us", "text": text}
            return _message_id(calls.post("/api/sendText", body).json_object(), number)

    def take_back(self, channel: Channel, number: str, message_id: str) -> None:
        """Delete one of our messages for both sides."""
        with self._operation(Operation.TAKE_BACK, hide=(number,)) as calls:
            chat, message = in_path(f"{number}@c.us"), in_path(message_id)
            path = f"/api/{in_path(channel.id)}/chats/{chat}/messages/{message}"
            answer = calls.send("DELETE", path)
            # Some engines return an empty body.
            if not (answer.is_success and not answer.raw.strip()):
                answer.json_value()

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        """List the messages of all chats, or of each chat with a message since ``wanted.since``.

        The request has no time filter: one engine ignores it, another then omits the times.
        """
        with self._operation(Operation.MESSAGES) as calls:
            session = _session(calls, channel.id)
        engine, why = _engine(session), _stores_nothing(session)
        if why:
            return Received(cannot_know=why)
        lists_all = engine in _LISTS_ALL_CHATS
        chats = ["all"] if lists_all else self._chats_since(channel.id, wanted)
        size = _NEWEST if wanted.newest else _PAGE
        pages = (self._messages(channel.id, one, size) for one in chats)
        return read_chats(pages, wanted, partial(_event, session))

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterator[EventMessage]:
        """Read `{"event", "session", "timestamp": ms, "payload": {"fromMe", "source", ...}}`.

        The event's time is the one at which WAHA received the message. The message's own time is
        much earlier if the message waited for the session.
        """
        if event.get("event") not in ("message", "message.any"):
            return
        message = object_at(event, "payload")
        data = object_at(message, "_data")
        out = is_from_me(message)
        yield EventMessage(
            event.get("session"),
            event.get("timestamp", message.get("timestamp")),
            message.get("id"),
            out,
            heard=not (out and message.get("source") == "api"),
            ack=message.get("ackName") or message.get("ack"),
            readable=not is_stub(data) and data.get("type") != CIPHERTEXT,
        )

    def with_media(self, channel: Channel, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let WAHA download the file, as for its own events; without it if that fails."""
        row = object_at(event, "payload")
        id_ = str(row.get("id"))
        parts = id_.split("_")
        if row.get("hasMedia") is not True or len(parts) < 3:
            return event
        try:
            with self._operation(Operation.MESSAGES, hide=re.findall(r"\d{5,}", id_)) as calls:
                place = f"{in_path(parts[1])}/messages/{in_path(id_)}"
                path = f"/api/{in_path(channel.id)}/chats/{place}?downloadMedia=true"
                media = calls.get(path).json_object().get("media")
        except GatewayError as error:
            if error.reason in _NO_FILE:
                return event
            raise
        return {**event, "payload": row | {"media": media}}

    @staticmethod
    def event_headers(token: str, body: bytes) -> dict[str, str]:
        """Sign the body like WAHA for webhooks with an HMAC key."""
        signature = hmac.new(token.encode(), body, hashlib.sha512).hexdigest()
        return {"X-Webhook-Hmac": signature, "X-Webhook-Hmac-Algorithm": "sha512"}

    def webhook(self, channel: Channel) -> WebhookConfig:
        """Return the session's own webhooks for messages; global ones are not reported."""
        with self._operation(Operation.WEBHOOK) as calls:
            told = object_at(_session(calls, channel.id), "config").get("webhooks")
        found = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        hooks = [
            (one["url"], events)
            for one in found
            if isinstance(one.get("url"), str) and isinstance(events := one.get("events"), list)
        ]
        posting = [url for url, events in hooks if _MESSAGE_EVENTS & set(map(str, events))]
        urls = posting or [url for url, _ in hooks]
        return WebhookConfig(tuple(urls), posts_messages=bool(posting))

    def _chats_since(self, channel_id: str, wanted: Wanted) -> list[str]:
        """Return the chats with a last message in the period; the list is newest first."""
        chats: list[str] = []
        size, most = (_NEWEST, 1) if wanted.newest else (_PAGE, None)
        for page in islice(self._pages(channel_id, "overview", {}, size), most):
            old = 0
            for chat in page:
                last = chat.get("lastMessage")
                at = seconds_of(last.get("timestamp")) if isinstance(last, dict) else None
                old += at is not None and at < wanted.since
                is_recent = at is not None and at >= wanted.since
                if is_usable_id(chat.get("id")) and is_of_a_chat(chat["id"]) and is_recent:
                    chats.append(chat["id"])
            if old == len(page):
                break
        return list(dict.fromkeys(chats))

    def _messages(self, channel_id: str, chat: str, size: int) -> Iterator[list[Entry]]:
        query = {"sortBy": "timestamp", "sortOrder": "desc", "downloadMedia": "false"}
        place = f"{in_path(chat)}/messages"
        for page in self._pages(channel_id, place, query | {"filter.fromMe": "false"}, size):
            yield [_entry(row) for row in page]

    def _pages(
        self, channel_id: str, place: str, query: dict[str, str], size: int
    ) -> Iterator[list[dict[str, Any]]]:
        offset = empty = 0
        while empty < _EMPTY_PAGES:
            asked = urlencode(query | {"limit": size, "offset": offset})
            # An error may quote the chat, whose name is a number.
            hide = re.findall(r"\d{5,}", place)
            with self._operation(Operation.MESSAGES, hide=hide) as calls:
                path = f"/api/{in_path(channel_id)}/chats/{place}?{asked}"
                page = [one for one in calls.get(path).json_list() if isinstance(one, dict)]
            empty = 0 if page else empty + 1
            offset += size
            if page:
                yield page

    def _start(self, calls: Calls, channel_id: str, status: str) -> None:
        way = "start" if status == "STOPPED" else "restart"
        answer = calls.post(f"/api/sessions/{in_path(channel_id)}/{way}")
        # It may have started by itself since the status call; older releases then return a 422.
        if answer.status != 422 or "already started" not in error_message(answer.parsed):
            answer.json_object()

    @staticmethod
    def _answer(calls: Calls, channel_id: str, status: str) -> QrAnswer:
        if status == "SCAN_QR_CODE":
            return _qr(calls.get(f"/api/{in_path(channel_id)}/auth/qr?format=image"))
        return QrAnswer(QR_KINDS[_STATUSES.get(status, Status.INITIALIZING)])


def _session(calls: Calls, channel_id: str) -> dict[str, Any]:
    return calls.get(f"/api/sessions/{in_path(channel_id)}").json_object()


def _status(calls: Calls, channel_id: str) -> str:
    status = _session(calls, channel_id).get("status")
    return status if isinstance(status, str) else ""


def _qr(answer: GatewayResponse) -> QrAnswer:
    # The status has changed since: a running session names the expected statuses.
    refused = answer.parsed
    if answer.status == 422 and isinstance(refused, dict) and "expected" in refused:
        return QrAnswer(QrKind.INITIALIZING)
    if answer.status == 404 and "start it first" in error_message(refused):
        return QrAnswer(QrKind.NOT_STARTED)
    body = answer.json_object()
    data, kind = body.get("data"), body.get("mimetype")
    if kind != "image/png" or not isinstance(data, str) or not data:
        raise Failure("JSON without a PNG of the QR code")
    return QrAnswer(QrKind.QR, f"data:image/png;base64,{data}")


def _message_id(sent: dict[str, Any], number: str) -> str | None:
    """Return the id of a sent message, whose format depends on the engine."""
    bare = object_at(sent, "key").get("id")
    made = f"true_{number}@c.us_{bare}" if isinstance(bare, str) else None
    return message_id(sent.get("id")) or made


def _parse_session(entry: Any) -> Channel | None:
    name = object_at(entry).get("name")
    if not is_usable_id(name):
        return None
    return Channel(
        name,
        status_of(entry.get("status"), _STATUSES),
        number=number_of(object_at(entry, "me").get("id")),
        activity=seconds_of(object_at(entry, "timestamps").get("activity")),
        stopped=entry.get("status") == "STOPPED",
    )


def _engine(session: dict[str, Any]) -> str:
    named = object_at(session, "engine").get("engine")
    return named if isinstance(named, str) else ""


def _stores_nothing(session: dict[str, Any]) -> str:
    """Return why the session stores no messages, empty if its settings do not rule it out."""
    config = object_at(session, "config")
    if _engine(session) == "NOWEB" and object_at(config, "noweb", "store").get("enabled") is False:
        return "the session's config.noweb.store is off: WAHA keeps none of its messages"
    if object_at(config, "gows", "storage").get("messages") is False:
        return "the session's config.gows.storage.messages is off: WAHA keeps none of them"
    return ""


def _entry(row: dict[str, Any]) -> Entry:
    """Parse a row of a list of messages, whose format depends on the engine."""
    data = object_at(row, "_data")
    at = seconds_of(row.get("timestamp")) or seconds_of(data.get("messageTimestamp"))
    content = data.get("message") or data.get("Message")
    inner = content.keys() if isinstance(content, dict) else set()
    names = (row.get("from"), *str(row.get("id")).split("_"))
    counts = (
        row.get("fromMe") is False
        and all(map(is_of_a_chat, names))
        and not is_stub(data)
        and data.get("type") not in NO_MESSAGE_TYPES
        and inner.isdisjoint(NO_MESSAGE_KINDS)
    )
    kind = "media" if row.get("hasMedia") is True else "text"
    return Entry(at, bare_id(row.get("id")) if counts else None, kind, row.get("from"), row)


def _event(session: dict[str, Any], id_: str, row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row to the event that WAHA posts for it.

    Its name is ``message`` unless the session's webhooks only subscribe to ``message.any``.
    """
    webhooks = object_at(session, "config").get("webhooks")
    found = webhooks if isinstance(webhooks, list) else ()
    wanted = [one.get("events") for one in found if isinstance(one, dict)]
    names = {str(name) for some in wanted if isinstance(some, list) for name in some}
    return {
        # Constant for a message, so that the consumer can recognize repeated events.
        "id": f"evt_{id_}",
        "timestamp": int(time.time() * 1000),
        "event": "message.any" if _MESSAGE_EVENTS & names == {"message.any"} else "message",
        "session": session.get("name"),
        "me": session.get("me"),
        "payload": {"source": "app"} | row,
        "engine": _engine(session),
    }
