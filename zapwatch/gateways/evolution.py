"""Adapter of Evolution API 2.3, from its source and responses of a real 2.3.6.

The list of 1.x has another format. docs/gateways/README.md shows what was tested, and how.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

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
    PairingCode,
    QrAnswer,
    QrKind,
    WebhookConfig,
    error_message,
)
from zapwatch.gateways.helpers import (
    NO_MESSAGE_KINDS,
    Entry,
    in_path,
    is_of_a_chat,
    number_of,
    read_chats,
    read_pairing_code,
    status_of,
    with_statuses,
)
from zapwatch.messages.message import (
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
    "open": Status.CONNECTED,
    "connecting": Status.INITIALIZING,
    "close": Status.DISCONNECTED,
}
_BAILEYS = "WHATSAPP-BAILEYS"
_STATUS_SECONDS = 5.0
# While WhatsApp is unreachable, an instance alternates between close and connecting several times a
# second; one that has given up, or never began, constantly reports close.
_STEADY_LOOKS = 5
_STEADY_PAUSE = 0.4  # seconds
# A client created by connect keeps connecting, even while the database has no trace of it.
_CONNECT_AGAIN_SECONDS = 3600.0
# HTTP statuses of a connect without effect: refused by Evolution or a proxy, or no process.
_NOT_CONNECTED = (401, 403, 404, 429, 502, 503)
# The next QR code replaces the pairing code.
_PAIRING_SECONDS = 45.0
_PRIVACY = ("readreceipts", "profile", "status", "online", "last", "groupadd")
_PAGE = 500  # messages
# Fields of a record that events do not have.
_DATABASE_ONLY = {"id", "MessageUpdate", "sessionId"}
_NEWEST = 50  # messages, own ones included


class EvolutionGateway(Gateway):
    """HTTP API of Evolution."""

    usual_port: ClassVar = 8080
    calls_made: ClassVar = CallsMade(
        down="connect, if Evolution has given it up",
        zombie="restart",
        stuck="restart, unless a QR code waits",
        proof="fetchPrivacySettings",
        code="logout, connect with the number",
        messages="findMessages",
        lost="logout, connect",
    )
    hints: ClassVar = HINTS | {
        GatewayErrorKind.UNAUTHORIZED: N_(
            "the API key is wrong: it is AUTHENTICATION_API_KEY, the global one."
        ),
        GatewayErrorKind.HTML: N_(
            "a web page, not the API. Is /manager in the address, or only the proxy up?"
        ),
        GatewayErrorKind.INVALID: N_("it is older than version 2, or not Evolution."),
    }
    credential_header: ClassVar = "apikey"
    keeps_channel: ClassVar = True
    starting_hint: ClassVar = (
        "Evolution itself connects it: can its machine reach WhatsApp, or does a QR code wait?"
    )
    lists_qr: ClassVar = False
    can_query: ClassVar = True
    can_take_back: ClassVar = True
    can_pair = True
    lists_activity: ClassVar = True
    lists_messages: ClassVar = True
    # Ten attempts: 20 minutes of pauses, and the time-out of each attempt.
    delivery_seconds: ClassVar = 1500.0
    state_events: ClassVar = re.compile(
        rb'"event"\s*:\s*"(?:connection\.update|(?:status|logout|remove)\.instance)"'
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # For each connect by name: the row's time of change, and the time of the call.
        self._connected: dict[str, tuple[object, float]] = {}

    def list_channels(self) -> ChannelList:
        """Return the instances, each with a call for its status; if that fails, it is UNKNOWN.

        The database's status is unreliable: it is ``open`` for instances that the process has lost.
        """
        with self._operation(Operation.LIST) as calls:
            entries = _checked(calls.get("/instance/fetchInstances")).json_list()

            def ask(name: str) -> Status:
                return status_of(_state(calls.within(_STATUS_SECONDS), name), _STATUSES)

            return with_statuses(ChannelList.of(map(_parse_instance, entries)), ask)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Connect an instance that has given up; restart a zombie, and one stuck connecting.

        Evolution itself reconnects all others. A ``connect`` meanwhile creates another client with
        the same credentials, which never ends.
        """
        with self._operation(Operation.RECONNECT) as calls:
            if not channel.repairable:
                raise Failure("not a session of WhatsApp Web: nothing to reconnect")
            state = _loaded_state(calls, channel.id)
            answer = QrAnswer(QrKind.INITIALIZING)
            if state == "close":
                return self._connect(calls, channel.id) or answer
            if state == "connecting":
                answer = _code(calls, channel.id)
                stuck = stuck and answer.kind is QrKind.INITIALIZING
                if not (stuck and _is_steady(calls, channel.id, state)):
                    return answer
            elif not silent:
                return QrAnswer(QrKind.ACCEPTED)
            _checked(calls.post(f"/instance/restart/{in_path(channel.id)}")).json_object()
            return answer

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the current QR code, without connecting."""
        with self._operation(Operation.QR) as calls:
            state = _loaded_state(calls, channel_id)
            if state == "open":
                return QrAnswer(QrKind.ACCEPTED)
            if state == "connecting":
                return _code(calls, channel_id)
            given_up = self._has_given_up(calls, channel_id, _row(calls, channel_id))
            return QrAnswer(QrKind.NOT_STARTED if given_up else QrKind.INITIALIZING)

    def _start_session(self, calls: Calls, channel_id: str) -> None:
        """Connect an instance that has given up; Evolution itself connects all others."""
        if _loaded_state(calls, channel_id) == "close":
            self._connect(calls, channel_id)

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:
        """Connect a closed instance with the number; log out one that shows a QR code first.

        While an instance is connecting, Evolution ignores the number. An instance without a QR code
        may be reconnecting with a pairing, which a logout would delete.
        """
        with self._operation(Operation.PAIRING_CODE, hide=(phone,)) as calls:
            name = in_path(channel_id)
            state = _loaded_state(calls, channel_id)
            if state == "open":
                raise Failure("it is connected: there is nothing to pair")
            if state == "connecting":
                if _code(calls, channel_id).kind is not QrKind.QR:
                    raise Failure("no QR code yet: ask again then")
                _checked(calls.send("DELETE", f"/instance/logout/{name}")).json_object()
                _wait_until_closed(calls, channel_id)
            elif not self._has_given_up(calls, channel_id, _row(calls, channel_id)):
                raise Failure("it has a pairing, and Evolution reconnects it")
            changed = _row(calls, channel_id).get("updatedAt")
            body = self._create_client(calls, channel_id, changed, f"?number={in_path(phone)}")
            return read_pairing_code(body.get("pairingCode"), _PAIRING_SECONDS)

    def delete(self, channel_id: str) -> None:
        """Log the instance out. THE PAIRING IS LOST; the instance and its webhook stay.

        A closed instance rejects a logout, so it is connected first. An instance that
        Evolution is reconnecting keeps its pairing.
        """
        with self._operation(Operation.DELETE) as calls:
            state = _loaded_state(calls, channel_id)
            closed = state == "close" and self._connect(calls, channel_id) is None
            if closed or (state == "connecting" and not _is_steady(calls, channel_id, state)):
                raise Failure("Evolution is reconnecting it, so its pairing is kept")
            _checked(calls.send("DELETE", f"/instance/logout/{in_path(channel_id)}")).json_object()

    def _connect(self, calls: Calls, name: str) -> QrAnswer | None:
        """Connect a closed instance that has given up; None if Evolution reconnects it."""
        row = _row(calls, name)
        if not self._has_given_up(calls, name, row):
            return None
        return _read_code(self._create_client(calls, name, row.get("updatedAt")))

    def _create_client(
        self, calls: Calls, name: str, changed: object, query: str = ""
    ) -> dict[str, Any]:
        """Call connect, and remember it unless the answer shows that it had no effect."""
        self._connected[name] = (changed, time.monotonic())
        try:
            return _call_connect(calls, name, query)
        except Failure:
            if calls.last_status in _NOT_CONNECTED:
                self._connected.pop(name, None)
            raise

    def _has_given_up(self, calls: Calls, name: str, row: dict[str, Any]) -> bool:
        """Whether a closed instance has stopped connecting, by process and database, steadily.

        The database has ``close`` after a logout or a refusal, and if no code was ever shown. In
        the latter case the instance may still be connecting, after a connect of ours.
        """
        if row.get("connectionStatus") != "close":
            return False
        changed, since = self._connected.get(name, (None, 0.0))
        unchanged = changed is not None and changed == row.get("updatedAt")
        if unchanged and time.monotonic() - since < _CONNECT_AGAIN_SECONDS:
            return False
        return _is_steady(calls, name, "close")

    def query(self, channel: Channel) -> None:
        """Request the privacy settings from WhatsApp; Evolution does not cache them."""
        with self._operation(Operation.QUERY) as calls:
            path = f"/chat/fetchPrivacySettings/{in_path(channel.id)}"
            body = _checked(calls.get(path)).json_object()
            if not any(isinstance(body.get(name), str) for name in _PRIVACY):
                raise Failure("JSON without privacy settings")

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; return the message's id, None if unknown."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            body = {"number": number, "text": text}
            path = f"/message/sendText/{in_path(channel.id)}"
            sent = _checked(calls.post(path, body)).json_object()
            return message_id(object_at(sent, "key").get("id"))

    def take_back(self, channel: Channel, number: str, message_id: str) -> None:
        """Delete one of our messages for both sides."""
        with self._operation(Operation.TAKE_BACK, hide=(number,)) as calls:
            jid = f"{number}@s.whatsapp.net"
            body = {"id": message_id, "remoteJid": jid, "fromMe": True}
            path = f"/chat/deleteMessageForEveryone/{in_path(channel.id)}"
            _checked(calls.send("DELETE", path, body)).json_object()

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        """List the messages in Evolution's database, which stores them before it posts them.

        The list is empty if no message has arrived, and also if storing is off.
        """
        pages = self._messages(channel.id, wanted)
        received = read_chats([pages], wanted, lambda _, row: self._event(channel, row))
        is_empty = not (received.count or received.cannot_know)
        if is_empty and self._page(channel.id, {}, 1, 1)["total"] == 0:
            why = (
                "Evolution has no message of this instance: DATABASE_SAVE_DATA_NEW_MESSAGE is off?"
            )
            return Received(cannot_know=why)
        return received

    def _event(self, channel: Channel, record: dict[str, Any]) -> dict[str, Any]:
        """Convert a record to the event that Evolution posts for it.

        Without the instance's key, and without fields that only the database has.
        """
        data = {name: value for name, value in record.items() if name not in _DATABASE_ONLY}
        key = dict(object_at(record, "key"))
        if str(key.get("remoteJid")).endswith("@lid") and key.get("remoteJidAlt"):
            # As in 2.3.7, for the webhook only.
            key["remoteJid"] = key["remoteJidAlt"]
        return {
            "event": "messages.upsert",
            "instance": channel.id,
            "data": data | {"key": key},
            "date_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "sender": f"{channel.number}@s.whatsapp.net" if channel.number else None,
            "server_url": self._base_url,
        }

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterator[EventMessage]:
        """Read `{"event", "instance", "data": {"key": {...}, "messageTimestamp": s}}`.

        ``data`` may be a list of messages.
        """
        name = event.get("event")
        if name not in ("messages.upsert", "send.message"):
            return
        sent = name == "send.message"
        data = event.get("data")
        several = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        for one in several or [data if isinstance(data, dict) else {}]:
            key, at, ack = object_at(one, "key"), one.get("messageTimestamp"), one.get("status")
            yield EventMessage(
                event.get("instance"),
                # A 64-bit number may be split into two halves.
                at.get("low") if isinstance(at, dict) else at,
                key.get("id"),
                is_from_me(key, default=sent),
                heard=not sent,
                # Baileys' numbers are one higher than the others'.
                ack=ack - 1 if isinstance(ack, int) and not isinstance(ack, bool) else ack,
                readable=not is_stub(one),
                entry=one if several else None,
            )

    def webhook(self, channel: Channel) -> WebhookConfig:
        """Return the instance's own webhook; if it is missing or off, only a global one posts."""
        with self._operation(Operation.WEBHOOK) as calls:
            answer = calls.get(f"/webhook/find/{in_path(channel.id)}")
            if answer.is_success and answer.raw.strip() == b"null":
                return WebhookConfig()
            row = _checked(answer).json_object()
            url, events = row.get("url"), row.get("events")
            return WebhookConfig(
                (url,) if isinstance(url, str) and url.startswith("http") else (),
                row.get("enabled") is not False,
                isinstance(events, list) and "MESSAGES_UPSERT" in events,
            )

    def _messages(self, name: str, wanted: Wanted) -> Iterator[list[Entry]]:
        size = _NEWEST if wanted.newest else _PAGE
        # Evolution ignores a single bound and fromMe=false, and reads numbers as milliseconds.
        bounds = {
            "gte": datetime.fromtimestamp(wanted.since, UTC).isoformat(timespec="milliseconds"),
            "lte": datetime.fromtimestamp(wanted.until, UTC).isoformat(timespec="milliseconds"),
        }
        number = last = 1
        while number <= last:
            page = self._page(name, {"messageTimestamp": bounds}, number, size)
            yield [_entry(one) for one in page["records"] if isinstance(one, dict)]
            number, last = number + 1, page["pages"]

    def _page(self, name: str, where: dict[str, object], number: int, size: int) -> dict[str, Any]:
        with self._operation(Operation.MESSAGES) as calls:
            # Evolution's offset is the page size.
            body = {"where": where, "page": number, "offset": size}
            answer = _checked(calls.post(f"/chat/findMessages/{in_path(name)}", body))
            found = object_at(answer.json_object(), "messages")
            told = isinstance(found.get("records"), list), isinstance(found.get("pages"), int)
            if told != (True, True) or not isinstance(found.get("total"), int):
                raise Failure("JSON without messages, total and pages")
            return found


def _checked(answer: GatewayResponse) -> GatewayResponse:
    """Return the response; raise Failure for errors with HTTP 200 or 201, and 2.4's licence."""
    parsed = answer.parsed
    if not isinstance(parsed, dict):
        return answer
    if answer.status == 503 and parsed.get("code") == "LICENSE_REQUIRED":
        raise Failure(
            "HTTP 503, LICENSE_REQUIRED: Evolution runs, but its licence is not activated: "
            "open /manager of it",
            GatewayErrorKind.HTTP,
        )
    if answer.is_success and parsed.get("error") is True:
        message = error_message(parsed)
        if not message or message == "[object Object]":
            message = "an error that Evolution does not name: its log does"
        raise Failure(message)
    return answer


def _state(calls: Calls, name: str) -> str:
    """Return the state in the process; empty while it has not loaded the instance."""
    path = f"/instance/connectionState/{in_path(name)}"
    state = object_at(_checked(calls.get(path)).json_object(), "instance").get("state")
    return state if isinstance(state, str) else ""


def _loaded_state(calls: Calls, name: str) -> str:
    state = _state(calls, name)
    if state not in _STATUSES:
        raise Failure(
            f"Evolution has the instance in the state {state}"
            if state
            else "Evolution has not loaded this instance yet: after a start it asks WhatsApp first"
        )
    return state


def _is_steady(calls: Calls, name: str, state: str) -> bool:
    """Whether the process keeps reporting the state, for about two seconds."""
    for _ in range(_STEADY_LOOKS - 1):
        time.sleep(_STEADY_PAUSE)
        if _state(calls, name) != state:
            return False
    return True


def _wait_until_closed(calls: Calls, name: str) -> None:
    for _ in range(_STEADY_LOOKS):
        if _state(calls, name) == "close":
            return
        time.sleep(_STEADY_PAUSE)
    raise Failure("the instance does not close: ask again")


def _row(calls: Calls, name: str) -> dict[str, Any]:
    """Return the database's row of an instance, empty if there is none."""
    path = f"/instance/fetchInstances?{urlencode({'instanceName': name})}"
    for entry in _checked(calls.get(path)).json_list():
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    return {}


def _code(calls: Calls, name: str) -> QrAnswer:
    """Return the QR code of a connecting instance, if there is one.

    The database has ``connecting`` from the first code on. Before that, connect could coincide with
    a moment of ``close``, and create another client.
    """
    if _row(calls, name).get("connectionStatus") != "connecting" or not _is_steady(
        calls, name, "connecting"
    ):
        return QrAnswer(QrKind.INITIALIZING)
    return _read_code(_call_connect(calls, name))


def _call_connect(calls: Calls, name: str, query: str = "") -> dict[str, Any]:
    return _checked(calls.get(f"/instance/connect/{in_path(name)}{query}")).json_object()


def _read_code(body: dict[str, Any]) -> QrAnswer:
    """Read the response of connect: the state, or a QR code if it is ready."""
    image = body.get("base64") or object_at(body, "qrcode").get("base64")
    if isinstance(image, str) and image.startswith("data:image/"):
        return QrAnswer(QrKind.QR, image)
    is_open = object_at(body, "instance").get("state") == "open"
    return QrAnswer(QrKind.ACCEPTED if is_open else QrKind.INITIALIZING)


def _parse_instance(entry: Any) -> Channel | None:
    name = object_at(entry).get("name")
    if not is_usable_id(name):
        return None
    messages = object_at(entry, "_count").get("Message")
    counted = isinstance(messages, int) and not isinstance(messages, bool) and messages >= 0
    return Channel(
        name,
        status_of(entry.get("connectionStatus"), _STATUSES),
        number=number_of(entry.get("ownerJid")),
        # Evolution holds no session for the official Business API, so there is nothing to repair.
        repairable=entry.get("integration") in (_BAILEYS, None),
        message_count=messages if counted else None,
    )


def _entry(record: dict[str, Any]) -> Entry:
    """Parse a record of the table of messages; the record's own ``id`` is the database's."""
    key = object_at(record, "key")
    chat, kind = key.get("remoteJid"), record.get("messageType")
    counts = (
        key.get("fromMe") is False
        and is_of_a_chat(chat)
        and kind not in (*NO_MESSAGE_KINDS, "senderKeyDistributionMessage")
        and not is_stub(record)
    )
    id_ = bare_id(key.get("id")) if counts else None
    kind = kind.removesuffix("Message") if isinstance(kind, str) else None
    return Entry(seconds_of(record.get("messageTimestamp")), id_, kind, chat, record)
