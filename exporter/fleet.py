"""All gateways that are being watched, as the settings name them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

from exporter.messages.post import Post
from exporter.messages.receiver import EventResult
from exporter.page import MetricsPage
from exporter.watched import WatchedGateway
from whatsapp.settings import GatewaySettings, MessageSource, Settings


class Fleet:
    """Watches gateways, and others when the settings are read again; for any number of threads."""

    def __init__(self, settings: Settings, post: Post) -> None:
        """Watch nothing yet."""
        self.page = MetricsPage()
        self._post = post
        self._settings = settings
        self._lock = threading.Lock()
        self._watched: dict[str, WatchedGateway] = {}
        self._coming: dict[str, WatchedGateway] = {}

    def follow(self, gateways: Sequence[GatewaySettings]) -> None:
        """Watch these gateways and no others; what has not changed goes on undisturbed.

        One that has changed is watched as before until each of its sources was asked once by the
        new settings: its metrics have no gap in which alerts would end. Raises SettingsError where
        one of them cannot be watched; then nothing has changed.
        """
        wanted = {gateway.name: gateway for gateway in gateways}
        with self._lock:
            self._post.follow(gateways)
            for name in self._watched.keys() - wanted.keys():
                self._watched.pop(name).stop()
            for name, coming in list(self._coming.items()):
                if wanted.get(name) != coming.gateway:
                    self._coming.pop(name).stop()
            fresh = [gateway for gateway in gateways if not self._is_watched(gateway)]
            made = [self._make(gateway, several=len(gateways) > 1) for gateway in fresh]
            self._watched = {name: self._watched[name] for name in wanted if name in self._watched}
            self._show()
        for one in made:
            one.start()

    def _is_watched(self, gateway: GatewaySettings) -> bool:
        present = self._coming.get(gateway.name) or self._watched.get(gateway.name)
        return present is not None and present.gateway == gateway

    def _make(self, gateway: GatewaySettings, *, several: bool) -> WatchedGateway:
        log = logging.getLogger(f"exporter.{gateway.name}" if several else "exporter")
        made = WatchedGateway(self._settings, gateway, self._post, log)
        if gateway.name in self._watched:
            self._coming[gateway.name] = made
            made.board.watch(partial(self._take_over, made))
        else:
            self._watched[gateway.name] = made
        return made

    def _take_over(self, coming: WatchedGateway) -> None:
        """Show a gateway by its new settings, as soon as there is something to show."""
        name = coming.gateway.name
        if coming.waiting:
            return
        with self._lock:
            if self._coming.get(name) is coming:
                del self._coming[name]
                self._watched[name].stop()
                self._watched[name] = coming
                self._show()

    def count_event(self, gateway: str, result: EventResult) -> None:
        """Count an event that a gateway posted."""
        watched = self._watched.get(gateway)
        if watched is not None and watched.gateway.messages is MessageSource.EVENTS:
            watched.metrics.count_event(result)

    def _show(self) -> None:
        self.page.show([watched.texts for watched in self._watched.values()])

    @property
    def waiting(self) -> list[str]:
        """The sources that have not been asked yet."""
        watched = self._watched
        several = len(watched) > 1
        return [
            f"{source} of {name}" if several else source
            for name, one in watched.items()
            for source in one.waiting
        ]
