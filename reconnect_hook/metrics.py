"""The hook's metrics: counted here since its start, or read from the state that hooks share."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconnect_hook.alerts import AlertStatus
from reconnect_hook.outcomes import Job, Outcome, Result
from reconnect_hook.state.admission import Verdict
from reconnect_hook.state.database import StateError
from reconnect_hook.state.memory import Memory
from whatsapp.exposition import GatewayMetrics
from whatsapp.gateways.gateway import Observer, Operation

_REPAIR_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 180, 300)  # seconds


class Metrics:
    """All that the hook publishes, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = GatewayMetrics(self.registry, Operation)
        self._memories: dict[str, Memory] = {}
        self.registry.register(_StateCollector(self._memories))
        self._alerts = Counter(
            "whatsapp_reconnect_alerts_total",
            "Alerts that came in, by what was done with them.",
            ["status", "result"],
            registry=self.registry,
        )
        self._attempts = Counter(
            "whatsapp_reconnect_attempts_total",
            "Repairs that ended, by reason and outcome.",
            ["gateway", "channel", "reason", "outcome"],
            registry=self.registry,
        )
        self._durations = Histogram(
            "whatsapp_reconnect_duration_seconds",
            "How long repairs took, verification included.",
            ["outcome"],
            registry=self.registry,
            buckets=_REPAIR_BUCKETS,
        )
        for status in (AlertStatus.FIRING, AlertStatus.RESOLVED):
            for verdict in Verdict:
                self._alerts.labels(status, verdict)
        for outcome in Outcome:
            self._durations.labels(outcome)

    def of(self, gateway: str) -> OfGateway:
        """Return what counts what is done for one gateway."""
        return OfGateway(gateway, self._calls.of(gateway), self._attempts, self._durations)

    def watch(self, gateway: str, memory: Memory) -> None:
        """Publish what the state remembers of a gateway as well."""
        self._memories[gateway] = memory

    def forget(self, gateway: str) -> None:
        """Publish nothing of a gateway any more."""
        self._memories.pop(gateway, None)
        self._calls.forget(gateway)
        self._attempts.remove_by_labels({"gateway": gateway})

    def count_alerts(self, verdicts: Iterable[tuple[AlertStatus, Verdict]]) -> None:
        """Count alerts that came in."""
        for (status, verdict), number in Counted(verdicts).items():
            self._alerts.labels(status, verdict).inc(number)


class OfGateway:
    """Counts what is done for one gateway."""

    def __init__(
        self, gateway: str, observe_call: Observer, attempts: Counter, durations: Histogram
    ) -> None:
        self.observe_call = observe_call
        self._gateway = gateway
        self._attempts = attempts
        self._durations = durations

    def count_repair(self, job: Job, result: Result, seconds: float) -> None:
        """Count one repair that ended."""
        # A label that the gateway does not know would let anybody make series without end.
        channel = result.channel if result.listed else ""
        self._attempts.labels(self._gateway, channel, job.reason, result.outcome).inc()
        self._durations.labels(result.outcome).observe(seconds)


class _StateCollector(Collector):
    def __init__(self, memories: dict[str, Memory]) -> None:
        self._memories = memories

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present state; none while it cannot be read."""
        try:
            queues = {name: memory.queue() for name, memory in self._memories.copy().items()}
        except StateError:
            return
        if not queues:
            return
        yield GaugeMetricFamily(
            "whatsapp_reconnect_queue_length",
            "Repairs that wait, in the state that all hooks share.",
            sum(queue.waiting for queue in queues.values()),
        )
        yield GaugeMetricFamily(
            "whatsapp_reconnect_in_flight",
            "Repairs that are under way, in the state that all hooks share.",
            sum(queue.in_flight for queue in queues.values()),
        )
        failures = GaugeMetricFamily(
            "whatsapp_reconnect_consecutive_failures",
            "How many repairs in a row have failed to bring the channel back.",
            labels=["gateway", "channel"],
        )
        waiting = GaugeMetricFamily(
            "whatsapp_reconnect_qr_required",
            "1 while a QR code waits for a person.",
            labels=["gateway", "channel"],
        )
        paused = GaugeMetricFamily(
            "whatsapp_reconnect_paused",
            "1 while a person has paused the channel's repairs.",
            labels=["gateway", "channel"],
        )
        for gateway, queue in queues.items():
            for record in queue.channels:
                labels = [gateway, record.channel]
                failures.add_metric(labels, record.consecutive_failures)
                waiting.add_metric(labels, record.qr_required)
            for channel in queue.paused:
                paused.add_metric([gateway, channel], 1)
        yield failures
        yield waiting
        yield paused
