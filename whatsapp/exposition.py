"""Prometheus metrics over HTTP, and those about the gateway's calls that both programs have."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder, gzip_accepted

from whatsapp.gateways.gateway import Operation, Reason

# A second sample for each counter, of which Prometheus makes nothing unless told to.
disable_created_metrics()  # type: ignore[no-untyped-call]

_OPENMETRICS = "application/openmetrics-text"
# Seconds: from a cached answer to the 90 s that a list may take.
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)


@dataclass(frozen=True, slots=True)
class Page:
    """A body with the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


def render(registry: CollectorRegistry, accept: str, accept_encoding: str) -> Page:
    """Return the metrics in the format that the two request headers ask for."""
    openmetrics = wants_openmetrics(accept)
    body = encode(registry, openmetrics=openmetrics)
    return page(body, openmetrics=openmetrics, compressed=gzip_accepted(accept_encoding))


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header asks for OpenMetrics rather than the older text format."""
    return _OPENMETRICS in accept


def encode(registry: CollectorRegistry, *, openmetrics: bool) -> bytes:
    """Return the metrics of a registry as text."""
    encoder, _ = _encoder(openmetrics=openmetrics)
    return encoder(registry)


def page(text: bytes, *, openmetrics: bool, compressed: bool) -> Page:
    """Return a text of metrics with its headers."""
    _, content_type = _encoder(openmetrics=openmetrics)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if not compressed:
        return Page(text, headers)
    return Page(gzip.compress(text, compresslevel=5), headers | {"Content-Encoding": "gzip"})


def _encoder(*, openmetrics: bool) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    # What was sent is not handed on: of all that could be asked for, two formats exist here.
    return choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if openmetrics else "")


class GatewayMetrics:
    """Durations and errors of one gateway's calls."""

    def __init__(
        self, registry: CollectorRegistry, gateway: str, operations: Iterable[Operation]
    ) -> None:
        self._gateway = gateway
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
        for operation in operations:
            self._durations.labels(gateway, operation)
            for reason in Reason:
                self._errors.labels(gateway, operation, reason)

    def observe(self, operation: Operation, seconds: float, reason: Reason | None) -> None:
        """Count one call; ``reason`` is None where it worked. Fits a gateway's ``observe``."""
        self._durations.labels(self._gateway, operation).observe(seconds)
        if reason is not None:
            self._errors.labels(self._gateway, operation, reason).inc()
