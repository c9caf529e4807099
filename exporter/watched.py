"""One gateway that is being watched: its pollers, what they have found out, and its metrics."""

from __future__ import annotations

import logging

from exporter.messages.post import Post
from exporter.metrics import Metrics
from exporter.pollers import GatewayPoller, LogPoller, Poller
from exporter.silence.learner import Learner
from exporter.silence.reading import histories_of
from exporter.silence.thresholds import Thresholds, bounds_of
from exporter.snapshot import Board, waiting_for
from exporter.texts import Texts
from whatsapp.gateways.registry import ADAPTERS, make_gateway
from whatsapp.settings import GatewaySettings, MessageSource, Settings, SilenceMode


class WatchedGateway:
    """Everything that is one gateway's alone: no other waits for it.

    With the same message log as another it has a tail of its own all the same: a log that is slow
    or locked for one reader is nobody else's trouble, and each can end without the other.
    """

    def __init__(
        self, settings: Settings, gateway: GatewaySettings, post: Post, log: logging.Logger
    ) -> None:
        """Prepare to watch, and say in ``log`` what becomes of it."""
        self.gateway = gateway
        self.board = Board()
        bounds = bounds_of(settings)
        messages = post.messages(gateway, self.board)
        self._with_log = messages is not None
        thresholds = Thresholds(gateway, bounds, can_query=ADAPTERS[gateway.type].can_query)
        self.metrics = Metrics(
            self.board,
            gateway.name,
            thresholds.of,
            thresholds.suspicion,
            with_log=self._with_log,
            with_events=gateway.messages is MessageSource.EVENTS,
        )
        self.texts = Texts(self.board, self.metrics.sections)
        self._pollers: list[Poller] = []
        self._learner: Learner | None = None
        pause = settings.exporter_poll_seconds
        client = make_gateway(gateway, observe=self.metrics.observe_call)
        if messages is None:
            self._pollers = [GatewayPoller(client, self.board, pause, log=log)]
            return
        of_log = LogPoller(messages, self.board, pause, self.metrics.log_seconds.observe, log)
        # The first look back for a channel begins when it is first listed, not a pause later.
        of_list = GatewayPoller(client, self.board, pause, of_log.hurry, log)
        self._pollers = [of_list, of_log]
        if gateway.silence_mode is SilenceMode.ADAPTIVE:
            histories = histories_of(settings, gateway)
            self._learner = Learner(gateway, bounds, histories, self.board, log)

    def start(self) -> None:
        """Begin, in threads that do not keep the program from ending."""
        for poller in self._pollers:
            poller.start()
        if self._learner is not None:
            self._learner.start()

    def stop(self) -> None:
        """End, without waiting for what is under way."""
        for poller in self._pollers:
            poller.stop()
        if self._learner is not None:
            self._learner.stop()

    @property
    def waiting(self) -> list[str]:
        """The sources that have not been asked yet."""
        return waiting_for(self.board.snapshot, with_log=self._with_log)
