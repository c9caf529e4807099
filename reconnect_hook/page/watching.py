"""What Prometheus knows of the gateways' channels at this moment."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconnect_hook.page.sources import FiringAlert, Prometheus, Sample, quoted
from whatsapp.channels import channel_key

_SECONDS = 2.0  # until Prometheus has to have answered
_METRICS = (
    "whatsapp_channel_(connected|status|seconds_since_last_message|silence_threshold_seconds)"
    "|whatsapp_(gateway|message_log)_up"
)


@dataclass(frozen=True, slots=True)
class Watched:
    """One channel as the exporter sees it; None is what is not known."""

    channel: str
    connected: bool | None = None
    status: str | None = None
    last_message: float | None = None
    """Unix seconds."""
    threshold: float | None = None
    """Seconds without a message from when on it counts as silent."""


@dataclass(frozen=True, slots=True)
class Watch:
    """All of one gateway. Where the exporter tells nothing of gateway or log, ``up`` is None."""

    at: float
    gateway_up: bool | None = None
    log_up: bool | None = None
    channels: Mapping[str, Watched] = field(default_factory=dict)
    alerts: Mapping[str, tuple[FiringAlert, ...]] = field(default_factory=dict)


def watch(prometheus: Prometheus, gateways: Collection[str]) -> dict[str, Watch]:
    """Ask Prometheus once for all of these gateways; raise SourceError.

    Of several exporters, the one that says the worst of a connection counts, and the newest
    message, as in the rules.
    """
    at = time.time()
    names = quoted("|".join(re.escape(name) for name in gateways))
    samples = prometheus.now(f'{{__name__=~"{_METRICS}",gateway=~{names}}}', _SECONDS)
    firing = prometheus.firing(_SECONDS)
    return {
        name: _watch(
            at,
            [sample for sample in samples if sample.labels.get("gateway") == name],
            [alert for alert in firing if alert.labels.get("gateway") == name],
        )
        for name in gateways
    }


def _watch(at: float, samples: Iterable[Sample], firing: Iterable[FiringAlert]) -> Watch:
    found = Watch(at)
    channels: dict[str, Watched] = {}
    for sample in samples:
        metric, channel = sample.labels.get("__name__", ""), sample.labels.get("channel")
        if metric == "whatsapp_gateway_up":
            found = replace(found, gateway_up=bool(found.gateway_up) or sample.value == 1)
        elif metric == "whatsapp_message_log_up":
            found = replace(found, log_up=bool(found.log_up) or sample.value == 1)
        elif channel:
            key = channel_key(channel)
            known = channels.get(key) or Watched(channel)
            channels[key] = _with(known, metric, sample, found.at)
    alerts: dict[str, list[FiringAlert]] = {}
    for alert in firing:
        if alert.labels.get("channel"):
            alerts.setdefault(channel_key(alert.labels["channel"]), []).append(alert)
    return replace(
        found, channels=channels, alerts={key: tuple(some) for key, some in alerts.items()}
    )


def _with(known: Watched, metric: str, sample: Sample, at: float) -> Watched:
    match metric.removeprefix("whatsapp_channel_"):
        case "connected":
            return replace(known, connected=known.connected is not False and sample.value == 1)
        case "status":
            return replace(known, status=sample.labels.get("status")) if sample.value else known
        case "seconds_since_last_message":
            return replace(known, last_message=max(known.last_message or 0, at - sample.value))
        case "silence_threshold_seconds":
            return replace(known, threshold=sample.value)
        case _:
            return known
