"""Client of Prometheus: answers become typed values, failures raise SourceError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zapwatch.channels import channel_key
from zapwatch.http import PLAIN_ACCESS, HttpAccess, HttpClient, HttpError

_CONNECT_SECONDS = 1.0
_MAX_BYTES = 64 * 1024 * 1024


class SourceError(Exception):
    """No usable answer. ``str()`` is one short line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of one series at one time."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one series over time, as (Unix seconds, value)."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FiringAlert:
    """A firing alert."""

    name: str
    labels: Mapping[str, str]
    summary: str
    runbook_url: str
    """Empty unless it is an HTTP(S) URL."""


def _get(client: HttpClient, path: str, seconds: float, **parameters: str) -> Any:
    """Return the JSON at a path, with a timeout in seconds; raise SourceError."""
    try:
        response = client.request("GET", path, seconds, params=parameters)
    except HttpError as error:
        raise SourceError(error.kind) from None
    if not response.is_success:
        raise SourceError(f"HTTP {response.status}")
    parsed = response.json()
    if parsed is None:
        raise SourceError("an answer that is not JSON")
    return parsed


class Prometheus:
    """Queries one Prometheus; each method has a timeout in seconds and raises SourceError."""

    def __init__(self, url: str, access: HttpAccess = PLAIN_ACCESS) -> None:
        self._client = HttpClient(
            url, access=access, connect_timeout=_CONNECT_SECONDS, max_bytes=_MAX_BYTES
        )

    def now(self, query: str, seconds: float) -> list[Sample]:
        """Return the current samples of a query."""
        found = []
        for entry in self._result("query", seconds, query=query):
            at_value = _points([entry.get("value")])
            if at_value:
                found.append(Sample(_texts(entry.get("metric")), at_value[0][1]))
        return found

    def over_time(
        self, query: str, start: float, end: float, step: int, seconds: float
    ) -> list[Series]:
        """Return a query's values from ``start`` to ``end`` (Unix seconds), ``step`` s apart."""
        result = self._result(
            "query_range", seconds, query=query, start=f"{start}", end=f"{end}", step=f"{step}"
        )
        return [Series(_texts(one.get("metric")), _points(one.get("values"))) for one in result]

    def firing(self, seconds: float) -> list[FiringAlert]:
        """Return the firing alerts."""
        alerts = self._list("alerts", "alerts", seconds)
        return [_alert(one) for one in alerts if one.get("state") == "firing"]

    def _result(self, path: str, seconds: float, **parameters: str) -> list[dict[str, Any]]:
        return self._list(path, "result", seconds, **parameters)

    def _list(
        self, path: str, field: str, seconds: float, **parameters: str
    ) -> list[dict[str, Any]]:
        """Return the JSON objects in a field of the answer's ``data``."""
        answer = _get(self._client, f"/api/v1/{path}", seconds, **parameters)
        data = answer.get("data") if isinstance(answer, dict) else None
        entries = data.get(field) if isinstance(data, dict) else None
        if not isinstance(entries, list):
            raise SourceError(f"an answer without {field}")
        return [one for one in entries if isinstance(one, dict)]


def quote_label(text: str) -> str:
    """Return a text quoted for PromQL and Alertmanager's matchers."""
    return json.dumps(text, ensure_ascii=False)


def _alert(entry: dict[str, Any]) -> FiringAlert:
    labels, notes = _texts(entry.get("labels")), _texts(entry.get("annotations"))
    runbook = notes.get("runbook_url", "")
    return FiringAlert(
        labels.get("alertname", ""),
        labels,
        notes.get("summary", ""),
        runbook if runbook.startswith(("https://", "http://")) else "",
    )


def _texts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _points(found: Any) -> tuple[tuple[float, float], ...]:
    points = []
    for one in found if isinstance(found, list) else ():
        try:
            at, value = float(one[0]), float(one[1])
        except (TypeError, ValueError, LookupError):
            continue
        if math.isfinite(at) and math.isfinite(value):
            points.append((at, value))
    return tuple(points)


_SECONDS = 2.0  # timeout of Prometheus
_METRICS = (
    "whatsapp_channel_(connected|status|seconds_since_last_message|silence_threshold_seconds)"
    "|whatsapp_(gateway|message_log)_up"
)


@dataclass(frozen=True, slots=True)
class ChannelMetrics:
    """One channel as the exporter reports it; None is unknown."""

    channel: str
    connected: bool | None = None
    status: str | None = None
    last_message: float | None = None
    """Unix seconds."""
    threshold: float | None = None
    """Silence threshold in seconds."""


@dataclass(frozen=True, slots=True)
class GatewayReadings:
    """All readings of one gateway; ``*_up`` is None if the exporter reports none."""

    at: float
    gateway_up: bool | None = None
    log_up: bool | None = None
    channels: Mapping[str, ChannelMetrics] = field(default_factory=dict)
    alerts: Mapping[str, tuple[FiringAlert, ...]] | None = field(default_factory=dict)
    """None if Prometheus was not asked."""


def read_metrics(
    prometheus: Prometheus, gateways: Collection[str], at: float
) -> dict[str, GatewayReadings]:
    """Query Prometheus at ``at`` (Unix seconds) for all of these gateways; raise SourceError.

    Several exporters merge as in the rules: the worst connection and the newest message count.
    """
    names = quote_label("|".join(re.escape(name) for name in gateways))
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


def _watch(at: float, samples: Iterable[Sample], firing: Iterable[FiringAlert]) -> GatewayReadings:
    found = GatewayReadings(at)
    channels: dict[str, ChannelMetrics] = {}
    for sample in samples:
        metric, channel = sample.labels.get("__name__", ""), sample.labels.get("channel")
        if metric == "whatsapp_gateway_up":
            found = replace(found, gateway_up=bool(found.gateway_up) or sample.value == 1)
        elif metric == "whatsapp_message_log_up":
            found = replace(found, log_up=bool(found.log_up) or sample.value == 1)
        elif channel:
            key = channel_key(channel)
            known = channels.get(key) or ChannelMetrics(channel)
            channels[key] = _with(known, metric, sample, found.at)
    alerts: dict[str, list[FiringAlert]] = {}
    for alert in firing:
        if alert.labels.get("channel"):
            alerts.setdefault(channel_key(alert.labels["channel"]), []).append(alert)
    return replace(
        found, channels=channels, alerts={key: tuple(some) for key, some in alerts.items()}
    )


def _with(known: ChannelMetrics, metric: str, sample: Sample, at: float) -> ChannelMetrics:
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
