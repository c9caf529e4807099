"""The exporter's metrics: sections made of one snapshot, and the histograms beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.event_receiver import EventResult
from exporter.exposition import Section
from exporter.silence.model import Model
from exporter.silence.thresholds import Threshold
from exporter.snapshot import GatewayState, LogState, Snapshot, StateStore
from zapwatch.channels import Channel
from zapwatch.gateways.base import LeftOut, Operation
from zapwatch.messages.log_tailer import ActivitySnapshot
from zapwatch.messages.webhook_log import Direction
from zapwatch.metrics import GatewayMetrics


class OfSnapshot(Collector):
    """Turns the present snapshot into metric families; what is not known has no sample."""

    def __init__(self, board: StateStore, gateway: str) -> None:
        self.board = board
        self.gateway = gateway

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not collect."""
        return []

    def gauge(self, name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
        """Return an empty family whose samples name the gateway first."""
        return GaugeMetricFamily(name, help_text, labels=["gateway", *labels])

    def counter(self, name: str, help_text: str, *labels: str) -> CounterMetricFamily:
        """Return an empty family whose samples name the gateway first."""
        return CounterMetricFamily(name, help_text, labels=["gateway", *labels])


class OfChannels(OfSnapshot):
    """The families that have samples for each channel."""

    @abstractmethod
    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return all that goes into the families, see Section."""


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

    def __init__(self, board: StateStore, gateway: str, threshold_of: ThresholdOf) -> None:
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


_NOTHING_READ = ActivitySnapshot(now=0.0, last_message={}, messages={}, rows_read=0, counted=False)


class MessageMetrics(OfChannels):
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


SuspicionOf = Callable[[Channel, Mapping[str, float], Model | None, float], float | None]
"""Thresholds.suspicion(): when a channel is to be asked, by when it was last heard."""


class LastHeardCollector(OfChannels):
    """How long nothing has come through WhatsApp, and for how long that is no reason to ask."""

    def __init__(
        self, board: StateStore, gateway: str, threshold_of: ThresholdOf, suspicion_of: SuspicionOf
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


class Sources(OfSnapshot):
    """What is said of the gateway and the log as such."""

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot."""
        snapshot = self.board.snapshot
        if snapshot.gateway is not None:
            yield from self._of_gateway(snapshot.gateway)
        if snapshot.log is not None:
            yield from self._of_log(snapshot.log)
        if snapshot.silence is not None:
            yield from self._of_silence(snapshot.silence)

    def _of_gateway(self, gateway: GatewayState) -> Iterator[Metric]:
        up = self.gauge("whatsapp_gateway_up", "1 if the last call for the channel list worked.")
        up.add_metric([self.gateway], gateway.up)
        yield up
        yield self._last_success(
            "whatsapp_gateway_last_success_timestamp_seconds",
            "When the channel list was last read, in Unix seconds.",
            gateway.last_success,
        )
        left_out = self.gauge(
            "whatsapp_gateway_channels_left_out",
            "Entries of the channel list that are no channel of their own, by what is wrong.",
            "reason",
        )
        for reason in LeftOut if gateway.up else ():
            left_out.add_metric([self.gateway, reason], gateway.left_out.get(reason, 0))
        yield left_out

    def _of_log(self, log: LogState) -> Iterator[Metric]:
        up = self.gauge(
            "whatsapp_message_log_up",
            "1 if the last poll of the log worked, and left no row unread.",
        )
        up.add_metric([self.gateway], log.up)
        yield up
        yield self._last_success(
            "whatsapp_message_log_last_success_timestamp_seconds",
            "When the message log was last read, in Unix seconds.",
            log.last_success,
        )
        rows = self.counter(
            "whatsapp_message_log_rows_read",
            "Rows of the message log that were read since the exporter started.",
        )
        rows.add_metric([self.gateway], log.view.rows_read if log.view else 0)
        yield rows

    def _of_silence(self, model: Model) -> Iterator[Metric]:
        for name, help_text, value in (
            (
                "whatsapp_silence_last_learned_timestamp_seconds",
                "When it was last learned how long channels may be silent, in Unix seconds.",
                model.learned_at,
            ),
            (
                "whatsapp_silence_learned_channels",
                "Of how many channels that was learned.",
                len(model.channels),
            ),
            (
                "whatsapp_silence_learned_messages",
                "From how many messages that was learned.",
                model.messages,
            ),
        ):
            family = self.gauge(name, help_text)
            family.add_metric([self.gateway], value)
            yield family

    def _last_success(self, name: str, help_text: str, at: float | None) -> GaugeMetricFamily:
        family = self.gauge(name, help_text)
        if at is not None:
            family.add_metric([self.gateway], at)
        return family


_POLL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class ExporterMetrics:
    """All that the exporter publishes about one gateway, in sections."""

    def __init__(
        self,
        board: StateStore,
        gateway: str,
        threshold_of: ThresholdOf,
        suspicion_of: SuspicionOf,
        *,
        with_log: bool,
        with_events: bool = False,
    ) -> None:
        few = CollectorRegistry()
        # First, since a call is counted before what came of it is pinned: no page that is made in
        # between shows a failure which is not counted.
        few.register(Sources(board, gateway))
        self.observe_call = GatewayMetrics(few, [Operation.LIST]).of(gateway)
        if with_log:
            self.log_seconds = Histogram(
                "whatsapp_message_log_poll_duration_seconds",
                "How long polls of the message log took, failed ones included.",
                ["gateway"],
                registry=few,
                buckets=_POLL_BUCKETS,
            ).labels(gateway)
        if with_events:
            events = Counter(
                "whatsapp_message_events",
                "Events that the gateway posted, by what came of them.",
                ["gateway", "result"],
                registry=few,
            )
            self._events = {result: events.labels(gateway, result) for result in EventResult}
        self.sections = (
            Section(few, lambda snapshot: (snapshot,)),
            _section(Statuses(board, gateway)),
            _section(Silence(board, gateway, threshold_of)),
            _section(MessageMetrics(board, gateway)),
            _section(LastHeardCollector(board, gateway, threshold_of, suspicion_of)),
        )

    def count_event(self, result: EventResult) -> None:
        """Count an event that the gateway posted."""
        self._events[result].inc()


def _section(collector: OfChannels) -> Section:
    registry = CollectorRegistry()
    registry.register(collector)
    return Section(registry, collector.made_of)
