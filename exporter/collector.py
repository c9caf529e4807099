"""The exporter's metrics: one collector over the snapshots and counters of all gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.pollers import StateStore
from exporter.silence.model import Model, Threshold
from zapwatch import __version__
from zapwatch.channels import Channel
from zapwatch.config import SilenceMode
from zapwatch.gateways.base import LeftOut, Operation
from zapwatch.messages.message import ActivitySnapshot, Direction
from zapwatch.metrics import GatewayMetrics, register_dead_threads, register_process_metrics

ThresholdOf = Callable[[Channel, Mapping[str, float], Model | None], Threshold]
"""Thresholds.of(): a channel's silence threshold, from its last message and the learned model."""

SuspicionOf = Callable[[Channel, Mapping[str, float], Model | None, float], float | None]
"""Thresholds.suspicion(): seconds without a message until a channel is probed."""

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of one gateway, each with its labels after ``gateway``."""

_Type = type[GaugeMetricFamily | CounterMetricFamily]
_NOTHING_READ = ActivitySnapshot(now=0.0, last_message={}, messages={}, rows_read=0, counted=False)
_POLL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class ExporterMetrics:
    """One gateway's metrics: the snapshot in its state store, and its counters."""

    def __init__(
        self,
        store: StateStore,
        gateway: str,
        threshold_of: ThresholdOf,
        suspicion_of: SuspicionOf,
        *,
        with_log: bool,
        list_is_log: bool = False,
    ) -> None:
        """``list_is_log``: the messages are those in the channel list."""
        self.store = store
        self.gateway = gateway
        self.list_is_log = list_is_log
        self.threshold_of = threshold_of
        self.suspicion_of = suspicion_of
        self.counters = CollectorRegistry()
        self.observe_call = GatewayMetrics(self.counters, [Operation.LIST]).of(gateway)
        if with_log:
            self.log_seconds = Histogram(
                "whatsapp_message_log_poll_duration_seconds",
                "How long polls of the message log took, failed ones included.",
                ["gateway"],
                registry=self.counters,
                buckets=_POLL_BUCKETS,
            ).labels(gateway)


class _View:
    """One gateway's current snapshot, and the parts of it that are valid."""

    def __init__(self, metrics: ExporterMetrics) -> None:
        snapshot = metrics.store.snapshot
        self.gateway = metrics.gateway
        self.list_is_log = metrics.list_is_log
        self._threshold_of = metrics.threshold_of
        self.suspicion_of = metrics.suspicion_of
        self.list = snapshot.gateway
        self.log = snapshot.log
        self.model = snapshot.silence
        self.channels = self.list.channels if self.list else ()
        # A failed list call invalidates statuses, a failed poll of the log ages; counters stay.
        self.listed = self.channels if self.list and self.list.up else ()
        self.activity = self.log.view if self.log and self.log.view else _NOTHING_READ
        self.aged = self.activity if self.log and self.log.up else _NOTHING_READ

    @cached_property
    def thresholds(self) -> list[tuple[Channel, Threshold]]:
        last_message = self.activity.last_message
        return [
            (channel, self._threshold_of(channel, last_message, self.model))
            for channel in self.channels
        ]


@dataclass(frozen=True, slots=True)
class _Family:
    """A metric whose samples come from the snapshots; unknown values have no sample."""

    type: _Type
    name: str
    documentation: str
    labels: tuple[str, ...]
    samples: Callable[[_View], Samples]

    def of(self, gateways: Iterable[_View]) -> Metric:
        """Return the metric with the samples of these gateways."""
        metric = self.type(self.name, self.documentation, labels=("gateway", *self.labels))
        for gateway in gateways:
            for labels, value in self.samples(gateway):
                metric.add_metric((gateway.gateway, *labels), value)
        return metric


_FAMILIES: list[_Family] = []
_Declared = Callable[[Callable[[_View], Samples]], None]


def _family(type_: _Type, name: str, documentation: str, *labels: str) -> _Declared:
    return lambda samples: _FAMILIES.append(_Family(type_, name, documentation, labels, samples))


_gauge = partial(_family, GaugeMetricFamily)
_counter = partial(_family, CounterMetricFamily)


@_gauge("whatsapp_gateway_up", "1 if the last call for the channel list worked.")
def _gateway_up(view: _View) -> Samples:
    if view.list:
        yield (), view.list.up


@_gauge(
    "whatsapp_gateway_last_success_timestamp_seconds",
    "When the channel list was last read, in Unix seconds.",
)
def _gateway_last_success(view: _View) -> Samples:
    if view.list and view.list.last_success is not None:
        yield (), view.list.last_success


@_gauge(
    "whatsapp_gateway_channels_left_out",
    "Entries of the channel list that are not watched, by reason.",
    "reason",
)
def _left_out(view: _View) -> Samples:
    if view.list and view.list.up:
        for reason in LeftOut:
            yield (reason,), view.list.left_out.get(reason, 0)


@_gauge(
    "whatsapp_channel_ignored",
    "1 for a channel that the gateway lists and the settings leave out.",
    "channel",
)
def _ignored(view: _View) -> Samples:
    if view.list and view.list.up:
        yield from (((channel,), 1) for channel in view.list.ignored)


@_gauge("whatsapp_message_log_up", "1 if the last poll of the log worked, and left no row unread.")
def _log_up(view: _View) -> Samples:
    # Of a list that fails with the messages in it, its own metric shows that; no log has a fault.
    if view.log and not (view.list_is_log and view.list and not view.list.up):
        yield (), view.log.up


@_gauge(
    "whatsapp_message_log_last_success_timestamp_seconds",
    "When the message log was last read, in Unix seconds.",
)
def _log_last_success(view: _View) -> Samples:
    if view.log and view.log.last_success is not None:
        yield (), view.log.last_success


@_counter(
    "whatsapp_message_log_rows_read",
    "Rows of the message log that were read since the exporter started.",
)
def _log_rows_read(view: _View) -> Samples:
    if view.log:
        yield (), view.activity.rows_read


@_counter(
    "whatsapp_message_log_unnamed_rows",
    "Rows of messages that name no channel, of those that were read since the exporter started.",
)
def _log_unnamed_rows(view: _View) -> Samples:
    if view.activity.unnamed:
        yield (), view.activity.unnamed


@_gauge(
    "whatsapp_message_log_clock_offset_seconds",
    "By how many seconds the newest rows are dated ahead, or back (negative); from 1800 on.",
)
def _log_clock_offset(view: _View) -> Samples:
    if view.aged.clock_offset:
        yield (), view.aged.clock_offset


@_gauge(
    "whatsapp_silence_last_learned_timestamp_seconds",
    "When silence thresholds were last learned, in Unix seconds.",
)
def _learned_at(view: _View) -> Samples:
    if view.model:
        yield (), view.model.learned_at


@_gauge("whatsapp_silence_learned_channels", "Channels with a learned silence threshold.")
def _learned_channels(view: _View) -> Samples:
    if view.model:
        yield (), len(view.model.channels)


@_gauge("whatsapp_silence_learned_messages", "Messages from which silence thresholds were learned.")
def _learned_messages(view: _View) -> Samples:
    if view.model:
        yield (), view.model.messages


@_gauge(
    "whatsapp_channel_connected",
    "1 if the gateway lists the channel as connected, else 0.",
    "channel",
)
def _connected(view: _View) -> Samples:
    return (((channel.id,), channel.connected) for channel in view.listed)


@_gauge(
    "whatsapp_channel_status",
    "1 for the channel's present status at the gateway.",
    "channel",
    "status",
)
def _status(view: _View) -> Samples:
    return (((channel.id, channel.status), 1) for channel in view.listed)


@_gauge(
    "whatsapp_channel_silence_threshold_seconds",
    "How long the channel may be without a message before it counts as silent.",
    "channel",
)
def _silence_threshold(view: _View) -> Samples:
    return (((channel.id,), threshold.seconds) for channel, threshold in view.thresholds)


@_gauge(
    "whatsapp_channel_silence_mode",
    "1 for the mode of the channel's silence threshold, fixed or adaptive.",
    "channel",
    "mode",
)
def _silence_mode(view: _View) -> Samples:
    return (((channel.id, threshold.mode), 1) for channel, threshold in view.thresholds)


@_gauge(
    "whatsapp_channel_seconds_since_last_message",
    "Age of the channel's last message by the message log's own clock.",
    "channel",
)
def _last_message_age(view: _View) -> Samples:
    for channel in view.channels:
        seconds = view.aged.age(channel.key)
        if seconds is not None:
            yield (channel.id,), seconds


@_gauge(
    "whatsapp_channel_last_message_timestamp_seconds",
    "When the channel's last message was received, in Unix seconds of the log's clock.",
    "channel",
)
def _last_message_at(view: _View) -> Samples:
    for channel in view.channels:
        at = view.aged.last_message.get(channel.key)
        if at is not None:
            yield (channel.id,), at


@_gauge(
    "whatsapp_channel_activity_unknown",
    "1 if no source reports the channel's messages, so that its silence proves nothing.",
    "channel",
)
def _activity_unknown(view: _View) -> Samples:
    if view.aged.counted or view.aged is _NOTHING_READ:
        return
    for channel in view.channels:
        if view.aged.age(channel.key) is None:
            yield (channel.id,), 1


@_counter(
    "whatsapp_channel_messages",
    "Messages of the channel since the exporter started.",
    "channel",
    "direction",
)
def _messages(view: _View) -> Samples:
    for channel in view.channels if view.activity.counted else ():
        for direction in Direction:
            count = view.activity.messages.get((channel.key, direction), 0)
            yield (channel.id, direction), count


@_counter(
    "whatsapp_channel_undecryptable_messages",
    "Messages of the channel that arrived and could not be decrypted, since the exporter started.",
    "channel",
)
def _undecryptable(view: _View) -> Samples:
    # Rare, so only affected channels have a series.
    for channel in view.channels if view.activity.undecryptable else ():
        count = view.activity.undecryptable.get(channel.key, 0)
        if count:
            yield (channel.id,), count


@_gauge(
    "whatsapp_channel_seconds_since_last_heard",
    "Age of the last message that came through WhatsApp, by the message log's own clock.",
    "channel",
)
def _last_heard_age(view: _View) -> Samples:
    for channel in view.channels:
        seconds = view.aged.heard_age(channel.key)
        if seconds is not None:
            yield (channel.id,), seconds


@_gauge(
    "whatsapp_channel_probe_threshold_seconds",
    "Age of the last message through WhatsApp from which the channel is probed.",
    "channel",
)
def _probe_threshold(view: _View) -> Samples:
    for channel, threshold in view.thresholds if view.log else ():
        seconds = view.suspicion_of(
            channel, view.activity.last_heard, view.model, threshold.seconds
        )
        if seconds is not None:
            yield (channel.id,), seconds


class ExporterCollector(Collector):
    """All metrics of the shown gateways, each metric in one family."""

    def __init__(self, gateways: Sequence[ExporterMetrics] = ()) -> None:
        self._gateways = tuple(gateways)

    def show(self, gateways: Iterable[ExporterMetrics]) -> None:
        """Publish exactly these gateways from now on."""
        self._gateways = tuple(gateways)

    def describe(self) -> Iterator[Metric]:
        """Yield every family without samples of channels; ``name[]`` selects by these names."""
        yield from (family.of(()) for family in _FAMILIES)
        every = ExporterMetrics(
            StateStore(),
            gateway="",
            threshold_of=lambda *_: Threshold(0, SilenceMode.FIXED),
            suspicion_of=lambda *_: None,
            with_log=True,
        )
        yield from every.counters.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield one family at a time, so that only one is in memory while it is written."""
        gateways = self._gateways
        # Snapshots first: a call is counted before its outcome is stored, so that no exposition
        # shows a failure without its count.
        samples = [_View(gateway) for gateway in gateways]
        yield from (family.of(samples) for family in _FAMILIES)
        counters: dict[str, Metric] = {}
        for gateway in gateways:
            for metric in gateway.counters.collect():
                counters.setdefault(metric.name, metric)
                if counters[metric.name] is not metric:
                    counters[metric.name].samples.extend(metric.samples)
        yield from counters.values()


def make_registry(collector: ExporterCollector) -> CollectorRegistry:
    """Return the registry of the exporter's /metrics."""
    registry = CollectorRegistry()
    registry.register(collector)
    Gauge(
        "whatsapp_exporter_build_info",
        "The exporter's version, as a label of the value 1.",
        ["version"],
        registry=registry,
    ).labels(__version__).set(1)
    register_process_metrics(registry)
    register_dead_threads(registry, "whatsapp_exporter")
    return registry
