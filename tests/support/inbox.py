"""Fake mail server, Telegram and Slack, which keep their messages."""

from __future__ import annotations

import json
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from demo.configuration import free_or_other
from zapwatch.config import Listen

# Telegram's answer to an accepted message, reduced to the fields that Alertmanager reads.
_TELEGRAM_ANSWER = {
    "ok": True,
    "result": {"message_id": 1, "date": 0, "chat": {"id": -1000000000000, "type": "group"}},
}


class Inbox:
    """Messages in their order of arrival; Alertmanager delivers in parallel."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.telegrams: list[dict[str, Any]] = []
        self.slacks: list[dict[str, Any]] = []
        self.smtp = free_or_other(Listen("127.0.0.1", 0))
        self._mail_server = Controller(
            _MailHandler(self.mails), hostname=self.smtp.host, port=self.smtp.port
        )
        handler = type("Handler", (_ChatHandler,), {"inbox": self})
        self._chat_server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http = f"http://127.0.0.1:{self._chat_server.server_port}"
        self._thread = threading.Thread(target=self._chat_server.serve_forever, args=(0.02,))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of mails, Telegram messages and Slack messages."""
        return len(self.mails), len(self.telegrams), len(self.slacks)

    def __enter__(self) -> Self:
        self._mail_server.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._mail_server.stop()
        self._chat_server.shutdown()
        self._chat_server.server_close()
        self._thread.join()


class _MailHandler:
    def __init__(self, mails: list[EmailMessage]) -> None:
        self._mails = mails

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self._mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


class _ChatHandler(BaseHTTPRequestHandler):
    inbox: Inbox

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/sendMessage"):
            self.inbox.telegrams.append(body)
        elif self.path == "/slack":
            self.inbox.slacks.append(body)
        answer = json.dumps(_TELEGRAM_ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""
