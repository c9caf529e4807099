"""Puts together how the exporter learns of messages: a source for each gateway."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from exporter.messages.inbox import Inbox, TakenMessages
from exporter.messages.receiver import Count, Receiver, Sender
from exporter.snapshot import Board
from whatsapp.activity import Activity
from whatsapp.channels import Channel
from whatsapp.events.store import EventStore
from whatsapp.events.stored import StoredMessages
from whatsapp.message_log import MessageLog, MessageLogError
from whatsapp.message_sources import LogMessages, Messages
from whatsapp.settings import GatewaySettings, MessageSource, Settings, SettingsError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Post:
    """The messages of all gateways, as one exporter learns of them."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet, and take nobody's events."""
        self._lookback_seconds = settings.message_lookback_hours * 3600
        self.store = EventStore(settings.messages_state_url)
        self._inbox = Inbox(self.store, [])
        self._senders: dict[str, Sender] = {}
        self._started = False

    def follow(self, gateways: Collection[GatewaySettings]) -> None:
        """Take the events of those of these gateways that post them, and of no others.

        Raises SettingsError where one has no token; then nothing has changed.
        """
        senders = senders_among(gateways)
        self._inbox.open_for(senders)
        if senders and not self._started:
            self._inbox.start()
            self._started = True
        self._senders.update(senders)
        for name in self._senders.keys() - senders.keys():
            del self._senders[name]

    def messages(self, gateway: GatewaySettings, board: Board) -> Messages | None:
        """Return the source of a gateway whose channels are pinned to the board."""
        if gateway.message_log_url is not None:
            return LogMessages(MessageLog(gateway.message_log_url), self._lookback_seconds)
        if gateway.messages is MessageSource.EVENTS:
            stored = StoredMessages(self.store, gateway.name)
            return TakenMessages(self._inbox, stored, gateway.name)
        if gateway.messages is MessageSource.ACTIVITY:
            return Activity(lambda: _listed(board))
        return None

    def receiver(self, pages: WSGIApplication, count: Count) -> WSGIApplication:
        """Return the application with the place for events before it."""
        return Receiver(pages, self._senders, self._inbox.take, count)


def senders_among(gateways: Collection[GatewaySettings]) -> dict[str, Sender]:
    """Return those that post their events; raise SettingsError where one has no token."""
    posting = [gateway for gateway in gateways if gateway.messages is MessageSource.EVENTS]
    for gateway in posting:
        if not gateway.messages_token:
            raise SettingsError(
                "MESSAGES_TOKEN is not set: choose a long random text, and let gateway "
                f"{gateway.name} post its events with it"
            )
    return {gateway.name: Sender(gateway.type, gateway.messages_token) for gateway in posting}


def _listed(board: Board) -> Collection[Channel]:
    gateway = board.snapshot.gateway
    if gateway is None or not gateway.up:
        raise MessageLogError("the gateway does not give its channel list")
    return gateway.channels
