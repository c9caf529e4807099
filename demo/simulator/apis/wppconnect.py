"""WPPConnect Server's HTTP API, modelled on its source."""

import json
import secrets
import threading
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any

from flask import Response, request

from demo.simulator.apis.calls import (
    WORDS,
    Event,
    Route,
    SimulatedApi,
    body_of_request,
    is_secret,
    png,
    texts_of_request,
)
from demo.simulator.channel import SimulatedChannel
from demo.simulator.knobs import AS_IT_IS
from demo.simulator.messages import SimulatedMessage
from demo.simulator.responses import HttpAnswer

_STATUSES = {
    "connected": "CONNECTED",
    "initializing": "INITIALIZING",
    "qr_required": "QRCODE",
    "disconnected": "CLOSED",
}
_WRONG_TOKEN = HttpAnswer(401, {"error": "Check that the Session and Token are correct"})
_NO_TOKEN = HttpAnswer(401, {"message": "Token is not present. Check your header and try again"})
_WRONG_LIST_KEY = HttpAnswer(400, {"response": False, "message": "The token is incorrect"})
_WRONG_KEY = HttpAnswer(400, {"response": False, "message": "The SECRET_KEY is incorrect"})
_PING_SECONDS = 0.5
_NO_PAGE = HttpAnswer(404, None)
_CLOSED = HttpAnswer(200, {"status": "CLOSED", "qrcode": None})
_NOT_CLOSED = {"status": False, "message": "Error closing session", "error": {"level": "error"}}
_UNKNOWN = HttpAnswer(500, _NOT_CLOSED | {"session": ""})
_DONE = HttpAnswer(200, {"status": True, "message": "Session successfully closed"})


def _not_active() -> HttpAnswer:
    """Refuse a call about a session that is not open; a sent body is repeated in part."""
    body = {"response": None, "status": "Disconnected"}
    body["message"] = "A sessão do WhatsApp não está ativa."
    if request.method == "POST" and "logout-session" not in request.path:
        body["session"] = ""
    return HttpAnswer(404, body)


def _packets(text: str) -> Response:
    return Response(text, content_type="text/plain; charset=UTF-8")


def _session(channel: SimulatedChannel) -> dict[str, str]:
    """Return the field that the server adds to answers about a session in its memory."""
    return {"session": channel.id if channel.begun else ""}


class WppconnectApi(SimulatedApi):
    """Calls about sessions, numbers and texts; administrative ones contain the secret key."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()
        # All generated tokens: a token is a salted hash, and a new one does not revoke older ones.
        self._tokens: dict[str, list[str]] = {}
        self._sockets: dict[str, SimpleQueue[str]] = {}

    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""
        one = "/api/<encoded:channel>"
        admin = f"{one}/<encoded:key>"
        return (
            ("GET", "/api/<encoded:key>/show-all-sessions", self._list),
            ("POST", f"{admin}/generate-token", self._token),
            ("POST", f"{admin}/clear-session-data", self._clear),
            ("GET", f"{one}/status-session", self.on("status", self._status, _CLOSED)),
            ("POST", f"{one}/start-session", self._start),
            ("POST", f"{one}/close-session", self.on("close_session", self._close, _UNKNOWN)),
            ("POST", f"{one}/logout-session", self.on("delete", self._logout)),
            ("GET", f"{one}/get-phone-number", self.on("number", self._number)),
            ("GET", f"{one}/check-number-status/<number>", self.on("query", self._query)),
            ("GET", f"{one}/check-connection-session", self.on("cached", self._page)),
            ("POST", f"{one}/send-message", self._send),
            ("POST", f"{one}/delete-message", self._take_back),
            ("GET", "/socket.io/", self._socket),
            ("POST", "/socket.io/", self._socket),
            ("POST", f"{one}/list-chats", self.on("chats", self._chats)),
            ("GET", f"{one}/get-messages/<encoded:phone>", self.on("messages", self._messages)),
            ("GET", f"{one}/unread-messages", self.on("careless", self._unread)),
        )

    def is_right(self) -> bool:
        """Whether the token is one of the session's."""
        given = request.headers.get("Authorization", "")
        with self._lock:
            made = list(self._tokens.get((request.view_args or {})["channel"], ()))
        return any(is_secret(given, f"Bearer {token}") for token in made)

    @staticmethod
    def event(message: SimulatedMessage) -> Event:
        """Return the event of a message."""
        name = "onselfmessage" if message.outgoing else "onmessage"
        return {"event": name, "session": message.channel} | _row(message)

    @staticmethod
    def other(channel: str) -> Event:
        """Return the event of a presence."""
        return {"event": "onpresencechanged", "session": channel}

    def _list(self, key: str) -> Response:
        def work() -> HttpAnswer:
            return HttpAnswer(200, {"response": self.gateway.each(lambda c: c.id)})

        return self._answer_admin("list", None, work, key, _WRONG_LIST_KEY)

    def _token(self, channel: str, key: str) -> Response:
        def work() -> HttpAnswer:
            token = f"$2b$10${secrets.token_urlsafe(40)}"
            with self._lock:
                self._tokens.setdefault(channel, []).append(token)
            full = f"{channel}:{token}"
            body = {"status": "success", "session": channel, "token": token, "full": full}
            return HttpAnswer(201, body)

        return self._answer_admin("token", channel, work, key)

    def _clear(self, channel: str, key: str) -> Response:
        """Delete the session's files. It stays listed, and its status in memory does not change."""

        def clear(one: SimulatedChannel, _: float) -> HttpAnswer:
            one.knobs.session = "unpaired"
            one.browser_left = False
            return done

        def work() -> HttpAnswer:
            return self.gateway.at(channel, clear, done)

        done = HttpAnswer(200, {"success": True})
        return self._answer_admin("delete", channel, work, key)

    def _status(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        return HttpAnswer(200, self._state(one))

    def _start(self, channel: str) -> Response:
        config = body_of_request()

        def work() -> HttpAnswer:
            self.gateway.create(channel)  # an unknown name becomes a session

            def start(one: SimulatedChannel, now: float) -> HttpAnswer:
                before = self._state(one)
                if one.status == "disconnected" and config:
                    one.webhook = str(config.get("webhook") or "")
                    one.phone = str(config.get("phone") or "")
                was = one.status
                one.begin(now)
                if one.phone and (was, one.status) == ("disconnected", "qr_required"):
                    self._issue_code(one, now)
                return HttpAnswer(200, before | _session(one))

            return self.gateway.at(channel, start, _CLOSED)

        return self.answer("start_session", channel, work)

    def _issue_code(self, channel: SimulatedChannel, now: float) -> None:
        """Issue a code, and send it to all sockets, without the session's name as after a close."""
        if channel.knobs.pairing == "refused":
            return
        code = self.gateway.next_pairing_code()
        channel.issue_code(channel.phone, code, now)
        event = json.dumps(["phoneCode", {"data": code, "phone": channel.phone}])
        with self._lock:
            for queue in self._sockets.values():
                queue.put(f"42{event}")

    def _socket(self) -> Response:
        """Simulate socket.io's long polling, which needs no token."""
        sid = request.args.get("sid")
        with self._lock:
            if sid is None:
                sid = secrets.token_urlsafe(9)
                self._sockets[sid] = SimpleQueue()
                return _packets(f"0{json.dumps({'sid': sid, 'upgrades': ['websocket']})}")
            queue = self._sockets.get(sid)
        if queue is None:
            return Response('{"code":1,"message":"Session ID unknown"}', 400)
        if request.method == "POST":
            if request.get_data() == b"40":
                queue.put(f"40{json.dumps({'sid': sid})}")
            return _packets("ok")
        try:
            return _packets(queue.get(timeout=_PING_SECONDS))
        except Empty:
            return _packets("2")

    def _close(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        has_page = one.begun and not one.start_failed
        error = HttpAnswer(500, _NOT_CLOSED | _session(one))
        one.close()
        return _DONE if has_page else error

    def _logout(self, one: SimulatedChannel, now: float) -> HttpAnswer:
        if one.status != "connected":
            return _not_active()
        one.unpair(now)
        return _DONE

    def _number(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "connected":
            return _not_active()
        return HttpAnswer(200, {"status": "success", "response": f"{one.number}@c.us"})

    def _query(self, one: SimulatedChannel, _: float, *, number: str) -> HttpAnswer:
        if one.status != "connected":
            return _not_active()
        if not one.sends:
            words = "Error on check number status"
            return HttpAnswer(500, {"status": "error", "message": words, "error": {}})
        found = {"id": {"_serialized": f"{number}@c.us"}, "numberExists": True}
        return HttpAnswer(200, {"status": "success", "response": found})

    def _page(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        """Answer whether the browser page responds, which is no evidence of WhatsApp's state."""
        up = one.status == "connected"
        return HttpAnswer(200, {"status": up, "message": "Connected" if up else "Disconnected"})

    def _send(self, channel: str) -> Response:
        number, text = texts_of_request("phone", "message")

        def tell(sent: SimulatedMessage) -> HttpAnswer:
            message = {"id": f"true_{number}@c.us_{sent.id}", "fromMe": True, "body": text}
            return HttpAnswer(201, {"status": "success", "response": [message], "mapper": "return"})

        return self.send(channel, number, text, tell, lambda *_: _not_active())

    def _take_back(self, channel: str) -> Response:
        number, message = texts_of_request("phone", "messageId")

        done = HttpAnswer(200, {"status": "success", "response": {"message": "Message deleted"}})
        unknown = HttpAnswer(500, {"status": "error", "message": "Error on delete message"})
        return self.take_back(channel, f"{number}@c.us", message, done, unknown)

    def _chats(self, one: SimulatedChannel, _: float) -> HttpAnswer:
        if one.status != "connected":
            return _not_active()
        last = {message.chat: message for message in self.gateway.messages_of(one)}
        chats = [
            {"id": {"_serialized": chat}, "t": int(message.at), "unreadCount": 0}
            for chat, message in last.items()
        ]
        return HttpAnswer(200, chats)

    def _messages(self, one: SimulatedChannel, _: float, *, phone: str) -> HttpAnswer:
        """List one chat's messages, the oldest first, without a filter by time or sender."""
        asked = request.args
        count = int(asked.get("count", 20))
        if one.status != "connected":
            return _not_active()
        rows = [m for m in self.gateway.messages_of(one) if m.chat == phone]
        if not rows:
            return HttpAnswer(401, {"status": "error", "response": "Error on open list"})
        if asked.get("direction") == "before":
            ids = [m.serialized for m in rows]
            rows = rows[: ids.index(asked["id"])]
        rows = rows[-count:] if count > 0 else rows
        found = [_row(m) for m in rows]
        return HttpAnswer(200, {"status": "success", "response": found})

    def _unread(self, *_: Any) -> HttpAnswer:
        """Mark all messages as read, which a read-only client must not do."""
        return HttpAnswer(200, {"status": "success", "response": []})

    def _unknown(self, **_: str) -> Response:
        """Answer with a page, whatever the token."""
        self.answer("unknown", None, lambda: _NO_PAGE, right=True)
        page = f"<!DOCTYPE html>\n<pre>Cannot {request.method} {request.path}</pre>\n"
        return Response(page, _NO_PAGE.status, content_type="text/html; charset=utf-8")

    def _state(self, channel: SimulatedChannel) -> dict[str, Any]:
        shown = channel.knobs.status_text
        if channel.status == "disconnected" and shown == AS_IT_IS:
            return dict(_CLOSED.body)
        entry: dict[str, Any] = {"qrcode": None, "version": "2.10.4"}
        entry |= channel.knobs.shown("status", _STATUSES[channel.status])
        if channel.status == "qr_required":
            if channel.phone:
                return entry | ({"status": "PHONECODE"} if shown == AS_IT_IS else {})
            number = self.gateway.next_qr()
            entry |= {"qrcode": f"data:image/png;base64,{png(number)}", "urlcode": f"2@{number}"}
        return entry

    def no_such(self, channel: str) -> HttpAnswer:  # noqa: ARG002
        """Answer as about a session that is not open."""
        return _not_active()

    def refusal(self) -> HttpAnswer:
        """Return the answer to a wrong token, or to none."""
        return _WRONG_TOKEN if request.headers.get("Authorization") else _NO_TOKEN

    def _answer_admin(
        self,
        operation: str,
        channel: str | None,
        work: Any,
        key: str,
        refusal: HttpAnswer = _WRONG_KEY,
    ) -> Response:
        right = is_secret(key, self.secret)
        return self.answer(operation, channel, work, right=right, refusal=refusal)


def _row(message: SimulatedMessage) -> Event:
    """Return a message as events and lists have it."""
    return {
        "id": message.serialized,
        "body": message.words or WORDS,
        "type": message.kind,
        "t": int(message.at),
        "timestamp": int(message.at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "fromMe": message.outgoing,
    }
