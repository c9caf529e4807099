"""Adapter of WPPConnect Server 2.8 to 2.10, from source, documents and a real 2.10.4.

docs/gateways/README.md shows what was tested, and how.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

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
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    PairingCode,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.helpers import (
    NO_MESSAGE_TYPES,
    ChatError,
    Entry,
    in_path,
    is_of_a_chat,
    number_of,
    read_chats,
    read_pairing_code,
    status_of,
    with_statuses,
)
from zapwatch.http import json_or_none
from zapwatch.messages.message import (
    CIPHERTEXT,
    EventMessage,
    Received,
    Wanted,
    bare_id,
    is_from_me,
    message_id,
    seconds_of,
)

_SOCKET = "/socket.io/?EIO=4&transport=polling"
# Engine.IO packets without a body; each is also valid JSON.
_JOIN, _PONG = 40, 3


class SocketEvents:
    """Events of all sessions on the server's socket.io; a response has several packets."""

    def __init__(self, calls: Calls) -> None:
        """Connect; raise Failure."""
        self._calls = calls
        (opened, *_) = self._receive(_SOCKET)
        told = json_or_none(opened.removeprefix("0").encode())
        sid = told.get("sid") if isinstance(told, dict) else None
        if not isinstance(sid, str):
            raise Failure("no socket.io, which returns the code")
        self._path = f"{_SOCKET}&sid={quote(sid, safe='')}"
        self._calls.send("POST", self._path, _JOIN)

    def wait_for_code(self, phone: str) -> object:
        """Return the pairing code for a number; raise Failure if none arrives in time."""
        while True:
            for packet in self._receive(self._path):
                if packet == "2":
                    self._calls.send("POST", self._path, _PONG)
                elif packet.startswith("42"):
                    match json_or_none(packet[2:].encode()):
                        # The event lacks the session's name if that was closed before.
                        case ["phoneCode", {"phone": number, "data": code}] if str(number) == phone:
                            return code

    def _receive(self, path: str) -> list[str]:
        answer = self._calls.get(path)
        if not answer.is_success:
            raise Failure(f"HTTP {answer.status} of its socket.io", GatewayErrorKind.HTTP)
        return answer.raw.decode("utf-8", "replace").split("\x1e")


_STATUSES = {
    "CONNECTED": Status.CONNECTED,
    "INITIALIZING": Status.INITIALIZING,
    "QRCODE": Status.QR_REQUIRED,
    "PHONECODE": Status.QR_REQUIRED,
    "CLOSED": Status.DISCONNECTED,
}
_STATUS_SECONDS = 5.0
_CLOSE_SECONDS = 20.0
_SHORTEST_SECRET = 8  # characters
# On some versions a status call right after start-session unpairs the session: issue 1170 of
# wppconnect-team/wppconnect-server.
_SETTLE_SECONDS = 10.0
# Unlike the documents: only with an empty body does the server read the session's webhook and other
# settings from its token (tokenStore/fileTokenStory.ts). Any other body replaces them, and without
# a webhook in it the messages would not be posted.
_START: dict[str, object] = {}
# After a minute, the server closes the page of an unpaired session.
_PAIRING_SECONDS = 60.0
_PAGE = 200  # messages
_NEWEST = 20  # messages


class WppconnectGateway(Gateway):
    """HTTP API of WPPConnect Server; the secret is its secret key."""

    usual_port: ClassVar = 21465
    calls_made: ClassVar = CallsMade(
        down="start-session",
        zombie="close-session, start-session",
        stuck="close-session, start-session",
        proof="check-number-status of its own number",
        code="start-session with the number, where WPP_GATEWAY_WEBHOOK is set",
        messages="list-chats, get-messages of each chat",
        lost="logout-session, or close-session and clear-session-data; then close-session, "
        "start-session",
    )
    hints: ClassVar = HINTS | {
        GatewayErrorKind.UNAUTHORIZED: N_(
            "the secret is wrong: it is secretKey of the server's config."
        ),
    }
    keeps_channel: ClassVar = True
    starting_hint: ClassVar = (
        'its start failed? Where the server\'s log says "The browser is already running", only '
        "ending that Chromium, or restarting the server, helps"
    )
    can_query: ClassVar = True
    can_take_back: ClassVar = True
    asks_number: ClassVar = True
    lists_messages: ClassVar = True
    state_events: ClassVar = re.compile(
        rb'"event"\s*:\s*"(?:status-find|closesession|logoutsession)"'
    )

    def __init__(self, base_url: str, secret: str, *, webhook: str = "", **options: Any) -> None:
        """Each start sets ``webhook``; if it is empty, a start keeps the stored one."""
        super().__init__(base_url, secret, **options)
        self._webhook = webhook
        self.can_pair = bool(webhook)
        self._key = quote(secret, safe="")
        self._tokens: dict[str, str] = {}
        """By quoted session."""
        self._started_at: dict[str, float] = {}
        """By session, monotonic."""

    def list_channels(self) -> ChannelList:
        """Return the sessions, each with a call for its status; if that fails, it is UNKNOWN."""
        with self._operation(Operation.LIST) as calls:
            answer = calls.get(f"/api/{self._key}/show-all-sessions")
            names = _with_right_key(answer).json_object().get("response")
            if not isinstance(names, list):
                raise Failure("JSON without a list of sessions")

            def ask(session: str) -> Status:
                if self._is_settling(session):
                    return Status.INITIALIZING
                return _status(self._state(calls.within(_STATUS_SECONDS), session))

            found = (Channel(one, Status.UNKNOWN) if is_usable_id(one) else None for one in names)
            return with_statuses(ChannelList.of(found), ask)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Start a closed session; close and start a zombie, or one stuck starting.

        Both keep the pairing. check-connection-session is useless: it always returns true.
        """
        with self._operation(Operation.RECONNECT) as calls:
            if self._is_settling(channel.id):
                return QrAnswer(QrKind.INITIALIZING)
            state = self._state(calls, channel.id)
            status = _status(state)
            stuck = stuck and status is Status.INITIALIZING
            if stuck or (silent and status is Status.CONNECTED):
                self._restart(calls, channel.id)
                return QrAnswer(QrKind.INITIALIZING)
            answer = _qr(state)
            if answer.kind is not QrKind.NOT_STARTED:
                return answer
            self._start_session(calls, channel.id)
            return QrAnswer(QrKind.INITIALIZING)

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the current QR code; within the grace period after a start, make no call."""
        with self._operation(Operation.QR) as calls:
            if self._is_settling(channel_id):
                return QrAnswer(QrKind.INITIALIZING)
            return _qr(self._state(calls, channel_id))

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:
        """Start the session with the number; close one that shows a code first.

        The server sends the code on its socket.io, and in a response only for the first start of a
        session since its own start. Meanwhile there is no QR code.
        """
        with self._operation(Operation.PAIRING_CODE, hide=(phone,)) as calls:
            if not self.can_pair:
                raise Failure("WPP_GATEWAY_WEBHOOK is not set")
            state = self._state(calls, channel_id)
            status = _status(state)
            if status not in {Status.QR_REQUIRED, Status.DISCONNECTED}:
                raise Failure(f"the session is {state.get('status')}")
            events = SocketEvents(calls)
            if status is Status.QR_REQUIRED:
                self._close(calls, channel_id)
            self._start_session(calls, channel_id, {"phone": phone})
            return read_pairing_code(events.wait_for_code(phone), _PAIRING_SECONDS)

    def delete(self, channel_id: str) -> None:
        """Delete the session's data. THE PAIRING IS LOST; the session stays in the list.

        A session that cannot be closed keeps its pairing, since the server would not restart it.
        """
        with self._operation(Operation.DELETE) as calls:
            try:
                self._send(calls, "POST", channel_id, "logout-session", {}).json_object()
            except Failure as failure:
                if failure.reason is not GatewayErrorKind.HTTP:
                    raise
                # Only an open session can log out; of any other, the files remain.
                self._close(calls, channel_id)
                if _status(self._state(calls, channel_id)) is not Status.DISCONNECTED:
                    raise Failure(
                        "the session cannot be closed, so that no start would follow: "
                        "its pairing is kept"
                    ) from None
                path = f"/api/{in_path(channel_id)}/{self._key}/clear-session-data"
                calls.post(path).json_value()

    def create(self, channel_id: str) -> None:
        """Start the session as a new one, which a person must pair."""
        with self._operation(Operation.CREATE) as calls:
            self._restart(calls, channel_id)

    def query(self, channel: Channel) -> None:
        """Query WhatsApp for the channel's own number."""
        with self._operation(Operation.QUERY) as calls:
            number = self._number(calls, channel.id)
            path = f"check-number-status/{number}"
            answer = self._send(calls, "GET", channel.id, path)
            _expect_status(answer, hide=number)

    def own_number(self, channel: Channel) -> str:
        """Request the number each time, since another phone may have been paired."""
        with self._operation(Operation.NUMBER) as calls:
            return self._number(calls, channel.id)

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; return the message's id, None if unknown."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            body = {"phone": number, "message": text, "isGroup": False}
            sent = self._send(calls, "POST", channel.id, "send-message", body)
            response = _expect_status(sent).get("response")
            first = response[0] if isinstance(response, list) and response else response
            return message_id(first.get("id")) if isinstance(first, dict) else None

    def take_back(self, channel: Channel, number: str, message_id: str) -> None:
        """Delete one of our messages for both sides."""
        with self._operation(Operation.TAKE_BACK, hide=(number,)) as calls:
            body = {"phone": number, "messageId": message_id}
            _expect_status(self._send(calls, "POST", channel.id, "delete-message", body))

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterator[EventMessage]:
        """Read `{"event", "session", ...}`, with the message's fields at the same level."""
        name = event.get("event")
        if name in ("onmessage", "onselfmessage"):
            yield EventMessage(
                event.get("session"),
                event.get("timestamp", event.get("t")),
                event.get("id"),
                is_from_me(event, default=name == "onselfmessage"),
                ack=event.get("ack"),
                readable=event.get("type") != CIPHERTEXT,
            )

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        """List the messages in the session's page, of each chat with a message in the period.

        The server itself stores none, so a session that is down has no list.
        """
        with self._operation(Operation.MESSAGES) as calls:
            answer = self._send(calls, "POST", channel.id, "list-chats", {})
            if answer.status == 404:
                return Received(cannot_know="the session is down, and only its page has messages")
            chats = [chat for chat in answer.json_list() if isinstance(chat, dict)]
        if not chats:
            return Received(cannot_know="the session's page has loaded no chat yet")
        recent = []
        for chat in chats:
            at, name = seconds_of(chat.get("t")), message_id(chat.get("id"))
            is_recent = at is None or at >= wanted.since
            if isinstance(name, str) and is_of_a_chat(name) and is_recent:
                recent.append((at or wanted.until, name))
        recent.sort(reverse=True)
        size = _NEWEST if wanted.newest else _PAGE
        pages = (self._messages(channel.id, chat, size) for _, chat in recent)
        about = {"event": "onmessage", "session": channel.id}
        return read_chats(pages, wanted, lambda _, row: about | row)

    def _messages(self, channel_id: str, chat: str, size: int) -> Iterator[list[Entry]]:
        query = {"count": str(size)}
        while True:
            with self._operation(Operation.MESSAGES, hide=[chat.partition("@")[0]]) as calls:
                path = f"get-messages/{in_path(chat)}?{urlencode(query)}"
                answer = self._send(calls, "GET", channel_id, path)
                parsed = answer.parsed
                if answer.status == 401 and isinstance(parsed, dict) and "response" in parsed:
                    raise ChatError("the session does not open one of its chats")
                rows = _expect_status(answer).get("response")
            found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            if not found:
                return
            yield [_entry(row, chat) for row in found]
            oldest = message_id(min(found, key=_at).get("id"))
            if len(found) < size or not isinstance(oldest, str):
                return
            query |= {"direction": "before", "id": oldest}

    def _secrets(self) -> list[str]:
        # The server quotes the URL with the session's name in it; a short part is not secret.
        parts = self._webhook.split("{session}")
        return [*super()._secrets(), *(part for part in parts if len(part) >= _SHORTEST_SECRET)]

    def _send(
        self,
        calls: Calls,
        method: str,
        channel_id: str,
        path: str,
        body: Mapping[str, object] | None = None,
    ) -> GatewayResponse:
        """Return the response to a call about a session, with a new token after a 401."""
        session = in_path(channel_id)
        token = self._tokens.get(session)
        if token is not None:
            answer = calls.send(method, f"/api/{session}/{path}", body, token=token)
            if answer.status != 401:
                return answer
        made = calls.post(f"/api/{session}/{self._key}/generate-token")
        token = _with_right_key(made).json_object().get("token")
        if not isinstance(token, str):
            raise Failure("JSON without a token")
        self._tokens[session] = token
        return calls.send(method, f"/api/{session}/{path}", body, token=token)

    def _number(self, calls: Calls, channel_id: str) -> str:
        told = self._send(calls, "GET", channel_id, "get-phone-number").json_object()
        number = number_of(message_id(told.get("response")))
        if number is None:
            raise Failure("the session does not report its own number")
        return number

    def _state(self, calls: Calls, channel_id: str) -> dict[str, Any]:
        return self._send(calls, "GET", channel_id, "status-session").json_object()

    def _start_session(
        self, calls: Calls, channel_id: str, more: Mapping[str, object] = _START
    ) -> None:
        webhook = self._webhook.replace("{session}", in_path(channel_id))
        # This also removes the stored number of an earlier pairing code, with which the server
        # would no longer show a QR code.
        body = {**more, "webhook": webhook} if webhook else _START
        self._send(calls, "POST", channel_id, "start-session", body).json_object()
        self._started_at[channel_id] = time.monotonic()

    def _is_settling(self, channel_id: str) -> bool:
        """Whether a session was started so recently that calls about it must wait."""
        started_at = self._started_at.get(channel_id, -math.inf)
        return time.monotonic() - started_at < _SETTLE_SECONDS

    def _restart(self, calls: Calls, channel_id: str) -> None:
        self._close(calls, channel_id)
        self._start_session(calls, channel_id)

    def _close(self, calls: Calls, channel_id: str) -> None:
        """Close a session; ignore a time-out (dead page) and HTTP 500 (no page).

        Without a page the session is closed nonetheless; a Chromium left by its start keeps
        running.
        """
        calls = calls.within(_CLOSE_SECONDS)
        try:
            self._send(calls, "POST", channel_id, "close-session", {}).json_object()
        except Failure as failure:
            if failure.reason not in {GatewayErrorKind.TIMEOUT, GatewayErrorKind.HTTP}:
                raise


def _with_right_key(answer: GatewayResponse) -> GatewayResponse:
    """Return the response to a call with the secret key; raise Failure if the key is wrong."""
    if answer.status == 400:
        raise Failure("HTTP 400, wrong secret key?", GatewayErrorKind.UNAUTHORIZED)
    return answer


def _at(row: dict[str, Any]) -> float:
    return seconds_of(row.get("timestamp", row.get("t"))) or 0.0


def _entry(row: dict[str, Any], chat: str) -> Entry:
    kind = row.get("type")
    counts = (
        row.get("fromMe") is False
        and row.get("isNotification") is not True
        and kind not in NO_MESSAGE_TYPES
    )
    id_ = bare_id(message_id(row.get("id"))) if counts else None
    return Entry(_at(row) or None, id_, kind, chat, row)


def _status(state: dict[str, Any]) -> Status:
    return status_of(state.get("status"), _STATUSES)


def _qr(state: dict[str, Any]) -> QrAnswer:
    kind, image = QR_KINDS.get(_status(state), QrKind.NOT_STARTED), state.get("qrcode")
    shown = isinstance(image, str) and image.startswith("data:image/")
    return QrAnswer(kind, image if shown and kind is QrKind.QR else None)


def _expect_status(answer: GatewayResponse, *, hide: str = "") -> dict[str, Any]:
    try:
        body = answer.json_object()
    except Failure as failure:
        detail = failure.detail.replace(hide, "[hidden]") if hide else failure.detail
        raise Failure(detail, failure.reason) from None
    if str(body.get("status")).lower() != "success":
        raise Failure("an answer without status success")
    return body
