"""Readings of channels: from Prometheus, or from the gateway itself while Prometheus is down.

Prometheus' answers become typed values, failures raise SourceError.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from zapwatch.channels import Channel, channel_key, known_numbers
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings
from zapwatch.config.readers import MessageSourceKind
from zapwatch.gateways.base import Gateway, GatewayError
from zapwatch.http import PLAIN_ACCESS, HttpAccess, HttpClient, HttpError
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("reconnect_hook")

_CONNECT_SECONDS = 1.0
_MAX_BYTES = 64 * 1024 * 1024
_MOST = 1e11  # as Unix seconds the year 5138


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
    since: float | None = None
    """Start of its condition, Unix seconds."""


class Prometheus:
    """Queries one Prometheus; each method has a timeout in seconds and raises SourceError."""

    def __init__(self, url: str, access: HttpAccess = PLAIN_ACCESS) -> None:
        self._client = HttpClient(
            url, access=access, connect_timeout=_CONNECT_SECONDS, max_bytes=_MAX_BYTES
        )

    def now(self, query: str, seconds: float) -> list[Sample]:
        """Return the current samples of a query."""
        found = []
        for entry in self._list("query", "result", seconds, query=query):
            at_value = _points([entry.get("value")])
            if at_value:
                found.append(Sample(_texts(entry.get("metric")), at_value[0][1]))
        return found

    def over_time(
        self, query: str, start: float, end: float, step: int, seconds: float
    ) -> list[Series]:
        """Return a query's values from ``start`` to ``end`` (Unix seconds), ``step`` s apart."""
        times = {"start": f"{start}", "end": f"{end}", "step": f"{step}"}
        result = self._list("query_range", "result", seconds, query=query, **times)
        return [Series(_texts(one.get("metric")), _points(one.get("values"))) for one in result]

    def firing(self, seconds: float) -> list[FiringAlert]:
        """Return the firing alerts by name; Prometheus' own order changes with each answer."""
        alerts = self._list("alerts", "alerts", seconds)
        firing = (_alert(one) for one in alerts if one.get("state") == "firing")
        return sorted(firing, key=lambda one: (one.name, sorted(one.labels.items())))

    def _list(
        self, path: str, field: str, seconds: float, **parameters: str
    ) -> list[dict[str, Any]]:
        """Return the JSON objects in a field of the answer's ``data``."""
        try:
            response = self._client.request("GET", f"/api/v1/{path}", seconds, params=parameters)
        except HttpError as error:
            raise SourceError(error.kind) from None
        if not response.is_success:
            raise SourceError(f"HTTP {response.status}")
        answer = response.parsed
        if answer is None:
            raise SourceError("an answer that is not JSON")
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
        _time(entry.get("activeAt")),
    )


def _time(text: object) -> float | None:
    """Return a time of Prometheus as Unix seconds; None if it is invalid."""
    try:
        at = datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at if 0 <= at < _MOST else None


def _texts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    # No page, link or header can contain a lone surrogate.
    texts = ((name, value) for name, value in found.items() if isinstance(value, str))
    return {name: value.encode(errors="replace").decode() for name, value in texts}


def _points(found: Any) -> tuple[tuple[float, float], ...]:
    points = []
    for one in found if isinstance(found, list) else ():
        try:
            at, value = float(one[0]), float(one[1])
        except (TypeError, ValueError, LookupError, OverflowError):
            continue
        if 0 <= at < _MOST and abs(value) < _MOST:
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
) -> tuple[dict[str, GatewayReadings], list[FiringAlert]]:
    """Query Prometheus at ``at`` (Unix seconds) for these gateways, and for all firing alerts.

    Raises SourceError.
    Several exporters merge as in the rules: the worst connection and the newest message count.
    """
    names = quote_label("|".join(re.escape(name) for name in gateways))
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in prometheus.now(f'{{__name__=~"{_METRICS}",gateway=~{names}}}', _SECONDS):
        samples[sample.labels.get("gateway", "")].append(sample)
    firing = prometheus.firing(_SECONDS)
    alerts: defaultdict[str, list[FiringAlert]] = defaultdict(list)
    for alert in firing:
        alerts[alert.labels.get("gateway", "")].append(alert)
    readings = {name: _watch(at, samples[name], alerts[name]) for name in gateways}
    return readings, firing


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
    if found.gateway_up is False:
        # A Prometheus that was killed returns statuses of before for five minutes.
        channels = {k: replace(one, connected=None, status=None) for k, one in channels.items()}
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


LIST_SECONDS = 10.0
"""Pause between two lists, shared by all viewers."""

_BUDGET_SECONDS = 900.0  # the same for a gateway with a request budget
_PATIENCE_SECONDS = 2.0  # that a reader waits for a list just requested

OpenSource = Callable[[Callable[[], Collection[Channel]]], MessageSource | None]
"""Opens the gateway's message source; the argument returns the channels listed last."""


class DirectReader:
    """Reads one gateway while a page is open: one list at a time, shared by all viewers.

    With a request budget, repairs have priority, and the last list counts until the next one.
    """

    def __init__(
        self,
        client: Gateway,
        gateway: GatewaySettings,
        open_source: OpenSource,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._gateway = gateway
        self._open_source = open_source
        self._clock = clock or Clock()
        self._is_counted = gateway.requests_per_month is not None
        self.pause = _BUDGET_SECONDS if self._is_counted else LIST_SECONDS
        """Seconds between two lists."""
        self._condition = threading.Condition()
        self._is_listing = self._is_reading = False
        self._channels: tuple[Channel, ...] = ()
        self._readings: GatewayReadings | None = None
        self._read_at = self._began_at = self._next_at = float("-inf")
        self._ages: Mapping[str, float] = {}
        self._log_up: bool | None = None
        self._source: MessageSource | None = None
        self.numbers: Mapping[str, str] = {}
        """The channels' own numbers by key, from all lists so far; only in memory."""

    def begin(self) -> None:
        """Request a list if one is due."""
        with self._condition:
            now = self._clock.monotonic()
            if self._is_reading or now < self._next_at:
                return
            if self._client.can_spare_list():
                threading.Thread(target=self._read, name="page-list", daemon=True).start()
                self._is_reading = self._is_listing = True
                self._began_at = now
            else:
                self._next_at = now + self.pause

    def readings(self) -> GatewayReadings | None:
        """Return the readings of the last list, or None if it is too old.

        Waits for a list only if there is no other, and at most two seconds from its request.
        """
        self.begin()
        with self._condition:
            if self._present() is None:
                left = self._began_at + _PATIENCE_SECONDS - self._clock.monotonic()
                self._condition.wait_for(lambda: not self._is_listing, max(0.0, left))
            return self._present()

    def channels(self) -> Collection[Channel]:
        """Return the channels of the last list; request one if it is due."""
        self.readings()
        return self._channels

    def _present(self) -> GatewayReadings | None:
        return None if self._is_old() and not self._is_counted else self._readings

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._read_at > 2 * self.pause

    def _read(self) -> None:
        """Publish the list as soon as it arrives, and again with the ages of messages."""
        if self._is_old():
            self._ages, self._log_up = {}, None
        try:
            is_up = self._list()
            self._publish(is_up=is_up)
            if is_up:
                self._read_ages()
                self._publish(is_up=True)
        finally:
            with self._condition:
                self._is_reading = self._is_listing = False
                self._next_at = self._clock.monotonic() + self.pause
                self._condition.notify_all()

    def _list(self) -> bool:
        try:
            self._channels = self._client.list_channels().channels
            self.numbers = known_numbers(self._channels, self.numbers)
        except GatewayError as error:
            _log.info("the page's list of %s: %s", self._gateway.name, error)
        except Exception:  # noqa: BLE001 - handled as a failed list
            _log.exception("the page's list failed: internal error")
        else:
            return True
        return False

    def _read_ages(self) -> None:
        try:
            if self._source is None:
                self._source = self._open_source(lambda: self._channels)
            source = self._source
            if source is None:
                return
            # From the gateway's own list, find() returns only times of messages, no first looks.
            is_list = self._gateway.messages is MessageSourceKind.ACTIVITY
            found = (source.find if is_list else source.poll)(self._channels)
        except MessageLogError as error:
            _log.info("the page's messages of %s: %s", self._gateway.name, error)
            self._ages, self._log_up = {}, False
        except Exception:  # noqa: BLE001 - handled as an unreadable log
            _log.exception("the page's messages failed: internal error")
            self._ages, self._log_up = {}, False
        else:
            # The newest message may be among the unread rows.
            self._ages = {} if found.unread else found.last_message
            self._log_up = True

    def _publish(self, *, is_up: bool) -> None:
        channels = {one.key: self._metrics_of(one) for one in self._channels} if is_up else {}
        readings = GatewayReadings(self._clock.time(), is_up, self._log_up, channels)
        with self._condition:
            self._readings = readings
            self._read_at = self._clock.monotonic()
            self._is_listing = False
            self._condition.notify_all()

    def _metrics_of(self, channel: Channel) -> ChannelMetrics:
        found = ChannelMetrics(channel.id, channel.connected, channel.status)
        last_message = self._ages.get(channel.key)
        # Without one, an older message may be still unread: the page must not deny it.
        if last_message is None:
            return found
        threshold = self._gateway.silence_threshold(channel)
        return replace(found, last_message=last_message, threshold=threshold)

    def close(self) -> None:
        """Close the connections; a read in progress closes its own at its end."""
        source, self._source = self._source, None
        if source is not None:
            source.close()
