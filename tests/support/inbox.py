"""Fake mail server, Telegram, Slack and ntfy, which keep their messages."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.http_servers import HttpServer
from tests.support.ports import free

# Telegram's answer to an accepted message, reduced to the fields that Alertmanager reads.
_TELEGRAM_ANSWER = {
    "ok": True,
    "result": {"message_id": 1, "date": 0, "chat": {"id": -1000000000000, "type": "group"}},
}


class Inbox(HttpServer):
    """Messages in their order of arrival; Alertmanager delivers in parallel."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.telegrams: list[dict[str, Any]] = []
        self.slacks: list[dict[str, Any]] = []
        self.ntfys: list[dict[str, Any]] = []
        self.smtp = free()
        self._mail_server = Controller(self, hostname=self.smtp.host, port=self.smtp.port)
        super().__init__()
        self.http = f"http://{self.at}"

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of mails, Telegram messages and Slack messages."""
        return len(self.mails), len(self.telegrams), len(self.slacks)

    def __enter__(self) -> Self:
        self._mail_server.start()
        return self

    def close(self) -> None:
        self._mail_server.stop()
        super().close()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def answer(
        self, asked: tuple[str, str], body: bytes, _headers: object
    ) -> tuple[int, str, bytes]:
        _, path = asked
        if path.endswith("/sendMessage"):
            self.telegrams.append(json.loads(body))
        elif path == "/slack":
            self.slacks.append(json.loads(body))
        elif path.startswith("/topic"):
            self.ntfys.append(json.loads(body))
        return 200, "application/json", json.dumps(_TELEGRAM_ANSWER).encode()
