"""What is said of each channel's being heard: since when not, and when it is to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric

from exporter.channel_metrics import ThresholdOf
from exporter.families import OfChannels
from exporter.silence.model import Model
from exporter.snapshot import Board, Snapshot
from whatsapp.channels import Channel

SuspicionOf = Callable[[Channel, Mapping[str, float], Model | None, float], float | None]
"""Thresholds.suspicion(): when a channel is to be asked, by when it was last heard."""


class Heard(OfChannels):
    """How long nothing has come through WhatsApp, and for how long that is no reason to ask."""

    def __init__(
        self, board: Board, gateway: str, threshold_of: ThresholdOf, suspicion_of: SuspicionOf
    ) -> None:
        super().__init__(board, gateway)
        self._threshold_of = threshold_of
        self._suspicion_of = suspicion_of

    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return the channels, what is known of their messages, whether that counts, and more."""
        gateway, log = snapshot.gateway, snapshot.log
        return (gateway.channels, log.view, log.up, snapshot.silence) if gateway and log else ()

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot; none before the first polls."""
        snapshot = self.board.snapshot
        gateway, log = snapshot.gateway, snapshot.log
        if gateway is None or log is None:
            return
        age = self.gauge(
            "whatsapp_channel_seconds_since_last_heard",
            "Age of the last message that came through WhatsApp, by the message log's own clock.",
            "channel",
        )
        # Ages count only while the log is up.
        view = log.view if log.up else None
        for channel in gateway.channels if view else ():
            seconds = view.heard_age(channel.key) if view else None
            if seconds is not None:
                age.add_metric([self.gateway, channel.id], seconds)
        yield age
        threshold = self.gauge(
            "whatsapp_channel_probe_threshold_seconds",
            "How long nothing may be heard of the channel before it is asked whether it is alive.",
            "channel",
        )
        last_heard: Mapping[str, float] = log.view.last_heard if log.view else {}
        last_message: Mapping[str, float] = log.view.last_message if log.view else {}
        for channel in gateway.channels:
            most = self._threshold_of(channel, last_message, snapshot.silence).seconds
            at = self._suspicion_of(channel, last_heard, snapshot.silence, most)
            if at is not None:
                threshold.add_metric([self.gateway, channel.id], at)
        yield threshold
