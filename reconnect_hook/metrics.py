"""The hook's metrics: counters since its start, and gauges from the state that hooks share."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counted
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconnect_hook.alerts import AlertStatus, Disposition
from reconnect_hook.event_log import LogEntry
from reconnect_hook.history import Present, RepairHistory
from reconnect_hook.message_audit import AuditRepository, AuditResult, LastAudit, Replay
from reconnect_hook.models import Outcome, ProbeOutcome
from reconnect_hook.probe import Finding
from zapwatch import __version__
from zapwatch.config.readers import ProbeKind
from zapwatch.db import StateError
from zapwatch.gateways.base import Operation
from zapwatch.metrics import (
    Format,
    GatewayMetrics,
    Page,
    ReloadMetrics,
    encode,
    make_page,
    negotiate,
    register_dead_threads,
    register_process_metrics,
)

_T = TypeVar("_T")

_REPAIR_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 180, 300)  # seconds
_READ_SECONDS = 1.0  # for reading the state, of a scrape's 3 s
_PAGE_SECONDS = 1.5  # for rendering a page, of the same 3 s
_OLDEST_SECONDS = 60.0  # of a state or a page that replaces a slow one


class HookMetrics:
    """All metrics of the hook, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        register_process_metrics(self.registry)
        Gauge(
            "whatsapp_reconnect_hook_build_info",
            "The hook's version, as a label of the value 1.",
            ["version"],
            registry=self.registry,
        ).labels(__version__).set(1)
        self._page = Gauge(
            "whatsapp_page_info",
            "The page's address, as a label of the value 1.",
            ["url"],
            registry=self.registry,
        )
        register_dead_threads(self.registry, "whatsapp_reconnect_hook")
        self.reloads = ReloadMetrics(self.registry, "whatsapp_reconnect_hook")
        self.calls = GatewayMetrics(self.registry, Operation)
        self._watched: dict[str, tuple[RepairHistory, AuditRepository]] = {}
        self.registry.register(_StateCollector(self._watched))
        counter = partial(Counter, registry=self.registry)
        self._alerts = counter(
            "whatsapp_reconnect_alerts_total",
            "Alerts received, by status and result.",
            ["status", "result"],
        )
        self.attempts = counter(
            "whatsapp_reconnect_attempts_total",
            "Finished repairs, by reason and outcome.",
            ["gateway", "channel", "reason", "outcome"],
        )
        durations = Histogram(
            "whatsapp_reconnect_duration_seconds",
            "How long repairs took, verification included.",
            ["outcome"],
            registry=self.registry,
            buckets=_REPAIR_BUCKETS,
        )
        self.probes = counter(
            "whatsapp_channel_probes_total",
            "Finished probes, by kind and outcome.",
            ["gateway", "channel", "kind", "outcome"],
        )
        self.probe_durations = Histogram(
            "whatsapp_channel_probe_duration_seconds",
            "How long probes took.",
            ["kind"],
            registry=self.registry,
            buckets=_REPAIR_BUCKETS,
        )
        self.audits = counter(
            "whatsapp_message_audits_total",
            "Finished audits of messages, by result.",
            ["gateway", "channel", "result"],
        )
        self.replays = counter(
            "whatsapp_messages_replayed_total",
            "Missed messages that were delivered again, by result.",
            ["gateway", "channel", "result"],
        )
        for kind in (ProbeKind.QUERY, ProbeKind.DELIVERY, ProbeKind.ECHO):
            self.probe_durations.labels(kind)
        for status in (AlertStatus.FIRING, AlertStatus.RESOLVED):
            for verdict in Disposition:
                self._alerts.labels(status, verdict)
        self.durations = {outcome: durations.labels(outcome) for outcome in Outcome}

    def show_page(self, url: str) -> None:
        """Publish the page's URL, without a trailing slash."""
        self._page.labels(url).set(1)

    def watch(self, gateway: str, history: RepairHistory, audits: AuditRepository) -> None:
        """Publish a gateway's state, and the results of its last audits."""
        self._watched[gateway] = history, audits

    def forget(self, gateway: str) -> None:
        """Remove a gateway's series."""
        self._watched.pop(gateway, None)
        self.calls.forget(gateway)
        self.remove({"gateway": gateway})

    def remove(self, labels: dict[str, str]) -> None:
        """Remove the series of channels that have these labels."""
        for counter in (self.attempts, self.probes, self.audits, self.replays):
            counter.remove_by_labels(labels)

    def count_alerts(self, verdicts: Iterable[tuple[AlertStatus, Disposition]]) -> None:
        """Count received alerts."""
        for (status, verdict), number in Counted(verdicts).items():
            self._alerts.labels(status, verdict).inc(number)

    def count_replay(self, gateway: str, channel: str, result: Replay) -> None:
        """Count one finished delivery of a missed message, of a listed channel."""
        self.replays.labels(gateway, channel, result).inc()

    def count_audit(self, gateway: str, channel: str, result: AuditResult) -> None:
        """Count one finished audit of a listed channel."""
        self.audits.labels(gateway, channel, result).inc()

    def count_probe(self, gateway: str, channel: str, finding: Finding, seconds: float) -> None:
        """Count one finished probe of a listed channel; ``seconds`` is its duration."""
        self.probes.labels(gateway, channel, finding.kind, finding.outcome).inc()
        self.probe_durations.labels(finding.kind).observe(seconds)

    def count_repair(self, gateway: str, entry: LogEntry) -> None:
        """Count one finished repair."""
        # Unlisted names would allow an unbounded number of series.
        channel = entry.channel if entry.listed else ""
        self.attempts.labels(gateway, channel, entry.cause, entry.outcome).inc()
        self.durations[entry.outcome].observe(entry.seconds)


_State = tuple[dict[str, Present], dict[str, dict[str, LastAudit]]]
"""Channels' repairs by gateway, and last audits by gateway and channel."""


def _recent(latest: tuple[float, _T] | None) -> _T | None:
    """Return a finished result, begun at a monotonic time, unless it is too old."""
    if latest is None or time.monotonic() - latest[0] >= _OLDEST_SECONDS:
        return None
    return latest[1]


class LatestPages:
    """Renders the registry; a slow rendering is replaced by the last finished page.

    Rendering 20,000 channels may exceed a scrape's timeout.
    """

    def __init__(self, registry: CollectorRegistry, seconds: float = _PAGE_SECONDS) -> None:
        """Return an older page, if there is one, after ``seconds``."""
        self._registry = registry
        self._seconds = seconds
        self._renderer = ThreadPoolExecutor(1, "metrics page")
        self._lock = threading.Lock()
        self._rendering: dict[Format, Future[Page]] = {}
        self._latest: dict[Format, tuple[float, Page]] = {}

    def get(self, accept: str, accept_encoding: str) -> Page:
        """Return the page for the two request headers; concurrent scrapes share one rendering."""
        wanted = negotiate(accept, accept_encoding)
        with self._lock:
            rendering = self._rendering.get(wanted)
            if rendering is None or rendering.done():
                rendering = self._renderer.submit(self._render, wanted)
                self._rendering[wanted] = rendering
        try:
            return rendering.result(self._seconds)
        except TimeoutError:
            return _recent(self._latest.get(wanted)) or rendering.result()

    def _render(self, wanted: Format) -> Page:
        at = time.monotonic()
        page = make_page(encode(self._registry, openmetrics=wanted.openmetrics), wanted)
        self._latest[wanted] = at, page
        return page


class _StateCollector(Collector):
    def __init__(self, watched: dict[str, tuple[RepairHistory, AuditRepository]]) -> None:
        self._watched = watched
        self._reader = ThreadPoolExecutor(1, "state of metrics")
        self._lock = threading.Lock()
        self._reading: Future[_State] | None = None
        self._reading_since = 0.0
        self._latest: tuple[float, _State] | None = None

    def _read(self) -> _State:
        """Return the state; raise StateError or TimeoutError.

        All scrapes share one read: a hanging state costs one thread, and each scrape one second at
        most. A slow read is replaced by the last finished one.
        """
        with self._lock:
            if self._reading is None or self._reading.done():
                self._reading_since = time.monotonic()
                self._reading = self._reader.submit(self._ask)
            reading = self._reading
            left = self._reading_since + _READ_SECONDS - time.monotonic()
        try:
            return reading.result(max(0.0, left))
        except TimeoutError:
            state = _recent(self._latest)
            if state is None:
                raise
            return state

    def _ask(self) -> _State:
        at = time.monotonic()
        watched = self._watched.copy()
        present = {name: history.present() for name, (history, _) in watched.items()}
        state = present, {name: audits.last() for name, (_, audits) in watched.items()}
        self._latest = at, state
        return state

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the families of the current state; none while it is unreadable."""
        try:
            states, audits = self._read()
        except (StateError, TimeoutError):
            return
        if not states:
            return
        repairs = [one for present in states.values() for one in present.waiting.values()]
        yield GaugeMetricFamily(
            "whatsapp_reconnect_queue_length",
            "Waiting repairs, in the state that all hooks share.",
            sum(one.due_at is not None for one in repairs),
        )
        yield GaugeMetricFamily(
            "whatsapp_reconnect_in_flight",
            "Repairs in progress, in the state that all hooks share.",
            sum(one.due_at is None for one in repairs),
        )
        yield from _of_repairs(states)
        yield from _of_probes(states)
        yield from _of_audits(audits)


def _by_channel(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=["gateway", "channel", *labels])


def _of_repairs(states: Mapping[str, Present]) -> Iterator[Metric]:
    failures = _by_channel(
        "whatsapp_reconnect_consecutive_failures", "Consecutive failed repairs of the channel."
    )
    waiting = _by_channel("whatsapp_reconnect_qr_required", "1 while a QR code waits for a person.")
    paused = _by_channel(
        "whatsapp_reconnect_paused", "1 while a person has paused the channel's repairs."
    )
    for gateway, present in states.items():
        for known in present.remembered.values():
            labels = [gateway, known.channel]
            failures.add_metric(labels, known.failures)
            waiting.add_metric(labels, known.qr_required)
        for pause in present.paused.values():
            paused.add_metric([gateway, pause.channel], 1)
    yield from (failures, waiting, paused)


def _of_probes(states: Mapping[str, Present]) -> Iterator[Metric]:
    success = _by_channel(
        "whatsapp_channel_probe_success",
        "1 if the channel passed its last probe, else 0.",
        "kind",
    )
    at = _by_channel(
        "whatsapp_channel_probe_timestamp_seconds",
        "When the channel's last probe ended, in Unix seconds by the state's clock.",
        "kind",
    )
    faults = _by_channel(
        "whatsapp_channel_webhook_fault",
        "1 while the channel's messages do not arrive and its webhook's settings show why.",
        "fault",
    )
    for gateway, present in states.items():
        for probed in present.probed.values():
            if probed.webhook_fault:
                faults.add_metric([gateway, probed.channel, probed.webhook_fault], 1)
            labels = [gateway, probed.channel, probed.kind]
            success.add_metric(labels, probed.outcome is ProbeOutcome.PASSED)
            at.add_metric(labels, probed.at)
    yield from (success, at, faults)


def _of_audits(audits: Mapping[str, dict[str, LastAudit]]) -> Iterator[Metric]:
    missed = _by_channel(
        "whatsapp_channel_messages_missed",
        "Messages that conclusive audits of the last day have found missing.",
    )
    at = _by_channel(
        "whatsapp_message_audit_timestamp_seconds",
        "When the last conclusive audit ended, in Unix seconds by the state's clock.",
    )
    for gateway, of_gateway in audits.items():
        for one in of_gateway.values():
            if one.known_at is not None:
                missed.add_metric([gateway, one.channel], one.missed)
                at.add_metric([gateway, one.channel], one.known_at)
    yield from (missed, at)
