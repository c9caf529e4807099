"""Exposition of Prometheus metrics, and the metrics that both programs share."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.registry import Collector

from zapwatch.clock import Clock
from zapwatch.gateways.base import GatewayErrorKind, Observer, Operation
from zapwatch.server import dead_threads, start_thread

# They add a sample to each counter, which Prometheus ignores by default.
disable_created_metrics()  # type: ignore[no-untyped-call]

_log = logging.getLogger("metrics")

_OPENMETRICS = "application/openmetrics-text"
# Seconds: from a cached response to the default time-out of the channel list, 90 s.
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)
_KEEP_SECONDS = 300.0  # a format is rendered this long after its last scrape
_REST = 4  # pause between two renderings, as a multiple of the last one's duration


@dataclass(frozen=True, slots=True)
class Page:
    """Response body with its headers."""

    body: bytes
    headers: dict[str, str]


class Format(NamedTuple):
    """Format of the exposition."""

    openmetrics: bool
    compressed: bool


def negotiate(accept: str, accept_encoding: str) -> Format:
    """Return the format for the headers ``Accept`` and ``Accept-Encoding``."""
    return Format(_OPENMETRICS in accept, gzip_accepted(accept_encoding))


def encode(registry: Collector, *, openmetrics: bool) -> bytes:
    """Render a registry as text."""
    encoder, _ = _encoder(openmetrics=openmetrics)
    return encoder(registry)


def make_page(text: bytes, wanted: Format) -> Page:
    """Return the output of encode() as a page, gzipped if ``wanted`` is compressed."""
    _, content_type = _encoder(openmetrics=wanted.openmetrics)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if not wanted.compressed:
        return Page(text, headers)
    body = gzip.compress(text, compresslevel=5)
    return Page(body, {**headers, "Content-Encoding": "gzip"})


class MetricsPage:
    """Cache of the rendered page for each scraped format: text, OpenMetrics, each also gzipped.

    A scrape returns the cached bytes; only the first scrape of a format waits for a rendering.
    invalidate(), which the StateStore calls at each update, makes one thread render all formats
    that were scraped within the last five minutes. The thread then pauses for four times the
    duration of the rendering, and so uses at most a fifth of a core for any number of gateways.
    10,000 channels take half a second on an idle machine, and so are up to three seconds late.

    Values that change between two polls, such as the counters of posted events and ``process_*``,
    lag by one poll.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Clock | None = None) -> None:
        self._registry = registry
        self._clock = clock or Clock()
        self._changed = threading.Event()
        self._rendering = threading.Lock()
        self._scraped_at: dict[Format, float] = {}
        self._pages: dict[Format, Page] = {}

    def start(self) -> None:
        """Start the daemon thread that renders after each change."""
        start_thread("metrics", self._run)

    def invalidate(self) -> None:
        """Schedule a rendering; return immediately."""
        self._changed.set()

    def get(self, accept: str, accept_encoding: str, names: Collection[str] = ()) -> Page:
        """Return the page for the two request headers.

        With ``names`` (parameter ``name[]``), render only these series, without the cache.
        """
        wanted = negotiate(accept, accept_encoding)
        if names:
            with self._rendering:
                return self._render(self._registry.restricted_registry(names), [wanted])[wanted]
        page = self.cached(accept, accept_encoding)
        if page is None:
            with self._rendering:
                if wanted not in self._pages:
                    self._pages = {**self._pages, **self._render(self._registry, [wanted])}
                page = self._pages[wanted]
        return page

    def cached(self, accept: str, accept_encoding: str) -> Page | None:
        """Return the page if it is rendered; never waits."""
        wanted = negotiate(accept, accept_encoding)
        self._scraped_at[wanted] = self._clock.monotonic()
        return self._pages.get(wanted)

    def refresh(self) -> None:
        """Render every scraped format. Raises nothing."""
        with self._rendering:
            self._changed.clear()
            oldest = self._clock.monotonic() - _KEEP_SECONDS
            formats = [wanted for wanted, at in self._scraped_at.copy().items() if at >= oldest]
            try:
                self._pages = self._render(self._registry, formats)
            except Exception:  # noqa: BLE001
                # Until the next rendering, scrapes render by themselves and return the error.
                _log.exception("the metrics cannot be rendered: internal error")
                self._pages = {}

    def _run(self) -> None:
        while self._changed.wait():
            started = self._clock.monotonic()
            self.refresh()
            self._clock.sleep(_REST * (self._clock.monotonic() - started))

    @staticmethod
    def _render(registry: Collector, formats: Iterable[Format]) -> dict[Format, Page]:
        texts: dict[bool, bytes] = {}
        pages = {}
        for wanted in formats:
            if wanted.openmetrics not in texts:
                texts[wanted.openmetrics] = encode(registry, openmetrics=wanted.openmetrics)
            pages[wanted] = make_page(texts[wanted.openmetrics], wanted)
        return pages


def register_process_metrics(registry: CollectorRegistry) -> None:
    """Register the collectors for ``process_*`` and ``python_*``."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def register_dead_threads(registry: CollectorRegistry, program: str) -> None:
    """Register the number of dead threads; ``program`` is the metric's prefix."""
    Gauge(
        f"{program}_dead_threads",
        "Threads that died of an internal error; only a restart helps.",
        registry=registry,
    ).set_function(lambda: len(dead_threads))


class ReloadMetrics:
    """Result of the last reload of the settings, and time of the last successful one."""

    def __init__(self, registry: CollectorRegistry, program: str) -> None:
        """Record the start as a success; ``program`` is the metrics' prefix."""
        self._successful = Gauge(
            f"{program}_config_last_reload_successful",
            "1 if the settings were accepted when they were last read, else 0.",
            registry=registry,
        )
        self._succeeded_at = Gauge(
            f"{program}_config_last_reload_success_timestamp_seconds",
            "When the settings were last read and accepted, in Unix seconds.",
            registry=registry,
        )
        self.record(successful=True)

    def record(self, *, successful: bool) -> None:
        """Record the result of a reload."""
        self._successful.set(successful)
        if successful:
            self._succeeded_at.set_to_current_time()


def _encoder(*, openmetrics: bool) -> tuple[Callable[[Collector], bytes], str]:
    # The client's header is not passed on, so that only these two formats can result. No name needs
    # escaping; by default, each sample's is escaped character by character, a third of the time.
    wanted = f"{_OPENMETRICS}; version=1.0.0; escaping={ALLOWUTF8}"
    return choose_encoder(wanted if openmetrics else "")


class GatewayMetrics:
    """Durations and errors of the calls to gateways."""

    def __init__(self, registry: CollectorRegistry, operations: Iterable[Operation]) -> None:
        """Register the metrics; of() creates the series of all ``operations``."""
        self._operations = tuple(operations)
        self._durations = Histogram(
            "whatsapp_gateway_request_duration_seconds",
            "How long calls to the gateway took, failed ones included.",
            ["gateway", "operation"],
            registry=registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._errors = Counter(
            "whatsapp_gateway_request_errors_total",
            "Failed calls to the gateway, by reason.",
            ["gateway", "operation", "reason"],
            registry=registry,
        )

    def of(self, gateway: str) -> Observer:
        """Return the observer of one gateway's calls."""
        # Series are created here, so that a call which ends after forget() creates none.
        durations = {one: self._durations.labels(gateway, one) for one in self._operations}
        errors = {
            (one, reason): self._errors.labels(gateway, one, reason)
            for one in self._operations
            for reason in GatewayErrorKind
        }

        def observe(operation: Operation, seconds: float, reason: GatewayErrorKind | None) -> None:
            durations[operation].observe(seconds)
            if reason is not None:
                errors[operation, reason].inc()

        return observe

    def forget(self, gateway: str) -> None:
        """Remove the series of a gateway."""
        self._durations.remove_by_labels({"gateway": gateway})
        self._errors.remove_by_labels({"gateway": gateway})
