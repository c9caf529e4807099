"""Metrics of gateways that come and go."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from zapwatch.gateways.base import GatewayErrorKind, Operation
from zapwatch.metrics import GatewayMetrics

_COUNT = "whatsapp_gateway_request_duration_seconds_count"
_ERRORS = "whatsapp_gateway_request_errors_total"


def _of(registry: CollectorRegistry, gateway: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.labels["gateway"] == gateway and sample.name in {_COUNT, _ERRORS}
    }


def test_a_gateway_that_is_forgotten_stays_so_whatever_still_ends() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry, [Operation.LIST])
    observe, other = metrics.of("loja"), metrics.of("wpp")
    # WhatsAppGatewayUnknown reads from it which gateways a hook has.
    assert _of(registry, "loja")[_COUNT] == 0
    observe(Operation.LIST, 1.0, None)
    assert _of(registry, "loja")[_COUNT] == 1

    metrics.forget("loja")
    observe(Operation.LIST, 90.0, GatewayErrorKind.TIMEOUT)
    other(Operation.LIST, 1.0, None)
    assert _of(registry, "loja") == {}
    assert _of(registry, "wpp")[_COUNT] == 1

    metrics.of("loja")(Operation.LIST, 1.0, None)
    assert _of(registry, "loja") == {_COUNT: pytest.approx(1), _ERRORS: 0}
