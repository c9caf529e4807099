"""The exporter's metrics: sections made of one snapshot, and the histograms beside it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter.channel_metrics import Messages, Silence, Statuses, ThresholdOf
from exporter.families import OfChannels
from exporter.heard_metrics import Heard, SuspicionOf
from exporter.messages.receiver import EventResult
from exporter.snapshot import Board
from exporter.source_metrics import Sources
from exporter.texts import Section
from whatsapp.exposition import GatewayMetrics
from whatsapp.gateways.gateway import Operation

_POLL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class Metrics:
    """All that the exporter publishes about one gateway, in sections."""

    def __init__(
        self,
        board: Board,
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
            _section(Messages(board, gateway)),
            _section(Heard(board, gateway, threshold_of, suspicion_of)),
        )

    def count_event(self, result: EventResult) -> None:
        """Count an event that the gateway posted."""
        self._events[result].inc()


def _section(collector: OfChannels) -> Section:
    registry = CollectorRegistry()
    registry.register(collector)
    return Section(registry, collector.made_of)
