"""What makes metric families of a snapshot: what all collectors have in common."""

from __future__ import annotations

from abc import abstractmethod

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.snapshot import Board, Snapshot


class OfSnapshot(Collector):
    """Turns the present snapshot into metric families; what is not known has no sample."""

    def __init__(self, board: Board, gateway: str) -> None:
        self.board = board
        self.gateway = gateway

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not collect."""
        return []

    def gauge(self, name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
        """Return an empty family whose samples name the gateway first."""
        return GaugeMetricFamily(name, help_text, labels=["gateway", *labels])

    def counter(self, name: str, help_text: str, *labels: str) -> CounterMetricFamily:
        """Return an empty family whose samples name the gateway first."""
        return CounterMetricFamily(name, help_text, labels=["gateway", *labels])


class OfChannels(OfSnapshot):
    """The families that have samples for each channel."""

    @abstractmethod
    def made_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return all that goes into the families, see Section."""
