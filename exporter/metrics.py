"""The exporter's metrics: families made of one snapshot, and the histograms beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.snapshot import Board, GatewayState, LogState, Snapshot
from whatsapp import __version__
from whatsapp.exposition import GatewayMetrics
from whatsapp.gateway import Operation
from whatsapp.message_log import Direction

_POLL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class Metrics:
    """All that the exporter publishes about one gateway, in a registry of its own."""

    def __init__(
        self,
        board: Board,
        gateway: str,
        silence_threshold: Callable[[str], float],
        *,
        with_log: bool,
    ) -> None:
        """``silence_threshold`` gives a channel's threshold in seconds."""
        self.registry = CollectorRegistry()
        self.gateway_calls = GatewayMetrics(self.registry, gateway, [Operation.LIST])
        if with_log:
            self.log_seconds = Histogram(
                "whatsapp_message_log_poll_duration_seconds",
                "How long polls of the message log took, failed ones included.",
                ["gateway"],
                registry=self.registry,
                buckets=_POLL_BUCKETS,
            ).labels(gateway)
        self.registry.register(SnapshotCollector(board, gateway, silence_threshold))


class SnapshotCollector(Collector):
    """Turns the present snapshot into metric families; what is not known has no sample."""

    def __init__(
        self, board: Board, gateway: str, silence_threshold: Callable[[str], float]
    ) -> None:
        self._board = board
        self._gateway = gateway
        self._silence_threshold = silence_threshold

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot."""
        snapshot = self._board.snapshot
        if snapshot.gateway is not None:
            yield from self._of_gateway(snapshot.gateway)
            yield from self._of_channels(snapshot)
        if snapshot.log is not None:
            yield from self._of_log(snapshot.log)
        info = GaugeMetricFamily(
            "whatsapp_exporter_build_info",
            "The exporter's version, as a label of the value 1.",
            labels=["version"],
        )
        info.add_metric([__version__], 1)
        yield info

    def _of_gateway(self, gateway: GatewayState) -> Iterator[Metric]:
        up = self._gauge("whatsapp_gateway_up", "1 if the last call for the channel list worked.")
        up.add_metric([self._gateway], gateway.up)
        yield up
        yield self._last_success(
            "whatsapp_gateway_last_success_timestamp_seconds",
            "When the channel list was last read, in Unix seconds.",
            gateway.last_success,
        )
        connected = self._gauge(
            "whatsapp_channel_connected",
            "1 if the gateway says that the channel is connected, else 0.",
            "channel",
        )
        status = self._gauge(
            "whatsapp_channel_status",
            "1 for the status that the gateway gives the channel.",
            "channel",
            "status",
        )
        for channel in gateway.channels if gateway.up else ():
            connected.add_metric([self._gateway, channel.id], channel.connected)
            status.add_metric([self._gateway, channel.id, channel.status], 1)
        yield connected
        yield status

    def _of_channels(self, snapshot: Snapshot) -> Iterator[Metric]:
        threshold = self._gauge(
            "whatsapp_channel_silence_threshold_seconds",
            "How long the channel may be without a message before it counts as silent.",
            "channel",
        )
        age = self._gauge(
            "whatsapp_channel_seconds_since_last_message",
            "Age of the channel's last message by the message log's own clock.",
            "channel",
        )
        last = self._gauge(
            "whatsapp_channel_last_message_timestamp_seconds",
            "When the channel's last message was received, in Unix seconds of the log's clock.",
            "channel",
        )
        messages = CounterMetricFamily(
            "whatsapp_channel_messages",
            "Messages of the channel that the log got since the exporter started.",
            labels=["gateway", "channel", "direction"],
        )
        gateway, log = snapshot.gateway, snapshot.log
        view = log.view if log else None
        for channel in gateway.channels if gateway else ():
            labels = [self._gateway, channel.id]
            threshold.add_metric(labels, self._silence_threshold(channel.id))
            if view is None:
                continue
            for direction in Direction:
                count = view.messages.get((channel.key, direction), 0)
                messages.add_metric([*labels, direction], count)
            seconds = view.age(channel.key)
            if seconds is not None and log is not None and log.up:
                age.add_metric(labels, seconds)
                last.add_metric(labels, view.last_message[channel.key])
        yield from (threshold, age, last, messages)

    def _of_log(self, log: LogState) -> Iterator[Metric]:
        up = self._gauge("whatsapp_message_log_up", "1 if the last poll of the log worked.")
        up.add_metric([self._gateway], log.up)
        yield up
        yield self._last_success(
            "whatsapp_message_log_last_success_timestamp_seconds",
            "When the message log was last read, in Unix seconds.",
            log.last_success,
        )
        rows = CounterMetricFamily(
            "whatsapp_message_log_rows_read",
            "Rows of the message log that were read since the exporter started.",
            labels=["gateway"],
        )
        rows.add_metric([self._gateway], log.view.rows_read if log.view else 0)
        yield rows

    def _gauge(self, name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, help_text, labels=["gateway", *labels])

    def _last_success(self, name: str, help_text: str, at: float | None) -> GaugeMetricFamily:
        family = self._gauge(name, help_text)
        if at is not None:
            family.add_metric([self._gateway], at)
        return family
