"""Prometheus metrics over HTTP, and those about the gateway's calls that both programs have."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
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
from prometheus_client.registry import Collector

from zapwatch.clock import Clock
from zapwatch.gateways.base import GatewayErrorKind, Observer, Operation
from zapwatch.server import start_thread

# A second sample for each counter, of which Prometheus makes nothing unless told to.
disable_created_metrics()  # type: ignore[no-untyped-call]

_log = logging.getLogger("metrics")

_OPENMETRICS = "application/openmetrics-text"
# Seconds: from a cached answer to the 90 s that a list may take.
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)
_KEEP_SECONDS = 300.0  # for which a format is rendered after its last scrape
_REST = 4  # times as long as the last rendering took


@dataclass(frozen=True, slots=True)
class Page:
    """A body with the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


class Format(NamedTuple):
    """A format of the exposition."""

    openmetrics: bool
    compressed: bool


def negotiate(accept: str, accept_encoding: str) -> Format:
    """Return the format that the two request headers ask for."""
    return Format(_OPENMETRICS in accept, gzip_accepted(accept_encoding))


def encode(registry: Collector, *, openmetrics: bool) -> bytes:
    """Return the metrics of a registry as text."""
    encoder, _ = _encoder(openmetrics=openmetrics)
    return encoder(registry)


def make_page(text: bytes, wanted: Format) -> Page:
    """Return a text of encode() as a page, compressed where that is wanted."""
    _, content_type = _encoder(openmetrics=wanted.openmetrics)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if not wanted.compressed:
        return Page(text, headers)
    body = gzip.compress(text, compresslevel=5)
    return Page(body, {**headers, "Content-Encoding": "gzip"})


class MetricsPage:
    """One cache of bytes for each format that is scraped: text, OpenMetrics, each also gzipped.

    A scrape hands out the last bytes and never waits for a rendering, except the first scrape of a
    format. invalidate(), which the StateStore calls at each update, lets one thread render all
    formats that were scraped within the last five minutes. The thread then rests four times as long
    as the rendering took, so that it needs a fifth of a core at most, however many gateways are
    polled. 10,000 channels take half a second on an idle machine, and so are up to three seconds
    late.

    Values that change between two polls, such as the counters of posted events and ``process_*``,
    are as of the last rendering, and so lag by one poll.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Clock | None = None) -> None:
        self._registry = registry
        self._clock = clock or Clock()
        self._changed = threading.Event()
        self._rendering = threading.Lock()
        self._scraped_at: dict[Format, float] = {}
        self._pages: dict[Format, Page] = {}

    def start(self) -> None:
        """Render after each change, in a thread that does not keep the program from ending."""
        start_thread("metrics", self._run)

    def invalidate(self) -> None:
        """Have the formats rendered again soon; return at once."""
        self._changed.set()

    def get(self, accept: str, accept_encoding: str, names: Collection[str] = ()) -> Page:
        """Return the page for the two request headers.

        With ``names``, those of ``name[]``, it is rendered for this request with these series only.
        """
        wanted = negotiate(accept, accept_encoding)
        if names:
            with self._rendering:
                return self._render(self._registry.restricted_registry(names), [wanted])[wanted]
        self._scraped_at[wanted] = self._clock.monotonic()
        page = self._pages.get(wanted)
        if page is None:
            with self._rendering:
                if wanted not in self._pages:
                    self._pages = {**self._pages, **self._render(self._registry, [wanted])}
                page = self._pages[wanted]
        return page

    def refresh(self) -> None:
        """Render every format that is scraped. Raises nothing."""
        with self._rendering:
            self._changed.clear()
            oldest = self._clock.monotonic() - _KEEP_SECONDS
            formats = [wanted for wanted, at in self._scraped_at.copy().items() if at >= oldest]
            try:
                self._pages = self._render(self._registry, formats)
            except Exception:  # noqa: BLE001
                # The next change is rendered all the same. A scrape meanwhile gets the error.
                _log.exception("the metrics cannot be rendered, a fault of the program itself")
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
    """Publish ``process_*`` and ``python_*``: what the program uses, and what it runs on."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def register_dead_threads(
    registry: CollectorRegistry, program: str, dead: Callable[[], Sequence[str]]
) -> None:
    """Publish how many of the program's threads have died; ``program`` begins the name."""
    Gauge(
        f"{program}_dead_threads",
        "Threads that have died by a fault of the program: a restart brings them back.",
        registry=registry,
    ).set_function(lambda: len(dead()))


class ReloadMetrics:
    """Whether the settings were read without an error, and when they last were."""

    def __init__(self, registry: CollectorRegistry, program: str) -> None:
        """Publish the start as a success; ``program`` begins the names."""
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
        """Publish how a reload ended."""
        self._successful.set(successful)
        if successful:
            self._succeeded_at.set_to_current_time()


def _encoder(*, openmetrics: bool) -> tuple[Callable[[Collector], bytes], str]:
    # What was sent is not handed on: of all that could be asked for, two formats exist here.
    return choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if openmetrics else "")


class GatewayMetrics:
    """Durations and errors of the calls to gateways."""

    def __init__(self, registry: CollectorRegistry, operations: Iterable[Operation]) -> None:
        """Publish nothing yet; only ``operations`` will be observed, and all of them named."""
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
            "Calls to the gateway that failed, by what was wrong.",
            ["gateway", "operation", "reason"],
            registry=registry,
        )

    def of(self, gateway: str) -> Observer:
        """Return what counts the calls to one gateway."""
        # Asked for once, so that a call which ends after forget() brings nothing back.
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
        """Publish nothing of a gateway any more."""
        self._durations.remove_by_labels({"gateway": gateway})
        self._errors.remove_by_labels({"gateway": gateway})
