"""What is said of each channel: its status, its silence, its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric

from exporter.families import OfChannels
from exporter.silence.model import Model
from exporter.silence.thresholds import Threshold
from exporter.snapshot import Board, Snapshot
from whatsapp.channels import Channel
from whatsapp.last_messages import LogView
from whatsapp.message_log import Direction

ThresholdOf = Callable[[Channel, Mapping[str, float], Model | None], Threshold]
"""Thresholds.of(): a channel's threshold by the last messages and what was learned."""


class Statuses(OfChannels):
    """What the gateway says of each channel."""

    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return the channels, and whether their statuses count."""
        gateway = snapshot.gateway
        return (gateway.channels, gateway.up) if gateway else ()

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot; none before the first list."""
        gateway = self.board.snapshot.gateway
        if gateway is None:
            return
        # One family after the other, so that no more than one is in memory while they are written.
        connected = self.gauge(
            "whatsapp_channel_connected",
            "1 if the gateway says that the channel is connected, else 0.",
            "channel",
        )
        for channel in gateway.channels if gateway.up else ():
            connected.add_metric([self.gateway, channel.id], channel.connected)
        yield connected
        status = self.gauge(
            "whatsapp_channel_status",
            "1 for the status that the gateway gives the channel.",
            "channel",
            "status",
        )
        for channel in gateway.channels if gateway.up else ():
            status.add_metric([self.gateway, channel.id, channel.status], 1)
        yield status


class Silence(OfChannels):
    """How long each channel may be silent, and who says so."""

    def __init__(self, board: Board, gateway: str, threshold_of: ThresholdOf) -> None:
        super().__init__(board, gateway)
        self._threshold_of = threshold_of

    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return the channels, and where something is learned, that and their last messages."""
        channels = snapshot.gateway.channels if snapshot.gateway else None
        if snapshot.silence is None:
            return (channels,)
        return (channels, snapshot.silence, snapshot.log.view if snapshot.log else None)

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot; none before the first list."""
        snapshot = self.board.snapshot
        if snapshot.gateway is None:
            return
        view = snapshot.log.view if snapshot.log else None
        last_message = view.last_message if view else {}
        threshold = self.gauge(
            "whatsapp_channel_silence_threshold_seconds",
            "How long the channel may be without a message before it counts as silent.",
            "channel",
        )
        mode = self.gauge(
            "whatsapp_channel_silence_mode",
            "1 for whether that threshold is fixed or adaptive.",
            "channel",
            "mode",
        )
        for channel in snapshot.gateway.channels:
            now = self._threshold_of(channel, last_message, snapshot.silence)
            threshold.add_metric([self.gateway, channel.id], now.seconds)
            mode.add_metric([self.gateway, channel.id, now.mode], 1)
        yield from (threshold, mode)


_NOTHING_READ = LogView(now=0.0, last_message={}, messages={}, rows_read=0, counted=False)


class Messages(OfChannels):
    """What the log knows of each channel that the gateway lists."""

    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return the channels, what is known of their messages, and whether their ages count."""
        gateway, log = snapshot.gateway, snapshot.log
        return (gateway.channels, log.view, log.up) if gateway and log else ()

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot; none before the first list."""
        gateway, log = self.board.snapshot.gateway, self.board.snapshot.log
        if gateway is None:
            return
        view = log.view if log and log.view else _NOTHING_READ
        # Ages count only while the log is up; what was counted counts for ever.
        aged = view if log and log.up else _NOTHING_READ
        age = self.gauge(
            "whatsapp_channel_seconds_since_last_message",
            "Age of the channel's last message by the message log's own clock.",
            "channel",
        )
        last = self.gauge(
            "whatsapp_channel_last_message_timestamp_seconds",
            "When the channel's last message was received, in Unix seconds of the log's clock.",
            "channel",
        )
        unknown = self.gauge(
            "whatsapp_channel_activity_unknown",
            "1 where nobody tells of the channel's messages, so that its silence shows nothing.",
            "channel",
        )
        for channel in gateway.channels:
            labels = [self.gateway, channel.id]
            seconds = aged.age(channel.key)
            if seconds is not None:
                age.add_metric(labels, seconds)
                last.add_metric(labels, aged.last_message[channel.key])
            elif not aged.counted and aged is not _NOTHING_READ:
                unknown.add_metric(labels, 1)
        yield from (age, last, unknown)
        messages = self.counter(
            "whatsapp_channel_messages",
            "Messages of the channel that the log got since the exporter started.",
            "channel",
            "direction",
        )
        for channel in gateway.channels if view.counted else ():
            for direction in Direction:
                count = view.messages.get((channel.key, direction), 0)
                messages.add_metric([self.gateway, channel.id, direction], count)
        yield messages
